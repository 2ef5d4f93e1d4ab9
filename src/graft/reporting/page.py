"""reports/index.html: one page without scripts, which a browser opens from the disk; it links to the data report."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from graft.params import Params
from graft.reporting import leaderboard, text
from graft.reporting.svg import inline_svg
from graft.reporting.templates import page_environment
from graft.storage import ArtifactError

FINAL = ("accuracy", "low", "high")
KINDS = {
    "baseline": "network trained from scratch",
    "finetune": "fine-tuned backbone",
    "svm": "SVM on frozen features",
}


@dataclass(frozen=True)
class DataReport:
    """What the page tells of the images.

    Attributes:
        columns: of the counts: the class, then one for each split and for what was left out.
        counts: one row of text per class.
        reasons: how many files were quarantined for each reason, most frequent first.
        preview: PNG of augmented images; None where there is none.
    """

    columns: list[str]
    counts: list[list[str]]
    reasons: list[tuple[str, int]]
    preview: bytes | None

    def totals(self) -> list[int]:
        """Sums of the numeric columns."""
        return [sum(int(row[place]) for row in self.counts) for place in range(1, len(self.columns))]


def read_data_report(folder: Path, preview: Path | None) -> DataReport:
    """Read counts.csv and quarantine.csv of the prepared data, and the preview where there is one.

    Raises:
        ArtifactError: a table is missing or damaged.
    """
    counts = leaderboard.read_csv(folder / "counts.csv", [])
    if not counts.iloc[:, 1:].map(str.isdecimal).all(axis=None):
        raise ArtifactError(f"{folder / 'counts.csv'} must hold a class and its counts in each row")
    quarantine = leaderboard.read_csv(folder / "quarantine.csv", ["reason"])
    reasons = sorted(Counter(quarantine["reason"]).items(), key=lambda item: (-item[1], item[0]))
    image = preview.read_bytes() if preview is not None and preview.exists() else None
    return DataReport(list(counts.columns), counts.to_numpy().tolist(), reasons, image)


def render_page(params: Params, frame: pd.DataFrame, drawings: Mapping[str, str], data: DataReport) -> str:
    """The page as HTML.

    Args:
        params: shown in full.
        frame: from leaderboard.build_leaderboard.
        drawings: SVG text by file name, from figures.draw.
        data: from read_data_report.
    """
    environment = page_environment()
    environment.filters |= {"percent": _unbroken(text.percent), "duration": _unbroken(text.duration)}
    split, prefix = leaderboard.final_split(frame)
    rows = [_with_final(row, prefix) for row in leaderboard.as_records(frame)]
    return environment.get_template("page.html.j2").render(
        rows=rows,
        champion=rows[0],
        best=[next(row for row in rows if row["kind"] == kind) for kind in KINDS if kind in set(frame["kind"])],
        curved=[row for row in rows if f"{row['model']}/curves.svg" in drawings],
        verdicts=compare_with_champion(rows),
        kinds=KINDS,
        split=split,
        samples=frame[f"n_{split}"].iloc[0],
        confidence=f"{100 * params.compare.confidence:g} %",
        floor=min(row["low"] for row in rows),
        interval=_unbroken(text.interval),
        drawings={name: inline_svg(svg, name) for name, svg in drawings.items()},
        data=data,
        preview=base64.b64encode(data.preview).decode() if data.preview else None,
        seed=params.seed,
        params=yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100),
    )


def _unbroken(written: Callable[..., str]) -> Callable[..., str]:
    """The same text with spaces at which no line breaks."""
    return lambda *values: written(*values).replace(" ", "\u00a0")


def _with_final(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The row and, as accuracy, low and high, the figures to quote."""
    values = {name: row[f"{prefix}_{metric}"] for name, metric in zip(FINAL, leaderboard.METRICS, strict=False)}
    return row | values


def compare_with_champion(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The models whose interval overlaps the champion's, lies below it or lies above it, in leaderboard order."""
    champion, *others = rows
    verdicts: dict[str, list[str]] = {"overlap": [], "below": [], "above": []}
    for row in others:
        place = "below" if row["high"] < champion["low"] else "above" if row["low"] > champion["high"] else "overlap"
        verdicts[place].append(row["model"])
    return verdicts
