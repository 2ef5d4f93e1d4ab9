"""How accuracy grows with the number of labelled images, and what pretrained bases save of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.curve_files import ALL, POINT, read_curve
from graft.intervals import t_interval

SCRATCH = "baseline"
HOW = {SCRATCH: "from scratch", "frozen": "head on the frozen base", "finetune": "fine-tuned", "svm": "SVM"}
COLUMNS = (
    *("model", "kind", "per_class", "images", "seeds", "accuracy", "low", "high", "seconds"),
    *("validation_accuracy", "by_seed"),
)


def read_summary(folder: Path, names: Sequence[str], split: str, confidence: float) -> pd.DataFrame:
    """summarise, of the folders <folder>/<name>/curve that the curve stages wrote.

    Raises:
        ArtifactError: a file is missing or damaged, or one folder's files are of different fits.
    """
    curves = {name: read_curve(folder / name / "curve") for name in names}
    return summarise(
        {name: predictions for name, (predictions, _) in curves.items()},
        {name: fits for name, (_, fits) in curves.items()},
        split,
        confidence,
    )


def summarise(
    curves: Mapping[str, pd.DataFrame], fits: Mapping[str, pd.DataFrame], split: str, confidence: float
) -> pd.DataFrame:
    """One row per model, kind and size with COLUMNS, sizes ascending and all images last.

    The interval is Student's over the seeds, each of which draws other images to learn from (unless all are taken) and
    other first weights. It says how much a repetition would vary on the same images of the split, not how much other
    images of it would.

    Args:
        curves: predictions of each row of params.yaml, as from curve_files.read_curve.
        fits: of each of them the fits, likewise.
        split: on which accuracy is measured.
        confidence: of the interval.

    Returns:
        model is the row's name; images is how many were learned from, of all classes together; accuracy and seconds
        (of one training) are means over the seeds, low and high NaN for one seed; validation_accuracy is the mean by
        which to choose among models; by_seed maps each seed to its accuracy.
    """
    rows: list[dict[str, Any]] = []
    for model, predictions in curves.items():
        right = predictions.assign(right=predictions["label"] == predictions["predicted"])
        accuracies = right.groupby([*POINT, "split"])["right"].mean().unstack("split").reset_index()
        measured = fits[model].merge(accuracies, on=POINT, validate="one_to_one")
        for (kind, per_class), group in measured.groupby(["kind", "per_class"], sort=False):
            point = {"model": model, "kind": kind, "per_class": per_class}
            rows.append(point | _over_seeds(group, split, confidence))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    size = table["per_class"].where(table["per_class"] != ALL, np.iinfo(np.int64).max)
    return table.iloc[np.argsort(size.to_numpy(), kind="stable")].reset_index(drop=True)


def _over_seeds(group: pd.DataFrame, split: str, confidence: float) -> dict[str, Any]:
    accuracies = group[split].to_numpy()
    accuracy, low, high = t_interval(accuracies, confidence)
    if (accuracies == accuracies[0]).all():
        low = high = math.nan  # the seed made no difference, which says nothing of other images
    return {
        "images": int(group["images"].iloc[0]),
        "seeds": len(group),
        "accuracy": accuracy,
        "low": float(np.clip(low, 0, 1)),  # of few seeds, Student's interval may leave what is possible
        "high": float(np.clip(high, 0, 1)),
        "seconds": float(group["seconds"].mean()),
        "validation_accuracy": float(group["validation"].mean()),
        "by_seed": dict(zip(group["seed"].tolist(), group[split].tolist(), strict=True)),
    }


@dataclass(frozen=True)
class Duel:
    """The transferred model that validation prefers at one size, against the network from scratch that it prefers.

    Attributes:
        transfer: its row of the summary.
        scratch: likewise.
        difference: mean over the seeds of accuracy(transfer) - accuracy(scratch), from the same training images.
        low: of Student's interval; NaN for one seed.
        high: likewise.
    """

    transfer: pd.Series
    scratch: pd.Series
    difference: float
    low: float
    high: float

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def duel(summary: pd.DataFrame, per_class: int, confidence: float) -> Duel:
    """Compare at one size, seed by seed."""
    transfer = _preferred(summary[summary["kind"] != SCRATCH], per_class)
    scratch = _preferred(summary[summary["kind"] == SCRATCH], per_class)
    shared = [seed for seed in transfer["by_seed"] if seed in scratch["by_seed"]]
    differences = np.array([transfer["by_seed"][seed] - scratch["by_seed"][seed] for seed in shared])
    return Duel(transfer, scratch, *np.clip(t_interval(differences, confidence), -1, 1))


def _preferred(rows: pd.DataFrame, per_class: int) -> pd.Series:
    """By validation, so that the split on which they are compared has no part in the choice."""
    rows = rows[rows["per_class"] == per_class]
    return rows.iloc[int(rows["validation_accuracy"].argmax())]


def _first_to_reach(rows: pd.DataFrame, accuracy: float) -> pd.Series | None:
    """The preferred one at the smallest size at which it is so accurate."""
    preferred = (_preferred(rows, size) for size in rows["per_class"].unique())
    return next((row for row in preferred if row["accuracy"] >= accuracy), None)


def conclusions(summary: pd.DataFrame, confidence: float) -> list[str]:
    """What the curve says of the claim that transfer needs less data, trains faster and is more accurate.

    Args:
        summary: as from summarise.
        confidence: of the intervals.

    Returns:
        Sentences; none where the curve has no network from scratch or nothing else.
    """
    is_scratch = summary["kind"] == SCRATCH
    if is_scratch.all() or not is_scratch.any():
        return []
    sizes = list(summary["per_class"].unique())
    least, most = (duel(summary, size, confidence) for size in (sizes[0], sizes[-1]))
    target = most.scratch["accuracy"]
    scratch = _first_to_reach(summary[is_scratch], target)
    transfer = _first_to_reach(summary[~is_scratch], target)
    saves = transfer is not None and scratch is not None and transfer["images"] < scratch["images"]
    duels = [_tell(each, confidence) for each in ([least, most] if len(sizes) > 1 else [most])]
    return [*duels, _tell_saving(most.scratch, transfer, scratch, saves), _verdict(most, saves)]


def _tell(each: Duel, confidence: float) -> str:
    seeds = len(each.transfer["by_seed"])
    if math.isnan(each.low):
        spread = "one seed, so no interval"
    else:
        spread = f"{confidence:.0%} interval {100 * each.low:+.1f} to {100 * each.high:+.1f}, {seeds} seeds"
    doubt = "" if each.settled else ", which does not tell them apart"
    return (
        f"With {_labels(each.transfer)}, {_name(each.transfer)} has an accuracy of {each.transfer['accuracy']:.1%} "
        f"and {_name(each.scratch)} one of {each.scratch['accuracy']:.1%}: a difference of "
        f"{100 * each.difference:+.1f} points ({spread}){doubt}."
    )


def _tell_saving(target: pd.Series, transfer: pd.Series | None, scratch: pd.Series | None, saves: bool) -> str:
    reached = f"the {target['accuracy']:.1%} that {_name(target)} has with {_labels(target)}"
    if transfer is None or scratch is None:
        return f"No transferred model reaches {reached}: no labels are saved."
    if not saves:
        return f"{_name(transfer)} reaches {reached} with {_labels(transfer)}, no fewer than are needed from scratch."
    share = 1 - transfer["images"] / scratch["images"]
    return f"{_name(transfer)} reaches {reached} with {_labels(transfer)}: {share:.0%} of the labels are saved."


def _verdict(most: Duel, saves: bool) -> str:
    seconds, scratch_seconds = most.transfer["seconds"], most.scratch["seconds"]
    seeds = len(most.transfer["by_seed"])
    trainings = "one training each" if seeds == 1 else f"{seeds} trainings each"
    gains = f"not shown by {trainings}" if not most.settled else "yes" if most.difference > 0 else "no"
    return (
        "Transfer is said to need less data, to train faster and to be more accurate. "
        f"Here, less data: {'yes' if saves else 'no'}. Faster: {'yes' if seconds < scratch_seconds else 'no'} "
        f"({seconds:.1f} s against {scratch_seconds:.1f} s with {_labels(most.transfer)}, without the base's own "
        f"training and its one pass over the images). More accurate: {gains}. Models were chosen on validation; the "
        "intervals are over the seeds, on the same images."
    )


def _labels(row: pd.Series) -> str:
    if row["per_class"] == ALL:
        return f"all {row['images']} labelled images"
    return f"{row['per_class']} labelled images per class ({row['images']} in all)"


def _name(row: pd.Series) -> str:
    return f"{row['model']} ({HOW[row['kind']]})"
