"""The slices of the final split as the page shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from graft.reporting import text
from graft.reporting.leaderboard import as_records

MOST = 60  # slices that are shown, the worst; the file holds them all


@dataclass(frozen=True)
class SliceColumn:
    """A column of numbers: name in the frame, heading, how it is written, and what the first click puts first."""

    name: str
    title: str
    write: Callable[[Any], str]
    ends: Callable[[float, float], str] | None = None
    first: str = "ascending"


SLICE_COLUMNS = [
    SliceColumn("n", "Images", lambda value: f"{value:,}"),
    SliceColumn("accuracy", "Accuracy", text.percent, text.interval),
    SliceColumn("rest_accuracy", "Elsewhere", text.percent),
    SliceColumn("difference", "Difference", text.points),
    SliceColumn("p_adjusted", "p, corrected", text.p_value),
    SliceColumn("macro_f1", "Macro-F1", lambda value: f"{value:.3f}", text.span),
    SliceColumn("calibration_error", "Calibr. error", text.percent, text.interval, "descending"),
]


def slice_rows(slices: pd.DataFrame) -> list[dict[str, Any]]:
    """One record per slice, up to MOST in their order, with a title of its way of slicing and its value.

    Args:
        slices: as from slices.evaluate_slices.
    """
    return [row | {"title": f"{row['slice']}: {row['value']}"} for row in as_records(slices.head(MOST))]
