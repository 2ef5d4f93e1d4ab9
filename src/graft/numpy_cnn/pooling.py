"""Pooling: one number for each window of each map."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, LayerError, Shape
from graft.numpy_cnn.windows import Pair, Windows


class Pooling(Layer):
    """Maps (n, h, w, c) to maps (n, h', w', c), each channel for itself, with h' = floor((h + 2p - f) / s) + 1.

    Args:
        size: height and width of a window.
        strides: down and to the right; None: the size, so that windows lie side by side.
        padding: valid or same; padded places never count.
    """

    def __init__(self, size: Pair, *, strides: Pair | None = None, padding: str = "valid") -> None:
        super().__init__()
        if padding not in ("valid", "same"):
            raise LayerError(f"padding of pooling must be valid or same, received {padding!r}")
        self.windows = Windows(size, strides or size, padding)

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """There are no weights."""
        return (*self.windows.count(shape), shape[2])

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """What each window gives back to its places."""
        result = np.zeros(self._padded_shape, gradient.dtype)
        self._share(gradient, self.windows.over(result, writeable=True))
        return self.windows.unpad(result, self._shape[1:])

    def _view(self, inputs: np.ndarray, fill: float) -> np.ndarray:
        """The windows over a batch, whose shapes are kept for backward."""
        padded = self.windows.pad(inputs, fill)
        self._shape, self._padded_shape = inputs.shape, padded.shape
        return self.windows.over(padded)

    @abstractmethod
    def _share(self, gradient: np.ndarray, target: np.ndarray) -> None:
        """Add to the windows of the inputs' gradient, one place at a time."""


class MaxPooling(Pooling):
    """The largest number of each window; its gradient goes where that stood, of several to the first as in Keras."""

    def kept(self, shape: Shape) -> int:
        """The padded inputs; a frame around them is not counted."""
        return int(np.prod(shape)) if self.windows.padding == "same" else 0

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The maxima."""
        self._inputs = self._view(inputs, -np.inf)
        first, *others = self.windows.places()
        outputs = self._inputs[:, :, :, *first].copy()
        for place in others:
            np.maximum(outputs, self._inputs[:, :, :, *place], out=outputs)
        self._outputs = outputs
        return outputs

    def _share(self, gradient: np.ndarray, target: np.ndarray) -> None:
        free = np.ones(gradient.shape, bool)
        for place in self.windows.places():
            largest = free & (self._inputs[:, :, :, *place] == self._outputs)
            target[:, :, :, *place] += gradient * largest
            free &= ~largest


class AveragePooling(Pooling):
    """The mean of each window, over the places that are not padded; its gradient is shared by them equally."""

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Count the places of each window."""
        inside = self.windows.over(self.windows.pad(np.ones((1, *shape[:2], 1), dtype)))
        self._counts = inside.sum(axis=(3, 4))
        return super().build(shape, random, dtype)

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The means."""
        view = self._view(inputs, 0.0)
        first, *others = self.windows.places()
        outputs = view[:, :, :, *first].copy()
        for place in others:
            outputs += view[:, :, :, *place]
        outputs /= self._counts
        return outputs

    def _share(self, gradient: np.ndarray, target: np.ndarray) -> None:
        share = gradient / self._counts
        for place in self.windows.places():
            target[:, :, :, *place] += share
