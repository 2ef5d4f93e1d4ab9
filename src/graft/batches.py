"""The batches of an epoch: which rows, in which order, with which labels and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graft.feature_sets import Rows as Array

RESIDENT_BYTES = 160 * 2**20  # rows up to this size are read once and stay in memory while a phase lasts

Batch = tuple[Any, ...]  # inputs, one-hot labels and, where classes weigh differently, weights


@dataclass(frozen=True)
class Rows:
    """Inputs and labels of the same images, once for each view.

    Attributes:
        inputs: pixels or activations, of shape (rows, ...).
        views: row numbers in inputs of each view; all views list the same images in the same order.
        labels: class numbers of those images, of shape (n,).
        class_weights: how much an image of each class number counts in the training loss; None: all the same.
    """

    inputs: Array
    views: Sequence[np.ndarray]
    labels: np.ndarray
    class_weights: Mapping[int, float] | None = None


class _Resident:
    """Rows as one tensor, from which a batch is gathered without a copy in Python."""

    def __init__(self, inputs: Array) -> None:
        import tensorflow as tf

        self.row_shape, self.dtype = inputs.row_shape, inputs.dtype
        self._tensor = tf.constant(inputs[:])

    def __len__(self) -> int:
        return int(self._tensor.shape[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        import tensorflow as tf

        return self._tensor[rows] if isinstance(rows, slice) else tf.gather(self._tensor, rows)


def resident(inputs: Array, most: int = RESIDENT_BYTES) -> Array:
    """The same rows, in memory where they take at most so many bytes; else as they are, read batch by batch."""
    size = len(inputs) * int(np.prod(inputs.row_shape)) * np.dtype(inputs.dtype).itemsize
    return inputs if size > most or isinstance(inputs, _Resident) else _Resident(inputs)


def training_batches(rows: Rows, classes: int, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Shuffled batches of an epoch, counted from 0: view e mod V, in an order drawn from (seed, e) alone.

    Every image occurs once; the last batch is smaller rather than dropped.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(rows.labels))
    yield from _batches(rows, classes, batch_size, order, rows.views[epoch % len(rows.views)])


def validation_batches(rows: Rows, classes: int, batch_size: int) -> Iterator[Batch]:
    """The first view's images in order, once."""
    yield from _batches(rows, classes, batch_size, np.arange(len(rows.labels)), rows.views[0])


def _batches(rows: Rows, classes: int, batch_size: int, order: np.ndarray, view: np.ndarray) -> Iterator[Batch]:
    one_hot = np.eye(classes, dtype=np.float32)
    weights = rows.class_weights and np.array([rows.class_weights.get(k, 1.0) for k in range(classes)], np.float32)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        labels = rows.labels[chosen]
        batch = (rows.inputs[view[chosen]], one_hot[labels])
        yield batch if weights is None else (*batch, weights[labels])
