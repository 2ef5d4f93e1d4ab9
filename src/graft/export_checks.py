"""An exported model beside the one that it was made from, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graft.export_formats import Apply, ExportError
from graft.serving import BATCH

LIMIT = 1e-4  # of the difference between two probabilities; float32 in another order of sums differs by about 1e-6
LIMIT_OF_GPU = 1e-2  # to predictions that a GPU made, where TensorFlow keeps ten bits of what it multiplies


@dataclass(frozen=True)
class Agreement:
    """How an exported model compares with its original on images that neither was trained on.

    Attributes:
        images: how many.
        difference: the largest between two probabilities, undecided images aside.
        saved_difference: the same to the predictions that training saved.
        agreement: share of the images of which both say the same class.
        undecided: images left aside because the original itself may decide them either way.
    """

    images: int
    difference: float
    saved_difference: float
    agreement: float
    undecided: int


def check(
    exported: Apply, original: Apply, images: Any, rows: np.ndarray, *, saved: np.ndarray, undecided: Apply
) -> Agreement:
    """Every image through both, in batches of several sizes.

    Args:
        exported: as load_exported gives it.
        original: the same of the model that it was made from.
        images: indexed by an array of row numbers.
        rows: the images to look at, at least one.
        saved: the probabilities (n, classes) that training saved of these rows.
        undecided: images to whether the original may decide them either way, booleans (n,).

    Raises:
        ExportError: a probability differs by LIMIT or more, or a class does whose probability is not that near to
            the next.
    """
    starts = range(0, len(rows), BATCH)
    batches = [rows[start : start + BATCH] for start in starts]
    given = np.concatenate([exported(images[batch]) for batch in batches])
    expected = np.concatenate([original(images[batch]) for batch in batches])
    if given.shape != expected.shape:
        raise ExportError(f"the exported model must give probabilities {expected.shape}, received {given.shape}")
    given[0] = exported(images[rows[:1]])[0]  # who asks for one image alone gets the same

    differences = np.stack([np.abs(given - other).max(axis=1) for other in (expected, saved)], axis=1)
    limits = np.array([LIMIT, _limit_of_saved()])
    far = np.flatnonzero(~(differences < limits).all(axis=1))  # also where one is not a number
    aside = np.zeros(len(rows), bool)
    if len(far):
        aside[far] = undecided(images[rows[far]])
    same = given.argmax(axis=1) == expected.argmax(axis=1)
    best = np.sort(expected, axis=1)[:, -2:]
    wrong = ~same & ~aside & (best[:, 1] - best[:, 0] >= LIMIT)
    if (~(differences[~aside] < limits)).any() or wrong.any():
        raise ExportError(_refusal(differences[~aside], limits, int(wrong.sum())))
    largest = differences[~aside].max(axis=0, initial=0.0)
    return Agreement(len(rows), float(largest[0]), float(largest[1]), float(same.mean()), int(aside.sum()))


def _limit_of_saved() -> float:
    import tensorflow as tf

    return LIMIT_OF_GPU if tf.config.list_physical_devices("GPU") else LIMIT


def _refusal(differences: np.ndarray, limits: np.ndarray, wrong: int) -> str:
    counts = (~(differences < limits)).sum(axis=0)
    largest = differences.max(axis=0)
    parts = [
        f"by up to {largest[place]:.2g} from {what} ({counts[place]} of {len(differences)} images reach the limit of "
        f"{limits[place]:g})"
        for place, what in enumerate(("the model's own", "those that training saved"))
        if counts[place]
    ]
    parts += [f"in the class of {wrong} images"] if wrong else []
    return f"the exported model's probabilities differ {' and '.join(parts)}; nothing was written"
