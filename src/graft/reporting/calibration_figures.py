"""Figures of how far a model's confidence can be trusted, as SVG text."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from graft.reporting.answer import abstaining
from graft.reporting.comparison import Comparison
from graft.reporting.marks import KINDS, percent_sign
from graft.reporting.svg import GRID, INK, MUTED, STYLE, WIDTH, to_svg


def reliability_diagram(before: pd.DataFrame, after: pd.DataFrame, kind: str, name: str) -> str:
    """Accuracy by stated confidence, before and after calibration, over the number of images, as SVG.

    Args:
        before: bins, as from reliability.bins.
        after: the same of the calibrated probabilities.
        kind: of the model, for its colour.
        name: tells the figure's ids from those of other figures on one page.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        upper.plot([0, 1], [0, 1], color=GRID, lw=1.4, zorder=1)
        _points(upper, before, MUTED, filled=False)
        _points(upper, after, KINDS[kind], filled=True)
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that is right")
        upper.yaxis.set_major_formatter(percent_sign)
        signs = [_sign(MUTED, "before"), _sign(KINDS[kind], "calibrated", filled=True)]
        upper.legend(handles=signs, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        lower.bar(after["low"], after["n"], after["high"] - after["low"], align="edge", color=KINDS[kind], alpha=0.55)
        lower.set(xlabel="stated confidence", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        lower.xaxis.set_major_formatter(percent_sign)
        for axes in (upper, lower):
            axes.tick_params(length=0)
        return to_svg(figure, name)


def _points(axes: Any, bins: pd.DataFrame, colour: str, *, filled: bool) -> None:
    # The area tells how many images a point stands for: a lone image far off the line says little.
    share = bins["n"] / max(1, bins["n"].sum())
    axes.scatter(
        bins["confidence"],
        bins["accuracy"],
        s=14 + 150 * share,
        facecolors=colour if filled else "none",
        edgecolors=colour,
        linewidths=1.2,
        alpha=0.9,
        clip_on=False,
        zorder=3,
    )


def _sign(colour: str, label: str, *, filled: bool = False) -> Line2D:
    face = colour if filled else "none"
    return Line2D([], [], ls="none", marker="o", ms=6, mec=colour, mfc=face, mew=1.2, label=label)


def coverage_curves(comparison: Comparison, name: str) -> str:
    """Accuracy of what is answered against how much is answered, the champion's with band and threshold, as SVG."""
    champion = comparison.champion
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 1.2, WIDTH * 0.9), layout="constrained")
        axes = figure.add_subplot()
        for model, curve in reversed(list(comparison.coverage.items())):
            kind = comparison.runs[model].kind
            if model != champion.model:
                thin = _thinned(curve, 60)
                axes.plot(thin["coverage"], thin["accuracy"], color=KINDS[kind], lw=0.9, alpha=0.4)
        curve = _thinned(comparison.coverage[champion.model])
        colour = KINDS[champion.kind]
        axes.fill_between(curve["coverage"], curve["low"], curve["high"], color=colour, alpha=0.16, lw=0)
        axes.plot(curve["coverage"], curve["accuracy"], color=colour, lw=2.2)
        _mark_threshold(axes, comparison)
        axes.set(xlim=(0, 1.01), xlabel="share of the images that is answered", ylabel="accuracy of the answers")
        axes.set_ylim(bottom=_floor(comparison), top=1.005)
        axes.xaxis.set_major_formatter(percent_sign)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(percent_sign)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        return to_svg(figure, name)


def _floor(comparison: Comparison) -> float:
    """Below every curve at half coverage and more, so that a few odd answers at the left do not flatten the rest."""
    lowest = min(curve["accuracy"][curve["coverage"] >= 0.3].min() for curve in comparison.coverage.values())
    return max(0.0, float(lowest) - 0.03)


def _thinned(curve: pd.DataFrame, most: int = 200) -> pd.DataFrame:
    """So many points at most, the first and the last among them, of the coverages that are no accident of a few."""
    curve = curve[curve["n"] >= min(5, curve["n"].max())].sort_values("coverage", kind="stable")
    step = max(1, len(curve) // most)
    kept = sorted({*range(0, len(curve), step), len(curve) - 1})
    return curve.iloc[kept]


def _mark_threshold(axes: Any, comparison: Comparison) -> None:
    champion = comparison.champion
    point = abstaining(comparison.coverage[champion.model], champion.abstain_below)
    if point.accuracy is None:
        return
    axes.plot([point.share] * 2, [0, point.accuracy], color=MUTED, lw=1, ls=":")
    axes.plot(point.share, point.accuracy, "o", color=KINDS[champion.kind], ms=8, mec=INK, mew=1.2, zorder=4)
    on_the_left = point.share > 0.4
    axes.annotate(
        f"abstains below {champion.abstain_below:.2f}",
        (point.share, 0),
        xytext=(-5 if on_the_left else 5, 6),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if on_the_left else "left",
        color=INK,
        fontsize=9,
    )
