"""The leaderboard: every model that the params list, measured on the same images, best validation accuracy first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.artifacts import Predictions, read_predictions
from graft.metrics import bootstrap_interval, classification_metrics
from graft.params import Params
from graft.sections import Compare
from graft.storage import ArtifactError, read_json

METRICS = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss")
HISTORY_COLUMNS = ("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy")
COLUMNS = (
    *("model", "kind", "backbone", "champion"),
    *(f"val_{metric}" for metric in METRICS),
    *(f"test_{metric}" for metric in METRICS),
    *("parameters", "train_seconds", "n_validation", "n_test"),
)


@dataclass(frozen=True)
class Run:
    """What one trained model left for the comparison.

    Attributes:
        model: as in Params.models.
        kind: baseline, finetune or svm.
        backbone: the row of params.yaml under backbones; None for a baseline.
        predictions: for the validation and test images.
        history: one row per epoch; None for models that are not trained by epochs.
        parameters: number of trained and frozen weights.
        train_seconds: what training cost when it was done.
    """

    model: str
    kind: str
    backbone: str | None
    predictions: Predictions
    history: pd.DataFrame | None
    parameters: int
    train_seconds: float


def read_runs(params: Params, folder: Path, history: Path) -> list[Run]:
    """The runs of the models that the params list; others in the folders are ignored.

    Args:
        params: lists the models.
        folder: holds a folder of predictions.parquet, summary.json and timings.json for each model.
        history: holds a CSV file for each model that is trained by epochs.

    Raises:
        ArtifactError: a run is missing or damaged, or the models were not measured on the same images.
    """
    kinds = params.models()
    absent = [model for model in kinds if not (folder / model).is_dir()]
    if absent:
        raise ArtifactError(f"{folder} lacks the runs of {', '.join(absent)}; `dvc repro` makes them")
    runs = [_read_run(model, kind, folder / model, history) for model, kind in kinds.items()]
    _check_comparable(runs)
    return runs


def _read_run(model: str, kind: str, folder: Path, history: Path) -> Run:
    return Run(
        model=model,
        kind=kind,
        backbone=None if kind == "baseline" else model.removesuffix("-svm"),
        predictions=read_predictions(folder / "predictions.parquet"),
        history=None if kind == "svm" else _read_history(history / f"{model}.csv"),
        parameters=int(_number(folder / "summary.json", "parameters")),
        train_seconds=float(_number(folder / "timings.json", "train_seconds")),
    )


def _read_history(path: Path) -> pd.DataFrame:
    history = read_csv(path, HISTORY_COLUMNS)
    if history.empty:
        raise ArtifactError(f"{path} must list at least one epoch")
    return history.astype({column: float for column in HISTORY_COLUMNS if column != "phase"})


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


def _number(path: Path, key: str) -> float:
    content = read_json(path)
    value = content.get(key) if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
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
        different = [run.model for run in runs if not same(run.predictions)]
        if different:
            raise ArtifactError(
                f"every model must have predicted the same {what}; "
                f"received others than {runs[0].model}'s from {', '.join(different)}"
            )


def _same_rows(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    columns = ["image_id", "split", "label"]
    return bool(np.array_equal(rows[columns].to_numpy(), others[columns].to_numpy()))


def build_leaderboard(runs: Sequence[Run], compare: Compare, seed: int) -> pd.DataFrame:
    """One row per run with COLUMNS, the champion first.

    Validation alone ranks: accuracy, then lower log loss, then fewer parameters, then the name. The test columns are
    missing where there are no test images.
    """
    frame = pd.DataFrame([_measure(run, compare, seed) for run in runs])
    order = ["val_accuracy", "val_log_loss", "parameters", "model"]
    frame = frame.sort_values(order, ascending=[False, True, True, True], ignore_index=True)
    frame["champion"] = frame.index == 0
    return frame[list(COLUMNS)]


def _measure(run: Run, compare: Compare, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"model": run.model, "kind": run.kind, "backbone": run.backbone}
    for split, prefix in (("validation", "val"), ("test", "test")):
        labels, probabilities = run.predictions.split(split)
        values = dict.fromkeys(METRICS, np.nan)
        if len(labels):
            low, high = bootstrap_interval(
                labels,
                probabilities.argmax(axis=1),
                confidence=compare.confidence,
                resamples=compare.resamples,
                seed=seed,
            )
            values |= classification_metrics(labels, probabilities) | {"accuracy_low": low, "accuracy_high": high}
        row |= {f"{prefix}_{metric}": values[metric] for metric in METRICS} | {f"n_{split}": len(labels)}
    return row | {"parameters": run.parameters, "train_seconds": run.train_seconds}


def final_split(frame: pd.DataFrame) -> tuple[str, str]:
    """The split whose figures a reader should quote and its column prefix: test, or validation where there is none."""
    return ("test", "test") if frame["n_test"].iloc[0] else ("validation", "val")


def as_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One JSON-ready object per row; what is missing is None."""
    plain = frame.astype(object)  # of Python's own numbers, which keep every digit
    plain = plain.where(plain.notna(), None)
    return [dict(zip(frame.columns, row, strict=True)) for row in plain.to_numpy().tolist()]


def metrics_by_model(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The test figures by model, as `dvc metrics show` reads them; without figures where there are no test images."""
    if final_split(frame)[0] != "test":
        return {name: {} for name in frame["model"]}
    return {row["model"]: {f"test_{metric}": row[f"test_{metric}"] for metric in METRICS} for row in as_records(frame)}


def champion_predictions(frame: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """The champion's class names, actual and predicted, of each image of the final split, as `dvc plots` reads them."""
    predictions = next(run.predictions for run in runs if run.model == frame["model"].iloc[0])
    labels, probabilities = predictions.split(final_split(frame)[0])
    names = np.asarray(predictions.classes, dtype=object)
    return pd.DataFrame({"actual": names[labels], "predicted": names[probabilities.argmax(axis=1)]})
