"""Which activations of a frozen base are kept: what costs the fewest multiply-adds within a bound on the disk.

Only counts, multiply-adds and bytes decide, never a measured speed, so that a plan is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import halving
from graft.errors import GraftError
from graft.feature_sets import IMAGE, TOP
from graft.sections import MOST_CUTS, Backbone, FeatureStorage

if TYPE_CHECKING:
    from graft.vector_plans import VectorPlan

# Of a kept row, always counted, so that a plan is the same on every machine: where DVC links, there is one fewer, and
# features.store_gb may leave less in the store, which every row passes all the same.
COPIES = 3  # the stage's output, DVC's cache of it and the store
BESIDE = 2 * 4 + 20  # bytes: a checksum in the output and in the cache, key and checksum in the store
BACKWARD = 2  # passes forward that one backward pass costs


class PlanError(GraftError):
    """There is no plan for what was asked."""


@dataclass(frozen=True)
class Workload:
    """How many rows pass, and how often at most: early stopping ends before.

    Attributes:
        train: training images; each has `views` rows, of which an epoch sees one.
        validation: images, one row each.
        test: images, one row each.
        views: of each training image.
        epochs: of phase 1; heads of a grid pass together.
        unfrozen_epochs: of phase 2 at each cut, those of all candidates of a grid together.
        svm: whether a support vector machine is fitted, which takes every row at the top.
    """

    train: int
    validation: int
    test: int
    views: int
    epochs: int
    unfrozen_epochs: float
    svm: bool = True

    @property
    def rows(self) -> int:
        """Every view of every image."""
        return self.train * self.views + self.validation + self.test


@dataclass(frozen=True)
class Segments:
    """A base measured for one row, between the points where its rows can be kept.

    Attributes:
        points: `image`, the cuts by depth, `top`.
        multiply_adds: from each point to the next.
        elements: numbers in a row at each point after the image.
    """

    points: tuple[str, ...]
    multiply_adds: tuple[int, ...]
    elements: tuple[int, ...]

    @property
    def cuts(self) -> tuple[str, ...]:
        """The points between image and top."""
        return self.points[1:-1]

    def between(self, start: str, end: str) -> int:
        """Multiply-adds of one row from one point to a later one."""
        return sum(self.multiply_adds[self.points.index(start) : self.points.index(end)])

    def size(self, point: str) -> int:
        """Numbers in a row at a point."""
        return self.elements[self.points.index(point) - 1]

    def nearest(self, stored: Sequence[str], point: str) -> str:
        """Where rows are at hand last before a point, or at it, when these are kept and the images always are."""
        reach = self.points[: self.points.index(point) + 1]
        return next(candidate for candidate in reversed(reach) if candidate == IMAGE or candidate in stored)


@dataclass(frozen=True)
class Option:
    """What keeping some points costs.

    Attributes:
        stored: the points kept, by depth.
        features: multiply-adds of computing them.
        phase_1: multiply-adds in the frozen base while heads are trained.
        phase_2: multiply-adds in the base while layers after a cut, or all, are trained.
        svm: multiply-adds in the frozen base for the support vector machine.
        bytes: of the disk, every copy counted.
        fits: whether the bound allows them.
    """

    stored: tuple[str, ...]
    features: int
    phase_1: int
    phase_2: int
    svm: int
    bytes: int
    fits: bool

    @property
    def multiply_adds(self) -> int:
        """All of them."""
        return self.features + self.phase_1 + self.phase_2 + self.svm


@dataclass(frozen=True)
class Plan:
    """The chosen option, and what it was chosen from.

    Attributes:
        chosen: the cheapest that fits.
        options: every one, the cheapest first.
        segments: the base they are about.
        workload: the rows they are about.
        itemsize: bytes of a kept number.
        max_gb: the bound, in 10^9 bytes.
        vectors: of a support vector machine that stands on other layers than the top alone, beside all this; else None.
    """

    chosen: Option
    options: tuple[Option, ...]
    segments: Segments
    workload: Workload
    itemsize: int
    max_gb: float
    vectors: VectorPlan | None = None

    @property
    def stored(self) -> tuple[str, ...]:
        """The points to keep, by depth."""
        return self.chosen.stored

    @property
    def output_bytes(self) -> int:
        """Of the kept rows, once."""
        return self.workload.rows * self.itemsize * sum(map(self.segments.size, self.stored))

    def to_json(self) -> dict[str, Any]:
        """What the stage's outputs consist of, and nothing that could change while they stay as they are.

        Numbers of epochs and the bound may lead to the same plan; then no later stage has anything new to read.
        """
        points = {
            point: {
                "elements": self.segments.size(point),
                "multiply_adds": self.segments.between(IMAGE, point),
                "bytes": self.workload.rows * self.segments.size(point) * self.itemsize,
            }
            for point in self.stored
        }
        return {"stored": list(self.stored), "rows": self.workload.rows, "points": points}


def choose(segments: Segments, workload: Workload, *, max_gb: float, itemsize: int) -> Plan:
    """The plan with the fewest multiply-adds, of several the one with the fewest bytes, that the bound allows.

    Every set of points is weighed; to keep none always fits.

    Args:
        segments: of the base, from `costs.segments`.
        workload: what it is for.
        max_gb: bound on the disk in 10^9 bytes, every copy counted.
        itemsize: bytes of a kept number: 4 (float32) or 2 (float16).

    Raises:
        PlanError: there are more cuts than can be weighed.
    """
    if len(segments.cuts) > MOST_CUTS:
        raise PlanError(f"frozen_until may list at most {MOST_CUTS} layers, received {len(segments.cuts)}")
    can_be_kept = segments.points[1:]
    sets = [kept for count in range(len(can_be_kept) + 1) for kept in combinations(can_be_kept, count)]
    options = [_option(segments, workload, kept, itemsize, max_gb) for kept in sets]
    ranked = sorted(options, key=lambda option: (option.multiply_adds, option.bytes))  # stable: else fewer points first
    chosen = next(option for option in ranked if option.fits)
    return Plan(chosen, tuple(ranked), segments, workload, itemsize, max_gb)


def make_plan(
    storage: FeatureStorage, row: Backbone, segments: Segments, *, train: int, validation: int, test: int, views: int
) -> Plan:
    """The plan of one backbone's row for so many images.

    Raises:
        PlanError: as choose.
    """
    unfrozen_epochs = halving.epochs_per_cut(row)
    workload = Workload(train, validation, test, views, row.finetune.epochs, unfrozen_epochs)
    return choose(segments, workload, max_gb=storage.max_gb, itemsize=np.dtype(storage.storage).itemsize)


def _option(segments: Segments, workload: Workload, stored: tuple[str, ...], itemsize: int, max_gb: float) -> Option:
    to_top = segments.between(segments.nearest(stored, TOP), TOP)
    epochs = (tail_epoch(segments, workload, stored, cut) for cut in segments.cuts or (IMAGE,))
    size = workload.rows * sum(COPIES * itemsize * segments.size(point) + BESIDE for point in stored)
    return Option(
        stored=stored,
        features=workload.rows * segments.between(IMAGE, stored[-1]) if stored else 0,
        phase_1=workload.epochs * (workload.train + workload.validation) * to_top,
        phase_2=round(workload.unfrozen_epochs * sum(epochs)),
        svm=workload.rows * to_top if workload.svm else 0,
        bytes=size,
        fits=size <= max_gb * 10**9,
    )


def tail_epoch(segments: Segments, workload: Workload, stored: Sequence[str], cut: str) -> int:
    """Multiply-adds in the base of one epoch that trains the layers after a cut (after `image`: the whole base)."""
    up_to_cut = segments.between(segments.nearest(stored, cut), cut)
    tail = segments.between(cut, TOP)
    return workload.train * (up_to_cut + (1 + BACKWARD) * tail) + workload.validation * (up_to_cut + tail)


def describe(plan: Plan) -> str:
    """What is kept and why, in one line."""
    chosen, workload = plan.chosen, plan.workload
    training = chosen.multiply_adds - chosen.features
    unfit = sum(not option.fits for option in plan.options)
    bound = f"{plan.max_gb:g} GB" + (f", which {unfit} exceed" if unfit else "")
    return (
        f"keeps {' and '.join(plan.stored) or 'nothing'} of {workload.rows:,} rows: "
        f"{amount(plan.output_bytes, 'B')} ({amount(chosen.bytes, 'B')} with every copy); "
        f"{amount(chosen.features, 'MAC')} now, {amount(training, 'MAC')} in training at most; "
        f"the cheapest of {len(plan.options)} options within {bound}"
    )


def amount(number: float, unit: str) -> str:
    """A quantity in three digits and the SI prefix that fits: 0 B, 4.10 MB, 51.4 GMAC."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    step = 0
    while abs(number) >= 999.5 and step < len(prefixes) - 1:
        number, step = number / 1000, step + 1
    digits = 0 if step == 0 or abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f} {prefixes[step]}{unit}"
