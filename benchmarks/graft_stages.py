"""Graft's own stages on a workspace, in one process: each as a part, timed."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from children import Stopwatch

from graft.artifacts import read_predictions
from graft.journal import read_journal
from graft.params import Params, load_params
from graft.runs import RunPaths

ALL = "augment,features,finetune,svm"
TENSORFLOW = {"features", "finetune"}


class Workspace:
    """Where a workspace's stages read and write."""

    def __init__(self, root: Path, params: Params, stages: list[str]) -> None:
        self.modules: dict[str, Any] = {stage: importlib.import_module(f"graft.stages.{stage}") for stage in stages}
        self.root, self.params, self.name = root, params, next(iter(params.backbones))
        self.inputs = {"prepared": root / "prepared", "augmented": root / "augmented"}

    def paths(self, kind: str) -> RunPaths:
        """Of one run's outputs, which are deleted first, as DVC does."""
        folder = self.root / "runs" / kind
        shutil.rmtree(folder, ignore_errors=True)
        history = folder / "history.csv" if kind == "finetune" else None
        return RunPaths(folder / "model", folder / "run", folder / "metrics.json", history)

    def run(self, stage: str) -> None:
        """One stage, its outputs deleted first."""
        module = self.modules[stage]
        out, source = self.root / "features", self.root / "source"
        shared: dict[str, Any] = {**self.inputs, "source": source}
        if stage == "augment":
            again = self.root / "augmented-again"
            shutil.rmtree(again, ignore_errors=True)
            preview = self.root / "preview.png"
            module.run(self.params.augment, self.params.seed, self.root / "prepared", again, preview)
        elif stage == "features":
            shutil.rmtree(out, ignore_errors=True)
            module.run(self.params, self.name, **shared, out=out, store=self.root / ".store" / "features")
        else:
            paths = self.paths(stage)
            module.run(self.params, self.name, **shared, features=out, paths=paths, key=stage)

    def correct(self, kind: str) -> list[int]:
        """Which validation images a finished run got right."""
        labels, probabilities = read_predictions(self.root / "runs" / kind / "run/predictions.parquet").split(
            "validation"
        )
        return (probabilities.argmax(axis=1) == labels).astype(int).tolist()

    def candidates(self) -> list[dict[str, Any]]:
        """Of a grid: each candidate's params, epochs, best validation loss and accuracy, and whether it was chosen."""
        records = read_journal(self.root / "runs/finetune/run/journal.jsonl").candidates
        return [
            {
                "name": record["name"],
                "phase": record["phase"],
                "params": record["params"],
                "epochs": len(record["history"]),
                "val_loss": min((entry["val_loss"] for entry in record["history"]), default=None),
                "chosen": record["chosen"],
            }
            for record in records
        ]


def changed(params: Params, *, frozen_only: bool, depths: str, tails: str) -> Params:
    """The params for the frozen phase alone, or for a grid of second phases."""
    values = params.model_dump(mode="json")
    row = next(iter(values["backbones"].values()))
    if frozen_only:
        row["features"]["frozen_until"] = "none"
        row["finetune"]["unfrozen_epochs"] = 0
    if depths:
        row["features"]["frozen_until"] = depths.split(",")
        row["finetune"]["tails"] = json.loads(tails)
    return Params.model_validate(values)


def main(
    workspace: Path,
    result: Annotated[Path, typer.Option()],
    stages: str = ALL,
    store: Annotated[str, typer.Option(help="cold: empty; warm: as it is")] = "cold",
    frozen_only: bool = False,
    depths: Annotated[str, typer.Option(help="Of a grid, with commas.")] = "",
    tails: Annotated[str, typer.Option(help="Of a grid, as JSON.")] = "null",
) -> None:
    """Run stages one after the other."""
    watch = Stopwatch()
    params = load_params(workspace / "params.yaml")
    params = changed(params, frozen_only=frozen_only, depths=depths, tails=tails)
    if store == "cold":
        shutil.rmtree(workspace / ".store", ignore_errors=True)
    ran = stages.split(",")
    here = Workspace(workspace, params, ran)
    if TENSORFLOW & set(ran):  # as on the other side: what imports cost stands apart
        importlib.import_module("keras")
    for stage in ran:
        with watch.part(stage):
            here.run(stage)
    facts: dict[str, Any] = {"correct": {kind: here.correct(kind) for kind in ("finetune", "svm") if kind in ran}}
    if "finetune" in ran:
        facts["candidates"] = here.candidates()
    watch.write(result, **facts)


if __name__ == "__main__":
    typer.run(main)
