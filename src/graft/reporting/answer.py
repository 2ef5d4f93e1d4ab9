"""What follows from a comparison, in the few facts that its first screen states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

VERDICTS = ("not distinguishable", "worse", "better")
FASTER = 1.2  # times, below which a difference in speed recommends nothing
SMALLER = 1.5  # the same for the number of weights, where no speed was measured
MARGIN = 0.05  # of accuracy; a model that may be further behind than that is not known to keep up


@dataclass(frozen=True)
class Recommendation:
    """A model that keeps up with the champion and costs less.

    Attributes:
        model: its name.
        better: whether it is established to be more accurate than the champion.
        factor: how many times faster it is; where speeds are unknown, how many times fewer weights it has.
        latency_ms: of one image; None where speeds are unknown.
        champion_ms: the champion's.
        at_most_behind: by how much its accuracy may lie under the champion's, as the end of an interval.
    """

    model: str
    better: bool
    factor: float
    latency_ms: float | None
    champion_ms: float | None
    at_most_behind: float


@dataclass(frozen=True)
class Abstaining:
    """What becomes of the images of the final split when unsure answers are withheld; share is of 0 where all are."""

    share: float
    n: int
    accuracy: float | None
    low: float | None
    high: float | None


def by_verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The models other than the champion by what is established about them, in leaderboard order."""
    return {verdict: [row["model"] for row in rows if row["verdict"] == verdict] for verdict in VERDICTS}


def recommend(rows: Sequence[Mapping[str, Any]]) -> Recommendation | None:
    """The cheapest model that keeps up with the champion, where it is clearly cheaper.

    It keeps up if it is better, or not distinguishable with an interval that ends within MARGIN of the champion: few
    images tell nothing apart, which recommends nothing.

    Args:
        rows: of the leaderboard, the champion first.
    """
    champion, *others = rows
    equals = [row for row in others if _keeps_up(row)]
    timed = champion["latency_ms"] is not None
    cost, least = ("latency_ms", FASTER) if timed else ("parameters", SMALLER)
    equals = [row for row in equals if row[cost] is not None and row[cost] * least <= champion[cost]]
    if not equals:
        return None
    best = min(equals, key=lambda row: row[cost])
    return Recommendation(
        model=best["model"],
        better=best["verdict"] == "better",
        factor=champion[cost] / best[cost],
        latency_ms=best["latency_ms"] if timed else None,
        champion_ms=champion["latency_ms"],
        at_most_behind=max(0.0, best["difference_high"] or 0.0),
    )


def _keeps_up(row: Mapping[str, Any]) -> bool:
    near = row["difference_high"] is not None and row["difference_high"] <= MARGIN
    return row["verdict"] == "better" or (row["verdict"] == "not distinguishable" and near)


def abstaining(coverage: pd.DataFrame, abstain_below: float | None) -> Abstaining:
    """How many images a threshold leaves and how many of those are right.

    Args:
        coverage: as from reliability.coverage_curve.
        abstain_below: None: nothing is answered.
    """
    answered = coverage if abstain_below is None else coverage[coverage["threshold"] >= abstain_below]
    if abstain_below is None or answered.empty:
        return Abstaining(0.0, 0, None, None, None)
    row = answered.iloc[int(answered["coverage"].to_numpy().argmax())]
    accuracy, low, high = (float(row[name]) for name in ("accuracy", "low", "high"))
    return Abstaining(float(row["coverage"]), int(row["n"]), accuracy, low, high)


@dataclass(frozen=True)
class Confusion:
    """How often images of one class were taken for another."""

    actual: str
    predicted: str
    count: int


def frequent_confusions(counts: Any, classes: Sequence[str], most: int = 3) -> list[Confusion]:
    """The most frequent mistakes of a confusion matrix (classes, classes), row = actual; a lone image is none."""
    cells = [
        Confusion(classes[row], classes[column], int(counts[row, column]))
        for row in range(len(classes))
        for column in range(len(classes))
        if row != column and counts[row, column] > 1
    ]
    return sorted(cells, key=lambda cell: -cell.count)[:most]
