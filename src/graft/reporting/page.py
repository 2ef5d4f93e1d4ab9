"""reports/index.html: one page that holds all it shows; its only script sorts tables. It links to the data report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from graft.params import Params
from graft.reporting import text
from graft.reporting.comparison import Comparison
from graft.reporting.data.wording import abridged
from graft.reporting.page_context import capitalised, page_context
from graft.reporting.run_files import read_csv
from graft.reporting.svg import inline_svg
from graft.reporting.templates import page_environment
from graft.storage import ArtifactError
from graft.tiles import to_png

CONTENTS = {
    "answer": "Answer",
    "leaderboard": "Leaderboard",
    "training": "Learning",
    "mistakes": "Confusion",
    "calibration": "Calibration",
    "labels": "Labels needed",
    "bases": "Bases",
    "costs": "Costs",
    "inside": "Inside",
    "slices": "Slices",
    "data": "Data",
    "again": "Reproduce",
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
    counts = read_csv(folder / "counts.csv", [])
    if not counts.iloc[:, 1:].map(str.isdecimal).all(axis=None):
        raise ArtifactError(f"{folder / 'counts.csv'} must hold a class and its counts in each row")
    quarantine = read_csv(folder / "quarantine.csv", ["reason"])
    reasons = sorted(Counter(quarantine["reason"]).items(), key=lambda item: (-item[1], item[0]))
    image = _reduced(preview) if preview is not None and preview.exists() else None
    return DataReport(list(counts.columns), counts.to_numpy().tolist(), reasons, image)


def _reduced(picture: Path) -> bytes:
    """The picture as PNG of few colours, since the page carries it along."""
    try:
        with Image.open(picture) as image:
            return to_png(np.asarray(image.convert("RGB")))
    except OSError as error:
        raise ArtifactError(f"{picture} is no readable picture: {error}") from None


def render_page(params: Params, comparison: Comparison, drawings: Mapping[str, str], data: DataReport) -> str:
    """The page as HTML.

    Args:
        params: shown in full.
        comparison: what it tells.
        drawings: SVG text by file name, from figures.draw.
        data: from read_data_report.
    """
    context = page_context(params, comparison, drawings)
    context |= {"data": data, "drawings": {name: _inlined(svg, name) for name, svg in drawings.items()}}
    environment = _environment()
    present = {
        "training": bool(context["curved"]),
        "bases": bool(context["transfer"]),
        "costs": "pareto.svg" in drawings,
        "inside": any(context[name] for name in ("mistakes", "doubts", "maps", "kernels", "looks")),
        "slices": bool(context["slices"] or context["suspects"]),
    }
    context["contents"] = [(name, title) for name, title in CONTENTS.items() if present.get(name, True)]
    return environment.get_template("page.html.j2").render(context)


def _environment() -> Environment:
    environment = page_environment()
    written: dict[str, Callable[..., str]] = {
        "percent": text.percent,
        "interval": text.interval,
        "span": text.span,
        "points": text.points,
        "times": text.times,
        "duration": text.duration,
        "milliseconds": text.milliseconds,
        "magnitude": text.magnitude,
        "p_value": text.p_value,
        "size": lambda value: text.magnitude(value, "B"),
        "three": lambda value: f"{value:.3f}".replace("-", text.MINUS),
    }
    unbroken = {name: _unbroken(function) for name, function in written.items()}
    environment.filters |= unbroken | {"abridged": abridged, "capitalize_first": capitalised}
    environment.globals |= unbroken
    return environment


def _unbroken(written: Callable[..., str]) -> Callable[..., str]:
    """The same text with spaces at which no line breaks."""
    return lambda *values: written(*values).replace(" ", "\u00a0")


def _inlined(svg: str, name: str) -> Markup:
    return inline_svg(svg, name)
