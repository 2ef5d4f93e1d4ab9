"""Figures as SVG text for the pages: one style, equal bytes for equal inputs, colours that a page's CSS exchanges."""

from __future__ import annotations

import io
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# The pages replace these by variables of their own, so that figures follow their light and dark themes.
INK, MUTED, GRID = "#1d232b", "#66707c", "#d9dee4"
BLUE, PURPLE, ORANGE, RED, GREEN = "#1f6fb5", "#7a5ea8", "#b8620c", "#b23a32", "#2c7d4f"
THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    BLUE: "var(--finetune)",
    PURPLE: "var(--baseline)",
    ORANGE: "var(--svm)",
    RED: "var(--red)",
    GREEN: "var(--green)",
}

WIDTH = 4.5  # inches of 72 units each: a figure is drawn at about the width at which a phone shows it
NAME_LENGTH = 14
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's own font
    "text.parse_math": False,  # a class may be called "$5"
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def shortened(name: str, most: int = NAME_LENGTH) -> str:
    """The name as far as an axis has room for it."""
    return name if len(name) <= most else name[: most - 1] + "…"


def to_svg(figure: Figure, name: str) -> str:
    """The figure as SVG text; the name tells its ids from those of other figures on one page."""
    FigureCanvasSVG(figure)
    text = io.StringIO()
    # Ids are hashed with this salt, else they are random; without a date the bytes depend on the inputs alone.
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The text is drawn by the reader's browser, which has other fonts than the one that is measured here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def inline_svg(svg: str, name: str) -> Markup:
    """An SVG of to_svg to stand in a page: themed by its CSS, scalable, with ids that no other figure has."""
    root = ElementTree.fromstring(svg)
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)  # a style element would hold for the whole page
        for key, value in parent.attrib.items():
            parent.set(key, _adapted(key, value, name))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("style", f"aspect-ratio: {width} / {height}")
    root.set("aria-hidden", "true")  # the caption and the table say the same in words
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _adapted(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}:{value}"
    if key == f"{{{XLINK}}}href" and value.startswith("#"):
        return f"#{name}:{value[1:]}"
    if key == "style":
        for colour, variable in THEME.items():
            value = value.replace(colour, variable)
    return value.replace("url(#", f"url(#{name}:")
