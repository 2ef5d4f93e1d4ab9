"""Figures of the trained models as SVG text: equal inputs give equal bytes, in colours that the page can exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graft.metrics import confusion
from graft.reporting.calibration_figures import coverage_curves, reliability_diagram
from graft.reporting.comparison import Comparison
from graft.reporting.cost_figures import pareto
from graft.reporting.data_curves import curve_of_base, curve_of_kinds
from graft.reporting.feature_maps import draw_maps
from graft.reporting.leaderboard import as_records, final_split
from graft.reporting.marks import KINDS, MARKERS, percent_sign
from graft.reporting.svg import INK, MUTED, STYLE, WIDTH, shortened, to_svg
from graft.reporting.text import percent
from graft.reporting.transfer_figures import score_against_accuracy

ON_CELL = "#fefefe"

NUMBERED_CLASSES = 12  # up to here each cell has room for its count
NAMED_CLASSES = 24  # above, only every n-th class is named on the axes


def draw(comparison: Comparison) -> dict[str, str]:
    """Every figure of the comparison as SVG text, by file name.

    overview.svg and coverage.svg; for each model, in a folder of its name, confusion.svg, reliability.svg and, where
    it has a history, curves.svg; and where it was measured: pareto.svg, curve.svg and curve/<backbone>.svg,
    transfer-<score>.svg, maps/<backbone>-pca.svg and -tsne.svg.
    """
    frame = comparison.frame
    split, prefix = final_split(frame)
    drawings = {"overview.svg": overview(frame, "overview.svg")}
    for model, run in comparison.runs.items():
        name = f"{model}/confusion.svg"
        drawings[name] = confusion_matrix(confusion(*run.predictions.split(split)), run.predictions.classes, name)
        if run.history is not None:
            name = f"{model}/curves.svg"
            drawings[name] = learning_curves(run.history, run.kind, name)
        name = f"{model}/reliability.svg"
        drawings[name] = reliability_diagram(*comparison.reliability[model], run.kind, name)
    drawings["coverage.svg"] = coverage_curves(comparison, "coverage.svg")
    if frame["latency_ms"].notna().any():
        drawings["pareto.svg"] = pareto(frame, "pareto.svg")
    if comparison.curve is not None:
        drawings["curve.svg"] = curve_of_kinds(comparison.curve, "curve.svg")
        for base in dict.fromkeys(comparison.curve["model"][comparison.curve["kind"] != "baseline"]):
            drawings[f"curve/{base}.svg"] = curve_of_base(comparison.curve, base, f"curve/{base}.svg")
    if len(comparison.transfer) > 1:
        for score in ("linear_probe", "logme"):
            name = f"transfer-{score}.svg"
            drawings[name] = score_against_accuracy(comparison.transfer, frame, f"{prefix}_accuracy", score, name)
    return drawings | draw_maps(comparison)


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], name: str) -> str:
    """Counts (classes, classes), row = actual, shaded by their share of the row, as SVG.

    Args:
        counts: as from metrics.confusion.
        classes: names in the order of rows and columns.
        name: tells the figure's ids from those of other figures on one page.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        solid = to_rgba(KINDS["finetune"])
        shade = LinearSegmentedColormap.from_list("shade", [(*solid[:3], 0.0), solid])  # any background shines through
        # The power shows rare confusions, which are what one looks for.
        axes.imshow(shares, cmap=shade, norm=PowerNorm(0.5, 0, 1), interpolation="none")
        _name_classes(axes, classes)
        if len(classes) <= NUMBERED_CLASSES:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = ON_CELL if shares[row, column] > 0.4 else INK
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
        return to_svg(figure, name)


def _name_classes(axes: Any, classes: Sequence[str]) -> None:
    step = -(-len(classes) // NAMED_CLASSES)
    places = range(0, len(classes), step)
    names = [shortened(classes[place]) for place in places]
    upright = max(map(len, names)) * len(names) <= 40
    axes.set_xticks(places, names, rotation=0 if upright else 90)
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.tick_params(length=0, labelsize=9 if len(names) <= NUMBERED_CLASSES else 8)
    for spine in axes.spines.values():
        spine.set_visible(True)


def learning_curves(history: pd.DataFrame, kind: str, name: str) -> str:
    """Loss and accuracy over the epochs, for training and validation, with a line where a new phase begins, as SVG.

    Args:
        history: epoch, phase, loss, accuracy, val_loss and val_accuracy; one row per epoch.
        kind: of the model, for its colour.
        name: tells the figure's ids from those of other figures on one page.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * 0.9), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, quantity in ((upper, "loss"), (lower, "accuracy")):
            marker = "o" if len(history) < 3 else None  # a line through one point is invisible
            epochs = history["epoch"]
            axes.plot(epochs, history[quantity], color=MUTED, lw=1.4, ls=(0, (4, 2)), marker=marker, label="training")
            axes.plot(epochs, history[f"val_{quantity}"], color=KINDS[kind], lw=1.9, marker=marker, label="validation")
            axes.set_title(quantity)
            axes.grid(axis="y")
            axes.set_axisbelow(True)
        upper.set_ylim(bottom=0)
        lower.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        lower.yaxis.set_major_formatter(percent_sign)
        lower.set_ylim(top=1.0)
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark_phases(upper, lower, history)
        upper.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        return to_svg(figure, name)


def _mark_phases(upper: Any, lower: Any, history: pd.DataFrame) -> None:
    phases = history["phase"].astype(str)
    begins = history[phases.ne(phases.shift())].iloc[1:]  # the first phase begins with the axis
    for epoch, phase in zip(begins["epoch"].to_list(), begins["phase"].to_list(), strict=True):
        for axes in (upper, lower):
            axes.axvline(epoch - 0.5, color=MUTED, lw=1, ls=":")
        upper.annotate(
            phase,
            (epoch - 0.5, 1),
            xytext=(4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            color=MUTED,
            fontsize=9,
        )


def overview(frame: pd.DataFrame, name: str) -> str:
    """The final accuracy of every model with its interval, highest first, as SVG."""
    split, prefix = final_split(frame)
    ranked = as_records(frame.sort_values([f"{prefix}_accuracy", "model"], ascending=[False, True]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.28 * len(ranked)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(ranked):
            accuracy, low, high = (row[f"{prefix}_accuracy{end}"] for end in ("", "_low", "_high"))
            colour = KINDS[row["kind"]]
            axes.plot([low, high], [place, place], color=colour, lw=2.2, alpha=0.45, solid_capstyle="round")
            axes.plot(accuracy, place, color=colour, marker=MARKERS[row["kind"]], ms=7, ls="none")
            axes.annotate(
                percent(accuracy), (1.01, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
            )
        axes.set_yticks(range(len(ranked)), [shortened(row["model"], 22) for row in ranked], color=INK)
        for label, row in zip(axes.get_yticklabels(), ranked, strict=True):
            label.set_fontweight("bold" if row["champion"] else "normal")
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(percent_sign)
        axes.tick_params(length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel(f"{split} accuracy")
        return to_svg(figure, name)
