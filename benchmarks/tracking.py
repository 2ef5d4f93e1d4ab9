"""What does MLflow cost a run of the pipeline?

    python benchmarks/tracking.py                    # the tiny pipeline of CI, each way once: about 5 minutes
    python benchmarks/tracking.py --params params.yaml --repeats 3

Runs `dvc repro` of the checkout, uncommitted changes included, in fresh copies: without telling MLflow while a network
trains, and with it. The ways take turns, and what counts is their ratio. Both end with the track stage, whose time is
told apart; the overhead is that of live publishing and of the track stage together, relative to all other stages.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
WAYS = {"off": False, "live": True}
TRACK = "track"


@contextmanager
def copied(params: str, *, live: bool) -> Iterator[Path]:
    """A copy of the checkout with these params and nothing that was ever made; gone after the block."""
    listed = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=CHECKOUT, text=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, root / name)
        values = yaml.safe_load(params)
        values["tracking"]["live"] = live
        (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        (root / "dvc.lock").unlink(missing_ok=True)
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        yield root


def repro(root: Path, *arguments: str) -> dict[str, float]:
    """Seconds of each stage that `dvc repro` ran, DVC's own after it included."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-u", "-m", "dvc", "repro", *arguments]
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        starts = [
            (line.split("'")[1], time.perf_counter())
            for line in process.stdout or ()
            if line.startswith("Running stage '")
        ]
    if process.returncode:
        raise SystemExit(f"dvc repro failed in {root}")
    ends = [*(start for _, start in starts[1:]), time.perf_counter()]
    return {stage: end - start for (stage, start), end in zip(starts, ends, strict=True)}


def overhead(off: Sequence[Mapping[str, float]], live: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians over repeats: seconds of all stages but track, of track, and what MLflow costs as a share of the former.

    Args:
        off: seconds by stage of each run that publishes at the end alone.
        live: of those that publish while networks train.
    """

    def median(runs: Sequence[Mapping[str, float]], *, track: bool) -> float:
        return statistics.median(sum(run[stage] for stage in run if (stage == TRACK) == track) for run in runs)

    without, with_live = median(off, track=False), median(live, track=False)
    track = {"off": median(off, track=True), "live": median(live, track=True)}
    return {
        "pipeline": without,
        "live": with_live - without,
        "track": track["live"],
        "overhead": (with_live + track["live"] - without) / without,
        "overhead without live": track["off"] / without,
    }


def main(
    params: Annotated[Path | None, typer.Option(help="Of the pipeline; those of .ci/tiny-params.py if none.")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measure, and print what MLflow costs."""
    tiny = [sys.executable, str(CHECKOUT / ".ci/tiny-params.py")]
    text = params.read_text(encoding="utf-8") if params else subprocess.check_output(tiny, cwd=CHECKOUT, text=True)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    again: list[float] = []
    for _ in range(repeats):
        for way, live in WAYS.items():
            with copied(text, live=live) as root:
                runs[way].append(repro(root))
                again.append(repro(root)[TRACK])
            print(f"{way}: {sum(runs[way][-1].values()):.1f} s, track {runs[way][-1][TRACK]:.1f} s", flush=True)
    found = overhead(runs["off"], runs["live"])
    print(f"pipeline without MLflow {found['pipeline']:.1f} s; publishing live {found['live']:+.1f} s, track "
          f"{found['track']:.1f} s (with nothing new {statistics.median(again):.1f} s)")  # fmt: skip
    print(f"overhead: {found['overhead']:.1%}, without live publishing {found['overhead without live']:.1%}")


if __name__ == "__main__":
    typer.run(main)
