"""The images that the data report shows: a few of each class, and those that were found more than once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image

from graft.reporting.data.tables import PreparedData, usable

SAMPLE_CLASSES, SAMPLES = 40, 8
MOST_ROWS, FEW_CLASSES = 3, 10  # of samples, where there are so few classes that there is room
GROUPS, MEMBERS, PAIRS = 30, 8, 12
SIDE, SMALL_SIDE, MANY = 96, 64, 200  # px of a shown image; where there are many, the small ones keep the page light
LOSSLESS_SIDE = 32  # px up to which exact pixels cost no more than approximate ones


@dataclass(frozen=True)
class Tile:
    """One shown image; kind is empty, or why it stands where it stands."""

    address: str
    source: str
    label: str
    status: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """Some training images of a class that has so many."""

    label: str
    count: int
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Group:
    """Images of one picture, the leader first; hidden are the members that are not shown."""

    tiles: Sequence[Tile]
    hidden: int


@dataclass(frozen=True)
class Gallery:
    """All that is shown, and how much there is of what is shown in part."""

    samples: Sequence[Sample]
    groups: Sequence[Group]
    pairs: Sequence[Group]
    all_groups: int
    all_pairs: int


def choose(data: PreparedData, copies: pd.DataFrame) -> Gallery:
    """Samples of each class, the lowest image ids first, which is a random order; and the largest groups of copies.

    Samples are training images, so that the held-out ones are not looked at.

    Args:
        data: legible.
        copies: from tables.copies.
    """
    training = data.images[data.images["status"] == "train"].sort_values("image_id", kind="stable")
    counts = usable(data.images)["label"].value_counts()
    shown = sorted(counts.index)[:SAMPLE_CLASSES]
    most = SAMPLES * min(MOST_ROWS, max(1, FEW_CLASSES // len(shown)))
    samples = {label: rows.index[:most] for label, rows in training.groupby("label") if label in set(shown)}
    members = copies[copies["kind"] != "bridge"]
    sizes = members.groupby("leading").size().sort_index()
    largest = sizes[sizes > 1].sort_values(ascending=False, kind="stable")
    groups = {leading: members[members["leading"] == leading] for leading in largest.index[:GROUPS]}
    pairs = copies[copies["kind"] == "bridge"]
    tiles = sum(map(len, samples.values())) + sum(min(len(rows), MEMBERS) for rows in groups.values()) + 2 * PAIRS
    side = SIDE if tiles <= MANY else SMALL_SIDE
    return Gallery(
        [Sample(label, int(counts[label]), _tiles(data, side, samples.get(label, ()))) for label in shown],
        [
            Group(_tiles(data, side, rows["row"][:MEMBERS], rows["kind"][:MEMBERS]), max(0, len(rows) - MEMBERS))
            for rows in groups.values()
        ],
        [Group(_tiles(data, side, pair), 0) for pair in pairs[["leading", "row"]].head(PAIRS).to_numpy()],
        len(largest),
        len(pairs),
    )


def _tiles(data: PreparedData, side: int, rows: ArrayLike, kinds: Sequence[str] | None = None) -> list[Tile]:
    where = np.asarray(rows, int)
    if not len(where):
        return []
    facts = data.images.iloc[where]
    return [
        Tile(to_address(picture, side), source, label, status, kind)
        for picture, source, label, status, kind in zip(
            data.pictures[where],
            *(facts[column].tolist() for column in ("source", "label", "status")),
            [""] * len(where) if kinds is None else kinds,
            strict=True,
        )
    ]


def to_address(picture: np.ndarray, side: int) -> str:
    """A uint8 (height, width, 3) image as a data address, shrunk to fit the side."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", lossless=max(image.size) <= LOSSLESS_SIDE, quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
