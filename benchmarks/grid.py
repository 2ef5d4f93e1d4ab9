"""A grid of 24 second phases, 4 depths x 2 batch sizes x 3 learning rates: plain Keras one by one, Graft together.

    python benchmarks/grid.py                               # MobileNet: about 30 minutes on two cores
    python benchmarks/grid.py --case resnet50 --sample 4    # one plain candidate of each depth, the others reckoned

Plain Keras trains every candidate in full, phase 1 included, as a grid of scripts does. Graft computes the frozen
layers of all depths once, trains the head once, and every tail from there: in full, and by successive halving.
"""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import numpy as np
import typer
from cases import CASES, environment
from children import Measured, markdown, measure, pin
from operations import grid_ceiling
from speed import describe, prepare, setting_of, shares_after
from summary import Row, difference, proportion

RATES, BATCH_SIZES = (3e-4, 1e-4, 3e-5), (16, 32)
HALVINGS = (1, 3)
Candidate = tuple[str, float, int]  # cut, learning rate and batch size of phase 2


def candidates(name: str) -> list[Candidate]:
    """All 24, the last varying fastest, as Graft numbers them."""
    return list(itertools.product(CASES[name].depths, RATES, BATCH_SIZES))


def sampled(listed: list[Candidate], count: int) -> list[Candidate]:
    """So many of them, spread evenly; of each depth as many."""
    step = len(listed) / count
    return [listed[int((number + 0.5) * step)] for number in range(count)]


class Bench:
    """One base; every measured child is appended to a file of JSON lines at once."""

    def __init__(self, name: str, workspace: Path, log: Path) -> None:
        self.name, self.workspace, self.log = name, workspace, log

    def child(self, label: str, script: str, *arguments: object) -> Measured:
        """Measure a script."""
        measured = measure(script, self.workspace, *arguments, environment=environment(self.workspace))
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"case": self.name, "label": label, **asdict(measured)}) + "\n")
        print(f"{self.name} {label}: {measured.seconds:.1f} s", flush=True)
        return measured

    def plain(self, candidate: Candidate) -> Measured:
        """One candidate, both phases."""
        cut, rate, batch_size = candidate
        options = ["--no-svm", "--cut", cut, "--unfrozen-rate", rate, "--batch-size", batch_size]
        return self.child(f"plain {cut} {rate:g} {batch_size}", "plain_keras.py", *options)

    def graft(self, halving: int) -> Measured:
        """All candidates: features and finetune, the store empty at first."""
        grid = {"unfrozen_learning_rate": RATES, "batch_size": BATCH_SIZES, "halving": halving}
        depths = ",".join(CASES[self.name].depths)
        options = ["--stages", "features,finetune", "--depths", depths, "--tails", json.dumps(grid)]
        return self.child(f"Graft, halving {halving}", "graft_stages.py", *options)


def tails(measured: Measured) -> list[dict[str, Any]]:
    """The candidates of phase 2 that a child of Graft reported."""
    return [record for record in measured.facts["candidates"] if "frozen_until" in record["params"]]


def seconds_of(measured: Measured, clock: str) -> float:
    """Of the timed parts, without what only judges the result; clock: parts (wall) or cpu_parts."""
    return sum(value for part, value in getattr(measured, clock).items() if part != "predict")


