"""What the stages left of every trained model, read and checked to belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions, read_predictions
from graft.learned_filters import read_first_layer
from graft.looks import read_looks
from graft.params import Params
from graft.reporting.comparison import Run
from graft.storage import ArtifactError, read_json

HISTORY_COLUMNS = ("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy")
SPEED = ("latency_ms", "latency_ms_low", "latency_ms_high", "throughput")


def read_runs(params: Params, folder: Path, history: Path, rows: Path, manifest: Manifest | None = None) -> list[Run]:
    """The runs of the models that the params list; others in the folders are ignored.

    Args:
        params: lists the models.
        folder: holds a folder of predictions.parquet, summary.json and timings.json for each model.
        history: holds a CSV file for each model that is trained by epochs.
        rows: holds for each row of the params a folder `inspect`, and in it one for each of its models.
        manifest: of the images that they must have been measured on; None: of the same ones, whichever.

    Raises:
        ArtifactError: a run is missing or damaged, or the models were not measured on the same images.
    """
    kinds = params.models()
    absent = [model for model in kinds if not (folder / model).is_dir()]
    if absent:
        raise ArtifactError(f"{folder} lacks the runs of {', '.join(absent)}; `dvc repro` makes them")
    runs = [
        _read_run(model, kind, folder / model, history, rows / model.removesuffix("-svm") / "inspect" / model, manifest)
        for model, kind in kinds.items()
    ]
    _check_comparable(runs)
    return runs


def _read_run(model: str, kind: str, folder: Path, history: Path, inside: Path, manifest: Manifest | None) -> Run:
    summary, timings = folder / "summary.json", read_json(folder / "timings.json")
    costs = {  # a network may have layers whose cost is not known
        "multiply_adds": read_optional_number(inside / "costs.json", "multiply_adds"),
        "model_bytes": read_number(inside / "costs.json", "model_bytes"),
    }
    speed = {name: read_number(inside / "timings.json", name) for name in SPEED}
    read_number(folder / "timings.json", "train_seconds")
    return Run(
        model=model,
        kind=kind,
        backbone=None if kind == "baseline" else model.removesuffix("-svm"),
        predictions=read_predictions(folder / "predictions.parquet", manifest=manifest),
        history=None if kind == "svm" else _read_history(history / f"{model}.csv"),
        parameters=int(read_number(summary, "parameters")),
        timings=timings,
        repeats=[read_predictions(path, manifest=manifest) for path in sorted((folder / "repeats").glob("*.parquet"))],
        costs=costs | speed,
        abstain_below=read_optional_number(summary, "abstain_below"),
        looks=read_looks(inside) if kind != "svm" else (),
        first_layer=read_first_layer(inside) if kind != "svm" else None,
    )


def _read_history(path: Path) -> pd.DataFrame:
    history = read_csv(path, HISTORY_COLUMNS)
    if history.empty:
        raise ArtifactError(f"{path} must list at least one epoch")
    try:
        return history.astype({column: float for column in HISTORY_COLUMNS if column != "phase"})
    except ValueError as error:
        raise ArtifactError(f"{path} must hold numbers, but for the phase: {error}") from None


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that must have these columns, every cell as the text that it holds.

    Raises:
        ArtifactError: the file is missing, unreadable or lacks a column.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # a class may be called "01" or "NA"
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} is not a readable CSV file: {error}") from None
    if not set(columns) <= set(frame.columns):
        raise ArtifactError(f"{path} must have the columns {list(columns)}, received {list(frame.columns)}")
    return frame


def read_number(path: Path, key: str) -> float:
    """A number of the object in a JSON file.

    Raises:
        ArtifactError: the file is missing or damaged, or gives no such number.
    """
    value = read_optional_number(path, key)
    if value is None:
        raise ArtifactError(f"{path} must give {key} as a number, received {read_json(path)!r}")
    return value


def read_optional_number(path: Path, key: str) -> float | None:
    """read_number, or None where the file says null or nothing."""
    content = read_json(path)
    value: Any = content.get(key) if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ArtifactError(f"{path} must give {key} as a number, received {content!r}")
    return value


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0].predictions
    if not (first.rows["split"] == "validation").any():
        raise ArtifactError(f"{runs[0].model} predicted no validation image, and these choose the champion")
    for what, same in (
        ("classes", lambda other: other.classes == first.classes),
        ("images in the same order", lambda other: _same_rows(other.rows, first.rows)),
    ):
        different = [run.model for run in runs if not all(map(same, _all_predictions(run)))]
        if different:
            raise ArtifactError(
                f"every model must have predicted the same {what}; "
                f"received others than {runs[0].model}'s from {', '.join(different)}"
            )


def _all_predictions(run: Run) -> list[Predictions]:
    return [run.predictions, *run.repeats]


def _same_rows(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    columns = ["image_id", "split", "label"]
    return bool(np.array_equal(rows[columns].to_numpy(), others[columns].to_numpy()))
