"""How much faster is transfer learning whose frozen layers are computed once? Plain Keras beside Graft.

    python benchmarks/speed.py                                    # MobileNet, 5 views and 1: about 15 minutes
    python benchmarks/speed.py --case resnet50 --case vgg16       # about 40 minutes each, on two cores

Same data, views, epochs, batch sizes, seeds, rates and optimiser on both sides, on so many cores, every measurement in
a process of its own. `plain` reads the stored views, as Graft does; `plain, augmenting` draws them with Keras' layers
while it trains, as people do, so Graft's augment stage counts against it. Sides take turns in every repeat; times are
medians. A ratio's ceiling is what operations.py counts. MobileNet has ImageNet weights where Keras' cache beside the
checkout has them, and the photos there; else weights are random, photos are generated, and accuracy says little.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml
from cases import CASES, PHOTOS, environment, has_imagenet
from children import HERE, Measured, markdown, measure, pin
from operations import Setting
from summary import FLOOR, GRAFT, GRAFT_FROZEN, LOOP, PLAIN, WARM, Measurements, Row

TRIAL = ["--no-svm", "--epochs", 2, "--unfrozen-epochs", 0]


def prepare(name: str, views: int, workspace: Path, generate: int = 0) -> None:
    """Make a workspace, in a child as well; with so many generated photos, where not 0, instead of the real ones."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    command = [sys.executable, str(HERE / "cases.py"), name, str(views), str(workspace), "--generate", str(generate)]
    subprocess.run(command, env=environment(workspace), check=True, capture_output=True)


def shares_after(name: str) -> dict[str, float]:
    """Of the base's multiply-adds, by the cuts of a case; builds the base in a child, so that this one stays small."""
    code = f"import cases, operations, json\nc = cases.CASES[{name!r}]\nb = cases.build(c)\n"
    code += "total = operations.multiply_adds(b)\n"
    code += "print(json.dumps({d: operations.multiply_adds(b, d) / total for d in {c.cut, *c.depths}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, env=environment(HERE), check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


class Bench:
    """One base with one number of views; every measured child is appended to a file of JSON lines at once."""

    def __init__(self, name: str, views: int, workspace: Path, log: Path) -> None:
        self.name, self.views, self.workspace, self.log = name, views, workspace, log
        self.rows: list[Row] = []

    def child(self, side: str, script: str, *arguments: object) -> Measured:
        """Measure a script as one side's."""
        measured = measure(script, self.workspace, *arguments, environment=environment(self.workspace))
        row = {"case": self.name, "views": self.views, "side": side, **asdict(measured)}
        self.rows.append(row)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{self.name} V={self.views} {side}: {measured.seconds:.1f} s", flush=True)
        return measured

    def faster_augmentation(self) -> str:
        """Whether Keras' layers are faster in the tf.data pipeline (map) or in the model, by two epochs of each."""
        took = {
            where: self.child(f"trial, {where}", "plain_keras.py", "--augment", where, *TRIAL).parts["frozen"]
            for where in ("map", "model")
        }
        return min(took, key=lambda where: took[where])

    def run(self, repeats: int, augmenting: bool) -> None:
        """All sides in turn, so many times."""
        where = self.faster_augmentation() if augmenting else ""
        images = setting_of(self.workspace, self.views)
        for _ in range(repeats):
            self.child(FLOOR, "floors.py", images.rows)
            self.child(GRAFT_FROZEN, "graft_stages.py", "--frozen-only", "--stages", "features,finetune,svm")
            self.child(GRAFT, "graft_stages.py")
            self.child(WARM, "graft_stages.py", "--stages", "features", "--store", "warm")
            self.child(PLAIN, "plain_keras.py")
            if augmenting:
                self.child(LOOP, "plain_keras.py", "--augment", where)


def setting_of(workspace: Path, views: int) -> Setting:
    """How many images the workspace has; read without Graft's imports."""
    import pandas as pd

    counts = pd.read_parquet(workspace / "prepared/manifest.parquet")["split"].value_counts()
    values = yaml.safe_load((workspace / "params.yaml").read_text())
    row = next(iter(values["backbones"].values()))["finetune"]
    return Setting(int(counts["train"]), int(counts["validation"]), views, row["epochs"], row["unfrozen_epochs"])


def describe(name: str) -> str:
    """What a case's figures stand on."""
    case = CASES[name]
    weights = "ImageNet" if has_imagenet(case) else "random weights: accuracy says little"
    data = "hymenoptera photos" if PHOTOS.is_dir() else "generated photos: accuracy says nothing"
    return f"{case.application} at {case.input_size} px, cut at {case.cut}; {weights}; {data}"


def report(found: Measurements) -> str:
    """All tables of one base and number of views."""
    tables = (found.speed(), found.floors(), found.accuracy(), found.memory(), found.parts())
    return "\n\n".join(markdown(table) for table in tables)


def main(
    out: Annotated[Path, typer.Option(help="Folder for speed.md, speed.jsonl and the workspaces.")] = Path(
        ".work/bench"
    ),
    case: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(CASES)}; several times.")] = None,
    views: Annotated[list[int] | None, typer.Option(help="Several times; 5 and 1.")] = None,
    repeats: int = 1,
    cores: int = 2,
    augmenting: Annotated[bool, typer.Option(help="Also plain Keras with augmentation in the loop.")] = True,
) -> None:
    """Measure, print Markdown tables and keep them in the out folder."""
    pin(cores)
    out.mkdir(parents=True, exist_ok=True)
    for name in case or ["mobilenet"]:
        tail = shares_after(name)[CASES[name].cut]
        for count in views or [5, 1]:
            workspace = (out / f"{name}-{count}").resolve()
            prepare(name, count, workspace)
            bench = Bench(name, count, workspace, out / "speed.jsonl")
            bench.run(repeats, augmenting)
            found = Measurements(bench.rows, tail, setting_of(workspace, count))
            text = f"## {describe(name)}; {count} views, {cores} cores, {repeats} repeats\n\n{report(found)}\n"
            print(f"\n{text}", flush=True)
            with (out / "speed.md").open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")
            shutil.rmtree(workspace)


if __name__ == "__main__":
    typer.run(main)
