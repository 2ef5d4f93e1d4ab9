"""How models are told apart in the figures: colours and markers of their kinds, and names beside points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graft.reporting.svg import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, shortened

KINDS = {"baseline": PURPLE, "finetune": BLUE, "svm": ORANGE, "frozen": GREEN}
MARKERS = {"baseline": "s", "finetune": "o", "svm": "D", "frozen": "^"}  # colour is never the only sign
NAME_LENGTH = 22  # of a name beside a point
HALO = "halo"  # in the ids of names, so that a page can set them off from what lies under them

Box = tuple[float, float, float, float]


def percent_sign(value: float, _: float) -> str:
    """Of a share, as an axis names it: 95 %."""
    return f"{100 * value:.6g} %"


def name_points(axes: Any, points: Sequence[tuple[float, float]], names: Sequence[str], strong: Sequence[bool]) -> None:
    """Write names beside points where they cover neither each other nor a point; strong ones first, in ink.

    The axes must have their final limits. A name that finds no room is left out unless it is strong.
    """
    scale = 72 / axes.figure.dpi
    places = [tuple(float(v) * scale for v in axes.transData.transform(point)) for point in points]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    window = axes.get_window_extent()
    room = (window.x0 * scale, window.y0 * scale, window.x1 * scale, window.y1 * scale)
    for place in sorted(range(len(points)), key=lambda number: (not strong[number], number)):
        x, y = places[place]
        name = shortened(names[place], NAME_LENGTH)
        box, offset, alignment = _free_place(x, y, 5.6 * len(name), taken, room)
        if offset is None and not strong[place]:
            continue
        taken.append(box)
        named = axes.annotate(
            name,
            points[place],
            xytext=offset or (0, 9),
            textcoords="offset points",
            ha=alignment,
            va="center",
            fontsize=9,
            color=INK if strong[place] else MUTED,
            fontweight="bold" if strong[place] else "normal",
        )
        named.set_in_layout(False)
        named.set_gid(f"{HALO}-{place}")


def _free_place(
    x: float, y: float, width: float, taken: Sequence[Box], room: Box
) -> tuple[Box, tuple[float, float] | None, str]:
    tries = [(9, 0, "left"), (-9, 0, "right"), (0, 11, "center"), (0, -11, "center")]
    tries += [(7, 9, "left"), (7, -9, "left"), (-7, 9, "right"), (-7, -9, "right")]
    boxes = []
    for dx, dy, alignment in tries:
        left = x + dx - {"left": 0.0, "center": width / 2, "right": width}[alignment]
        box = (left, y + dy - 5, left + width, y + dy + 5)
        boxes.append(box)
        inside = box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]
        if inside and not any(overlap(box, other) for other in taken if not _own(other, x, y)):
            return box, (dx, dy), alignment
    return boxes[2], None, "center"


def _own(box: Box, x: float, y: float) -> bool:
    return box == (x - 5, y - 5, x + 5, y + 5)


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes (left, lower, right, upper) have a point in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
