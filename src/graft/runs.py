"""The three things that every trained model writes: the model, its predictions, its journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions, write_predictions
from graft.metrics import classification_metrics
from graft.storage import new_folder, write_json, write_table

if TYPE_CHECKING:
    from graft.journal import Journal


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is.

    Attributes:
        key: hash of the stage's command, parameters and inputs.
        model: name in the leaderboard.
        kind: baseline, finetune or svm.
        backbone: the row of `backbones`; None for a baseline.
        stage: name in dvc.yaml.
        params: the sections of params.yaml that shaped it.
    """

    key: str
    model: str
    kind: str
    backbone: str | None
    stage: str
    params: dict[str, Any]

    def start_journal(self) -> Journal:
        """Begin the run's journal in its work folder."""
        from graft.journal import Journal, work_folder

        return Journal.start(work_folder(self.key), asdict(self))


@dataclass(frozen=True)
class RunPaths:
    """Where a training stage writes; history is None for models that are not trained by epochs."""

    model: Path
    run: Path
    metrics: Path
    history: Path | None


def held_out_predictions(manifest: Manifest, probabilities: np.ndarray) -> Predictions:
    """Predictions of the validation and test images.

    Args:
        manifest: lists the images.
        probabilities: of shape (held-out images, classes), in the order of held_out_rows.
    """
    rows = manifest.rows.iloc[held_out_rows(manifest)]
    doubles = probabilities.astype(np.float64)  # float32 rows miss one by up to 1e-6
    return Predictions(rows, doubles / doubles.sum(axis=1, keepdims=True), manifest.classes)


def held_out_rows(manifest: Manifest) -> np.ndarray:
    """Row numbers of the validation and test images, in manifest order."""
    return np.flatnonzero((manifest.rows["split"] != "train").to_numpy())


def write_classifier_facts(folder: Path, classes: tuple[str, ...], image_size: int, resize: str) -> None:
    """What a reader of the model needs to feed it and to name its outputs."""
    write_json(folder / "classes.json", list(classes))
    write_json(folder / "input.json", {"image_size": image_size, "resize": resize})


def write_run(
    paths: RunPaths,
    identity: RunIdentity,
    journal: Journal,
    *,
    parameters: int,
    predictions: Predictions,
    seconds: dict[str, float],
    history: list[dict[str, Any]] | None = None,
    search: pd.DataFrame | None = None,
) -> dict[str, float]:
    """Write everything beside the model itself; returns the validation metrics.

    Timings stand apart from results, so that equal runs have equal results.
    """
    metrics = {f"val_{name}": value for name, value in classification_metrics(*predictions.split("validation")).items()}
    timings = {"train_seconds": sum(seconds.values())} | {f"{name}_seconds": value for name, value in seconds.items()}
    if history is not None and paths.history is not None:
        write_table(paths.history, pd.DataFrame(history))
    write_json(paths.metrics, metrics)
    with new_folder(paths.run) as folder:
        write_predictions(folder / "predictions.parquet", predictions)
        facts = {name: getattr(identity, name) for name in ("model", "kind", "backbone", "stage")}
        write_json(folder / "summary.json", {**facts, "parameters": parameters})
        write_json(folder / "timings.json", timings)
        if search is not None:
            write_table(folder / "search.csv", search)
        journal.finish(metrics, timings)
        journal.move_to(folder / "journal.jsonl")
    return metrics
