"""Accuracy against the number of labelled images, as SVG text."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from graft.reporting.marks import KINDS, MARKERS, percent_sign
from graft.reporting.svg import STYLE, WIDTH, to_svg

LEGEND = {
    "baseline": "network from scratch",
    "frozen": "frozen base, trained head",
    "finetune": "fine-tuned base",
    "svm": "SVM on frozen features",
}


def curve_of_kinds(curve: pd.DataFrame, name: str) -> str:
    """The model of each kind with the highest validation accuracy, mean over all sizes, as SVG."""
    means = curve.groupby(["kind", "model"], sort=True)["validation_accuracy"].mean()
    best = {kind: means[kind].idxmax() for kind in LEGEND if kind in means.index.get_level_values(0)}
    lines = [
        (kind, f"{model}: {LEGEND[kind]}", curve[(curve["kind"] == kind) & (curve["model"] == model)])
        for kind, model in best.items()
    ]
    return _plot(curve, lines, WIDTH * 1.15, name)


def curve_of_base(curve: pd.DataFrame, base: str, name: str) -> str:
    """What was made of one base, beside the networks from scratch, as SVG."""
    scratch = curve[curve["kind"] == "baseline"]
    lines = [("baseline", str(model), rows) for model, rows in scratch.groupby("model", sort=False)]
    for kind in ("frozen", "finetune", "svm"):
        rows = curve[(curve["kind"] == kind) & (curve["model"] == base)]
        if len(rows):
            lines.append((kind, LEGEND[kind], rows))
    return _plot(curve, lines, WIDTH, name)


def _plot(curve: pd.DataFrame, lines: list[tuple[str, str, pd.DataFrame]], width: float, name: str) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, WIDTH * 0.95), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for kind, label, rows in lines:
            rows = rows.sort_values("images")
            colour, marker = KINDS[kind], MARKERS[kind]
            axes.fill_between(rows["images"], rows["low"], rows["high"], color=colour, alpha=0.14, lw=0)
            axes.plot(rows["images"], rows["accuracy"], color=colour, lw=1.9, marker=marker, ms=5, label=label)
        _name_sizes(axes, curve)
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(percent_sign)
        axes.set(xlabel="labelled images per class", ylabel="accuracy")
        axes.tick_params(which="both", length=0)
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
        return to_svg(figure, name)


def _name_sizes(axes: Any, curve: pd.DataFrame) -> None:
    sizes = curve.groupby("per_class")["images"].max().sort_values()
    axes.xaxis.set_major_locator(FixedLocator(sizes.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(["all" if size == -1 else str(size) for size in sizes.index])
