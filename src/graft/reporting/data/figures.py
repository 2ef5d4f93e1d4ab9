"""Figures of the prepared images as SVG text: how many, how large, how bright and of which colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from graft.reporting.data.tables import CHANNELS, log2, summarise
from graft.reporting.svg import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RED, STYLE, WIDTH, shortened, to_svg

SHOWN_CLASSES = 30  # above, the middle of the ranking is left out: what is odd stands at its ends
SPLIT_CLASSES = 12  # up to here a histogram has a strip for each class
STRIP = 0.86  # height of a histogram, in rows
MOST_TICKS = 8
PARTS = (("train", BLUE, 1.0), ("validation", PURPLE, 1.0), ("test", ORANGE, 1.0), ("unused", MUTED, 0.35))
MARKS = (("mean_r", "red", RED, "s"), ("mean_g", "green", GREEN, "o"), ("mean_b", "blue", BLUE, "D"))


@dataclass(frozen=True)
class Axis:
    """What a histogram is drawn along.

    Attributes:
        title: with the unit.
        edges: of the bins.
        step: the least distance of ticks.
        written: how a tick is written, as a function of it and its place; None: as a number.
        marked: a value to mark, where the edges include it.
    """

    title: str
    edges: np.ndarray
    step: float
    written: Callable[[float, float], str] | None = None
    marked: float | None = None


def draw(images: pd.DataFrame, counts: pd.DataFrame, image_size: int) -> dict[str, str]:
    """The figures that have something to show, by file name.

    counts.svg and channels.svg always; sizes.svg, aspects.svg and brightness.svg where the images differ in it.

    Args:
        images: the usable ones.
        counts: as in PreparedData.
        image_size: px per side to which all are resized.
    """
    drawings = {"counts.svg": class_counts(counts, "counts.svg"), "channels.svg": channels(images, "channels.svg")}
    shorter = log2(images[["width", "height"]].min(axis=1))
    aspect = log2(images["width"] / images["height"])
    brightness, labels = images["brightness"], images["label"]
    if np.ptp(shorter) > 0:
        axis = Axis("shorter side, px", _octaves(shorter), 1, _pixels, float(np.log2(image_size)))
        drawings["sizes.svg"] = strips(shorter, labels, axis, "sizes.svg")
    if np.ptp(aspect) > 0:
        axis = Axis("width : height", _octaves(aspect), 1, _ratio)
        drawings["aspects.svg"] = strips(aspect, labels, axis, "aspects.svg")
    if np.ptp(brightness) > 0:
        axis = Axis("mean brightness, 0 black to 255 white", np.linspace(0, 256, 33), 64)
        drawings["brightness.svg"] = strips(brightness, labels, axis, "brightness.svg")
    return drawings


def _octaves(values: pd.Series) -> np.ndarray:
    """Edges between whole powers of two around the logarithms, about 32 bins."""
    low, high = np.floor(values.min()), np.ceil(values.max())
    octaves = max(1, int(high - low))
    return np.linspace(low, low + octaves, octaves * max(2, 32 // octaves) + 1)


def _pixels(value: float, _: float) -> str:
    return f"{2**value:.0f}"


def _ratio(value: float, _: float) -> str:
    return f"{2**value:.0f} : 1" if value >= 0 else f"1 : {2**-value:.0f}"


def _shown(classes: int) -> list[int | None]:
    """The places of a ranking of classes without the middle ones where there are too many; None stands for those."""
    if classes <= SHOWN_CLASSES:
        return list(range(classes))
    half = SHOWN_CLASSES // 2
    return [*range(half), None, *range(classes - half, classes)]


def _name_rows(axes: Any, shown: Sequence[int | None], labels: Sequence[str]) -> None:
    """One row per shown class from the top, and between them one that says how many are not shown."""
    names = ["" if place is None else shortened(labels[place]) for place in shown]
    axes.set_yticks(range(len(shown)), names, color=INK)
    if None in shown:
        words, line = f"… and {len(labels) - len(shown) + 1} more classes …", axes.get_yaxis_transform()
        axes.text(0.5, shown.index(None), words, transform=line, ha="center", va="center", color=MUTED)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_visible(False)


def class_counts(counts: pd.DataFrame, name: str) -> str:
    """The images of each class by split, as bars from the largest class to the smallest."""
    parts = [part for part, _, _ in PARTS]
    ranked = counts.assign(total=counts[parts].sum(axis=1)).sort_values(["total", "label"], ascending=[False, True])
    shown = _shown(len(ranked))
    lines = [line for line, place in enumerate(shown) if place is not None]
    rows = ranked.iloc[[place for place in shown if place is not None]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        left = np.zeros(len(rows))
        for part, colour, alpha in PARTS:
            if counts[part].any():
                axes.barh(lines, rows[part], left=left, height=0.68, color=colour, alpha=alpha, label=part)
                left += rows[part].to_numpy()
        _name_rows(axes, shown, ranked["label"].tolist())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("images")
        figure.legend(frameon=False, loc="outside upper left", ncols=4, handlelength=1, columnspacing=1.2, fontsize=9)
        return to_svg(figure, name)


def strips(values: pd.Series, labels: pd.Series, axis: Axis, name: str) -> str:
    """A histogram for each class, or one for all where there are many, each with a line at its median.

    Args:
        values: of shape (n,).
        labels: of shape (n,).
        axis: along which they are drawn.
        name: tells the figure's ids from those of other figures on one page.
    """
    few = labels.nunique() <= SPLIT_CLASSES
    groups = list(values.groupby(labels, sort=True)) if few else [("", values)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 + (0.38 if few else 1.6) * len(groups)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, members) in enumerate(groups):
            found, _ = np.histogram(members, axis.edges)
            # Bars grow upwards from the class's row, while rows go down.
            tops = place - STRIP * found / found.max()
            axes.stairs(tops, axis.edges, baseline=place, fill=True, color=BLUE, alpha=0.75)
            axes.plot([members.median()] * 2, [place, place - STRIP], color=INK, lw=1.3)
        axes.set_yticks(range(len(groups)), [shortened(str(label)) for label, _ in groups], color=INK, va="bottom")
        axes.set_ylim(len(groups) - 0.9, -1)
        axes.spines["left"].set_visible(False)
        _draw_axis(axes, axis)
        return to_svg(figure, name)


def _draw_axis(axes: Any, axis: Axis) -> None:
    low, high = float(axis.edges[0]), float(axis.edges[-1])
    axes.set(xlim=(low, high), xlabel=axis.title)
    axes.xaxis.set_major_locator(MultipleLocator(axis.step * -(-(high - low) // (MOST_TICKS * axis.step))))
    if axis.written is not None:
        axes.xaxis.set_major_formatter(FuncFormatter(axis.written))
    if axis.marked is not None and low <= axis.marked <= high:
        axes.axvline(axis.marked, color=ORANGE, lw=1.2, ls=(0, (4, 2)))
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def channels(images: pd.DataFrame, name: str) -> str:
    """Mean and standard deviation of each class's red, green and blue pixels; of grey images one of the three."""
    table = summarise(images, ["label"]).sort_values(["brightness", "label"], ascending=[False, True])
    shown = _shown(len(table))
    lines = np.array([line for line, place in enumerate(shown) if place is not None])
    rows = table.iloc[[place for place in shown if place is not None]]
    means = images[[f"mean_{channel}" for channel in CHANNELS]]
    grey = bool(np.ptp(means.to_numpy(), axis=1).max() < 0.01)
    marks = [("mean_r", "grey", MUTED, "o")] if grey else list(MARKS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + (0.24 if grey else 0.32) * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        for turn, (column, called, colour, marker) in enumerate(marks):
            places = lines + (0.0 if grey else (turn - 1) * 0.22)
            mean, deviation = rows[column], rows[column.replace("mean", "std")]
            low, high = (mean - deviation).clip(lower=0), (mean + deviation).clip(upper=255)
            axes.hlines(places, low, high, color=colour, lw=1.6, alpha=0.4)
            axes.plot(mean, places, color=colour, marker=marker, ms=4.5, ls="none", label=called)
        _name_rows(axes, shown, table["label"].tolist())
        axes.set_xlim(0, 256)
        axes.xaxis.set_major_locator(MultipleLocator(64))
        axes.set_xlabel("pixels, 0 to 255: mean ± standard deviation")
        figure.legend(frameon=False, loc="outside upper left", ncols=3, handlelength=1, columnspacing=1.2, fontsize=9)
        return to_svg(figure, name)
