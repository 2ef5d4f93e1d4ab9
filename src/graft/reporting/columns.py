"""The columns of the leaderboard as the page shows them: what each is called, means, and how its values are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graft.reporting import text

SIGNS = {"champion": "", "not distinguishable": "≈", "worse": "▼", "better": "▲"}


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        name: in the leaderboard's frame.
        title: heading.
        meaning: half a sentence.
        write: a value as text.
        ends: an interval as text, from `<name>_low` and `<name>_high`; None where there is none.
        best: whether the larger or the smaller value is the better one; the first click on the heading puts it on top.
        special: shown only where a reader asks for all columns.
    """

    name: str
    title: str
    meaning: str
    write: Callable[[Any], str]
    ends: Callable[[float, float], str] | None = None
    best: str = "larger"
    special: bool = True


@dataclass(frozen=True)
class Group:
    """Columns under one heading, with the verdict after them where they are about the champion."""

    title: str
    columns: Sequence[Column]
    verdict: bool = False

    @property
    def shown(self) -> int:
        """How many of its columns are always shown."""
        return sum(not column.special for column in self.columns) + self.verdict

    @property
    def width(self) -> int:
        """How many columns it has."""
        return len(self.columns) + self.verdict


@dataclass(frozen=True)
class Cell:
    """A value as text, what stands under it, and the value itself as text by which a browser sorts."""

    column: Column
    text: str
    under: str
    value: str
    first: bool


def _three(value: float) -> str:
    return f"{value:.3f}".replace("-", text.MINUS)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    return text.magnitude(value, "B")


def _metrics(prefix: str, top_k: int, shown: Sequence[str]) -> list[Column]:
    share, number = (text.percent, text.interval), (_three, text.span)
    table = [
        ("accuracy", "Accuracy", "share of the images that were recognised", *share),
        ("balanced_accuracy", "Balanced accuracy", "mean of the classes' accuracies, so that rare ones count", *share),
        ("macro_f1", "Macro-F1", "mean over the classes of the harmonic mean of precision and recall", *number),
        ("log_loss", "Log loss", "punishes confidence in wrong answers; 0 is perfect", *number),
        ("brier", "Brier score", "mean squared error of the probabilities; 0 is perfect, 2 the worst", *number),
        ("top_k_accuracy", f"Top {top_k}", f"share of the images whose class is among the {top_k} likeliest", *share),
        ("roc_auc", "ROC AUC", "chance that an image of a class scores higher than one of another", *number),
        ("average_precision", "Avg. precision", "area under precision against recall, mean over the classes", *number),
        ("calibration_error", "Calibr. error", "mean gap between stated confidence and share that is right", *share),
    ]  # fmt: skip
    smaller = ("log_loss", "brier", "calibration_error")
    return [
        Column(
            f"{prefix}_{name}",
            title,
            meaning,
            write,
            ends,
            "smaller" if name in smaller else "larger",
            name not in shown,
        )
        for name, title, meaning, write, ends in table
    ]


def _versus(several_seeds: bool, prefix: str) -> list[Column]:
    columns = [
        Column("difference", "Behind by", "the champion's accuracy minus this model's, in percentage points",
               text.points, lambda low, high: f"{text.points(low)} to {text.points(high)}", "smaller", False),
        Column("p_value", "p", "chance of so large a difference between equally good models (McNemar's exact test)",
               text.p_value),
        Column("p_adjusted", "p, corrected", "the same, corrected by Holm for the number of models compared",
               text.p_value),
    ]  # fmt: skip
    if several_seeds:
        mean = f"{prefix}_accuracy_mean"
        meaning = "mean accuracy over trainings from different random starts, with the interval of that mean"
        columns.append(Column(mean, "Over seeds", meaning, text.percent, text.interval, special=False))
    return columns


COSTS = [
    Column("latency_ms", "One image", "time to classify one image on the machine named below, and its quartiles",
           text.milliseconds, lambda low, high: f"{low:.3g}–{high:.3g} ms", "smaller", False),
    Column("throughput", "Images/s", "images classified in a second, many at once", _whole),
    Column("model_bytes", "Size", "of the model's files", _bytes, None, "smaller"),
    Column("parameters", "Weights", "trained and frozen numbers of the model", _whole, None, "smaller"),
    Column("multiply_adds", "Multiply-adds", "for one image", text.magnitude, None, "smaller"),
    Column("train_seconds", "Training", "without the pretraining of its base and without computing features",
           text.duration, None, "smaller", False),
    Column("frozen_seconds", "Frozen", "of the training, the part with a frozen base", text.duration, None, "smaller"),
    Column("unfrozen_seconds", "Unfrozen", "the part after layers of the base were unfrozen", text.duration, None,
           "smaller"),
    Column("feature_seconds", "Features", "the one pass of the frozen base over all images", text.duration, None,
           "smaller"),
]  # fmt: skip
BASE = [
    Column("logme", "LogME", "how well frozen features explain the labels (log evidence)", _three),
    Column("linear_probe", "Linear probe", "cross-validated accuracy of a linear model on the frozen features",
           text.percent),
]  # fmt: skip
CALIBRATION = [
    Column("temperature", "Temperature", "by which the logits were divided to calibrate them; 1 changes nothing",
           lambda value: f"{value:.2f}"),
    Column("abstain_below", "Abstains below", "confidence under which the model gives no answer",
           lambda value: f"{value:.2f}"),
]  # fmt: skip


def column_groups(rows: Sequence[Mapping[str, Any]], prefix: str, top_k: int) -> list[Group]:
    """The columns of which at least one row has a value.

    Args:
        rows: of the leaderboard.
        prefix: of the final split's columns: test or val.
        top_k: of the top-k accuracy.
    """
    final = ("accuracy", "macro_f1", "calibration_error")
    sizes = {name: rows[0][f"n_{name}"] for name in ("validation", "test")}
    groups = [Group(f"Validation, n = {sizes['validation']:,}", _metrics("val", top_k, final[:1]))]
    if prefix == "test":
        groups.append(Group(f"Test, n = {sizes['test']:,}", _metrics("test", top_k, final)))
    else:
        groups = [Group(groups[0].title, _metrics("val", top_k, final))]
    if len(rows) > 1:
        several = any(row["repeats"] > 1 for row in rows)
        groups.append(Group("Against the champion", _versus(several, prefix), verdict=True))
    groups += [Group("Calibration", CALIBRATION), Group("Cost", COSTS), Group("Its base", BASE)]
    kept = [
        replace(group, columns=[c for c in group.columns if any(row[c.name] is not None for row in rows)])
        for group in groups
    ]
    return [group for group in kept if group.width]


def cells(row: Mapping[str, Any], groups: Sequence[Group]) -> list[Cell]:
    """The row's values in the order of the columns; first where a group begins."""
    return [_cell(row, column, first=place == 0) for group in groups for place, column in enumerate(group.columns)]


def _cell(row: Mapping[str, Any], column: Column, *, first: bool) -> Cell:
    value = row[column.name]
    if value is None:
        return Cell(column, "–", "", "", first)
    low, high = row.get(f"{column.name}_low"), row.get(f"{column.name}_high")
    under = "" if column.ends is None or low is None or high is None else column.ends(low, high)
    return Cell(column, column.write(value), under, repr(value), first)
