"""Images as points in a plane, near each other where a frozen base sees them alike, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from graft.reporting.comparison import Comparison
from graft.reporting.marks import HALO, Box, overlap
from graft.reporting.svg import INK, NAME_LENGTH, STYLE, WIDTH, to_svg

# Ten colours of middle lightness, which a picture cannot exchange: they must be told apart on white and on black.
COLOURS = (
    *("#3f8fd2", "#e07b39", "#3fa66b", "#d9534f", "#9b72cf"),
    *("#b0793f", "#d768a9", "#8a9a2b", "#22a8b4", "#7f8c9b"),
)
SHAPES = ("o", "^", "s")
OTHERS = "#9aa4ae"
MOST = 20  # classes that can be told apart by colour and shape
PICKED = 10  # of more classes, those of which the champion recognises the fewest images
POINTS = 2000  # in one map
SHARP, COARSE, FEW = (
    170,
    100,
    6,
)  # dots per inch of the points, which stand in the SVG as a picture: vectors would weigh too much


def draw_maps(comparison: Comparison) -> dict[str, str]:
    """maps/<backbone>-pca.svg and maps/<backbone>-tsne.svg of every backbone."""
    styles = class_styles(comparison.classes_in_order, hardest_classes(comparison))
    drawings = {}
    for backbone, table in comparison.maps.items():
        for plane in ("pca", "tsne"):
            name = f"maps/{backbone}-{plane}.svg"
            drawings[name] = feature_map(table, plane, styles, name, SHARP if len(comparison.maps) <= FEW else COARSE)
    return drawings


def hardest_classes(comparison: Comparison) -> list[str]:
    """All classes where colours suffice; else the PICKED of which the champion recognises the smallest share."""
    classes = list(comparison.classes_in_order)
    if len(classes) <= MOST:
        return classes
    own = comparison.classes[comparison.classes["model"] == comparison.champion.model]
    hardest = set(own.sort_values(["recall", "label"], kind="stable")["label"].head(PICKED))
    return [name for name in classes if name in hardest]


def class_styles(classes: Sequence[str], picked: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each class; those that are not picked share one."""
    styles = {name: (OTHERS, "o") for name in classes if name not in set(picked)}
    for place, name in enumerate(picked):
        styles[name] = (COLOURS[place % len(COLOURS)], SHAPES[place // len(COLOURS)])
    return styles


def feature_map(
    table: pd.DataFrame, plane: str, styles: Mapping[str, tuple[str, str]], name: str, sharp: int = SHARP
) -> str:
    """The images of a map in one plane, coloured by class and named at the middle of each class, as SVG.

    Args:
        table: label, and <plane>_x and <plane>_y.
        plane: pca or tsne.
        styles: from class_styles.
        name: tells the figure's ids from those of other figures on one page.
        sharp: dots per inch of the points.
    """
    table = table.iloc[:POINTS]
    labels = table["label"].to_numpy(object)
    points = table[[f"{plane}_x", f"{plane}_y"]].to_numpy(float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 0.8, WIDTH * 0.8), dpi=sharp)
        axes = figure.add_axes((0, 0, 1, 1))
        size = 16 if len(points) <= 700 else 9
        for label, (colour, marker) in styles.items():
            here = points[labels == label]
            shade = 0.3 if colour == OTHERS else 0.75
            area = size * (1 if colour == OTHERS or len(styles) <= MOST else 2)
            axes.scatter(
                here[:, 0], here[:, 1], area, c=colour, marker=marker, alpha=shade, linewidths=0, rasterized=True
            )
        axes.margins(0.06)
        axes.set_axis_off()
        middles = {
            label: np.median(points[labels == label], axis=0)
            for label, (colour, _) in styles.items()
            if colour != OTHERS and (labels == label).any()
        }
        _name_middles(axes, middles)
        return to_svg(figure, name)


def _name_middles(axes: Any, middles: Mapping[str, np.ndarray]) -> None:
    """Write short names at the middle of their class, but none across another; the page has a legend as well."""
    taken: list[Box] = []
    scale = 72 / axes.figure.dpi
    for place, (label, middle) in enumerate(middles.items()):
        if len(label) > NAME_LENGTH:  # what is cut off may be what tells it from others
            continue
        x, y = (float(value) * scale for value in axes.transData.transform(middle))
        box = (x - 3.2 * len(label), y - 6, x + 3.2 * len(label), y + 6)
        if any(overlap(box, other) for other in taken):
            continue
        taken.append(box)
        named = axes.text(*middle, label, ha="center", va="center", color=INK, fontweight="bold")
        named.set_gid(f"{HALO}-{place}")