def speed(
    plain: dict[Candidate, Measured],
    graft: dict[int, list[Measured]],
    shares: dict[str, float],
    workspace: Path,
    count: int,
) -> list[Row]:
    """One line per way of Graft's: seconds of both sides, the ratio and its ceiling."""
    setting = setting_of(workspace, views_of(workspace))
    scale = count / len(plain)
    lines = []
    for halving, repeats in graft.items():
        trained = tails(repeats[0])
        every = [shares[record["params"]["frozen_until"]] for record in trained]
        done = [(share, record["epochs"]) for share, record in zip(every, trained, strict=True)]
        most = grid_ceiling(setting, done, every)
        line: Row = {"Graft": "all in full" if halving == 1 else f"halving {halving}", "candidates": len(trained)}
        line |= {"epochs": sum(record["epochs"] for record in trained)}
        for clock, unit in (("parts", "s"), ("cpu_parts", "CPU s")):
            theirs = scale * sum(seconds_of(measured, clock) for measured in plain.values())
            ours = median(seconds_of(measured, clock) for measured in repeats)
            line |= {f"plain {unit}": theirs, f"Graft {unit}": ours, f"ratio ({unit})": theirs / ours}
        line |= {"ceiling": most, "reached": f"{line['ratio (s)'] / most:.0%}"}
        line["peak MiB"] = max(measured.peak_mib for measured in repeats)
        lines.append(line | {"plain peak MiB": max(measured.peak_mib for measured in plain.values())})
    return lines


def views_of(workspace: Path) -> int:
    """Views of each training image."""
    import pandas as pd

    return int(pd.read_parquet(workspace / "augmented/views.parquet")["view"].max()) + 1


def winners(plain: dict[Candidate, Measured], graft: dict[int, list[Measured]]) -> list[Row]:
    """Each way's candidate of the lowest validation loss, its accuracy, and the difference to plain Keras' winner."""

    def loss(candidate: Candidate) -> float:
        return min(plain[candidate].facts["history"]["val_loss"])

    best = min(plain, key=loss)
    theirs = np.array(plain[best].facts["correct"]["unfrozen"])
    lines = [_line("plain", best, loss(best), theirs, theirs)]
    for halving, repeats in graft.items():
        trained = [record for record in tails(repeats[0]) if record["val_loss"] is not None]
        params = min(trained, key=lambda record: record["val_loss"])
        found = tuple(params["params"][key] for key in ("frozen_until", "unfrozen_learning_rate", "batch_size"))
        ours = np.array(repeats[0].facts["correct"]["finetune"])
        lines.append(_line(f"Graft, halving {halving}", found, params["val_loss"], ours, theirs))
    return lines


def _line(way: str, winner: tuple[Any, ...], loss: float, ours: np.ndarray, theirs: np.ndarray) -> Row:
    text = f"{winner[0]}, {winner[1]:g}, {winner[2]}"
    return {"way": way, "winner": text, "lowest validation loss": loss, "accuracy": proportion(ours)} | {
        "difference": difference(ours, theirs)
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder for grid.md, grid.jsonl and the workspace.")] = Path(".work/bench"),
    case: Annotated[str, typer.Option(help=f"One of {', '.join(CASES)}.")] = "mobilenet",
    views: int = 5,
    sample: Annotated[int, typer.Option(help="Plain candidates to train; their mean stands for the others.")] = 24,
    repeats: Annotated[int, typer.Option(help="Of Graft.")] = 1,
    cores: int = 2,
) -> None:
    """Measure, print Markdown tables and keep them in the out folder."""
    pin(cores)
    out.mkdir(parents=True, exist_ok=True)
    workspace = (out / f"grid-{case}").resolve()
    prepare(case, views, workspace)
    bench, listed = Bench(case, workspace, out / "grid.jsonl"), candidates(case)
    graft = {halving: [bench.graft(halving) for _ in range(repeats)] for halving in HALVINGS}
    plain = {candidate: bench.plain(candidate) for candidate in sampled(listed, sample)}
    lines = speed(plain, graft, shares_after(case), workspace, len(listed))
    text = f"## Grid: {describe(case)}; {views} views, {cores} cores\n\n"
    if sample < len(listed):
        each = mean(seconds_of(measured, "parts") for measured in plain.values())
        text += (
            f"Plain Keras: {sample} of {len(listed)} candidates trained, {each:.1f} s each, the others reckoned.\n\n"
        )
    text += f"{markdown(lines)}\n\n{markdown(winners(plain, graft))}\n"
    print(f"\n{text}", flush=True)
    with (out / "grid.md").open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")
    shutil.rmtree(workspace)


if __name__ == "__main__":
    typer.run(main)
