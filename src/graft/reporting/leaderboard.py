"""The leaderboard: every model that the params list, measured on the same images, best validation accuracy first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from graft.comparison_sections import Compare
from graft.evaluation import METRICS, evaluate
from graft.intervals import t_interval
from graft.metrics import classification_metrics
from graft.reporting.comparison import Run
from graft.significance import holm, paired_difference

Groups = Mapping[str, np.ndarray | None]  # by split: the group of each of its images; None: each is on its own

SPLITS = (("validation", "val"), ("test", "test"))
ENDS = ("", "_low", "_high")
MEASURES = (*METRICS, "calibration_error_before")
VERSUS = ("difference", "difference_low", "difference_high", "p_value", "p_adjusted", "verdict")
PHASES = ("train_seconds", "frozen_seconds", "unfrozen_seconds")
SPEED = ("latency_ms", "latency_ms_low", "latency_ms_high", "throughput")
TEXT = ("model", "kind", "backbone", "verdict", "champion", "pareto")  # and truth
TRANSFER = ("logme", "linear_probe")
COLUMNS = (
    *("model", "kind", "backbone", "champion"),
    *(f"{prefix}_{metric}{end}" for _, prefix in SPLITS for metric in MEASURES for end in ENDS),
    *("temperature", "abstain_below", *VERSUS),
    *("repeats", *(f"{prefix}_accuracy_mean{end}" for _, prefix in SPLITS for end in ENDS)),
    *("parameters", "multiply_adds", "model_bytes", *SPEED, *PHASES, "feature_seconds", "pareto"),
    *(*TRANSFER, "n_validation", "n_test"),
)


def build_leaderboard(
    runs: Sequence[Run],
    compare: Compare,
    seed: int,
    *,
    groups: Groups,
    transfer: pd.DataFrame,
    feature_seconds: Mapping[str, float | None],
) -> pd.DataFrame:
    """One row per run with COLUMNS, the champion first.

    Validation alone ranks: accuracy, then lower log loss, then fewer parameters, then the name. The test columns are
    missing where there are no test images. Every metric has a `_low` and a `_high` end. The columns from `difference`
    to `verdict` set the champion against each other model on the final split: its accuracy minus the other's, the
    exact p-value, the same corrected by Holm over all models, and what follows for the model: `worse`, `better` or
    `not distinguishable`.

    Args:
        runs: of all models.
        compare: confidence and resamples of the intervals.
        seed: of the resampling.
        groups: of the images, in the order of the predictions.
        transfer: one row per backbone with backbone, logme and linear_probe.
        feature_seconds: by backbone, what its features cost when they were computed.
    """
    scores = transfer.set_index("backbone")[list(TRANSFER)].to_dict("index") if len(transfer) else {}
    rows = []
    for run in runs:
        seconds = {"feature_seconds": feature_seconds.get(run.backbone or "")}
        of_base = seconds | scores.get(run.backbone, dict.fromkeys(TRANSFER))
        rows.append(_row(run, groups, compare, seed) | of_base)
    frame = pd.DataFrame(rows)
    order = ["val_accuracy", "val_log_loss", "parameters", "model"]
    frame = frame.sort_values(order, ascending=[False, True, True, True], ignore_index=True)
    frame["champion"] = frame.index == 0
    by_model = {run.model: run for run in runs}
    versus = _against_champion([by_model[name] for name in frame["model"]], groups, compare, seed)
    frame = pd.concat([frame, versus], axis=1).assign(pareto=_frontier(frame))
    numbers = [column for column in COLUMNS if column not in TEXT]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)  # a column of nothing but None would be of objects
    return frame[list(COLUMNS)]


def _row(run: Run, groups: Groups, compare: Compare, seed: int) -> dict[str, Any]:
    row = {"model": run.model, "kind": run.kind, "backbone": run.backbone, "abstain_below": run.abstain_below}
    row |= {"temperature": run.predictions.temperature, "repeats": 1 + len(run.repeats)}
    for split, prefix in SPLITS:
        row |= _measure(run, split, prefix, groups, compare, seed)
    return row | _costs(run)


def _measure(run: Run, split: str, prefix: str, groups: Groups, compare: Compare, seed: int) -> dict[str, Any]:
    labels, probabilities = run.predictions.split(split)
    row: dict[str, Any] = {f"n_{split}": len(labels)}
    row |= {f"{prefix}_{metric}{end}": np.nan for metric in (*MEASURES, "accuracy_mean") for end in ENDS}
    if not len(labels):
        return row
    chosen = (run.predictions.rows["split"] == split).to_numpy()
    raw = run.predictions.uncalibrated()[chosen]
    measured = evaluate(labels, probabilities, groups.get(split), compare, seed)
    before = evaluate(labels, raw, groups.get(split), compare, seed, metrics=("calibration_error",))
    measured = pd.concat([measured, before.rename({"calibration_error": "calibration_error_before"})])
    for metric, (value, low, high) in zip(measured.index, measured[["value", "low", "high"]].to_numpy(), strict=True):
        row |= {f"{prefix}_{metric}{end}": number for end, number in zip(ENDS, (value, low, high), strict=True)}
    trainings = [predictions.split(split) for predictions in (run.predictions, *run.repeats)]
    repeated = [classification_metrics(*training)["accuracy"] for training in trainings]
    over_seeds = np.clip(t_interval(repeated, compare.confidence), 0, 1)  # which Student's interval may leave
    if len(set(repeated)) == 1:
        over_seeds[1:] = np.nan  # the seed made no difference, which says nothing of other images
    return row | {f"{prefix}_accuracy_mean{end}": number for end, number in zip(ENDS, over_seeds, strict=True)}


def _costs(run: Run) -> dict[str, Any]:
    whole = run.timings.get("whole_seconds")  # phase 2 where the base is trained whole
    seconds = {name: run.timings.get(name) for name in PHASES}
    seconds["unfrozen_seconds"] = seconds["unfrozen_seconds"] if whole is None else whole
    costs = {name: run.costs.get(name) for name in ("multiply_adds", "model_bytes", *SPEED)}
    return {"parameters": run.parameters} | costs | seconds


def _against_champion(runs: Sequence[Run], groups: Groups, compare: Compare, seed: int) -> pd.DataFrame:
    """VERSUS of each run, the champion's being the first."""
    split = "test" if (runs[0].predictions.rows["split"] == "test").any() else "validation"
    labels, champion = runs[0].predictions.split(split)
    rows: list[dict[str, Any]] = [dict.fromkeys(VERSUS, np.nan) | {"verdict": "champion"}]
    differences = [
        paired_difference(labels, champion, run.predictions.split(split)[1], groups.get(split), compare, seed)
        for run in runs[1:]
    ]
    adjusted = holm([difference.p_value for difference in differences])
    for found, p_adjusted in zip(differences, adjusted, strict=True):
        established = p_adjusted < 1 - compare.confidence
        verdict = "not distinguishable" if not established else "worse" if found.difference > 0 else "better"
        values = (found.difference, found.low, found.high, found.p_value, float(p_adjusted), verdict)
        rows.append(dict(zip(VERSUS, values, strict=True)))
    return pd.DataFrame(rows)


def _frontier(frame: pd.DataFrame) -> list[bool]:
    """Whether no other model is at least as accurate on the final split and as fast, and better in one of the two."""
    accuracy = frame[f"{final_split(frame)[1]}_accuracy"].to_numpy(float)
    latency = frame["latency_ms"].to_numpy(float)
    as_good = (accuracy >= accuracy[:, None]) & (latency <= latency[:, None])
    better = as_good & ((accuracy > accuracy[:, None]) | (latency < latency[:, None]))
    return [bool(one) for one in ~better.any(axis=1) & np.isfinite(latency)]


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
    names = [f"test_{metric}" for metric in ("accuracy", "accuracy_low", "accuracy_high", *METRICS[1:])]
    return {row["model"]: {name: row[name] for name in names} for row in as_records(frame)}
