"""What becomes of pixels before the first layer that learns, as the saved Keras network does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, Shape

LUMINANCE = (0.2989, 0.5870, 0.1140)  # of red, green and blue in grey: keras.ops.image.rgb_to_grayscale


class Rescaling(Layer):
    """scale * x + offset of every number, inputs and outputs (n, ...)."""

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The rescaled numbers."""
        return inputs * self.scale + self.offset

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Scaled alike."""
        return gradient * self.scale


class Grayscale(Layer):
    """Colours (n, h, w, 3) to luminance (n, h, w, 1)."""

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """There are no weights that learn."""
        self._luminance = np.array(LUMINANCE, dtype)
        return (*shape[:2], 1)

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The weighted sum of the colours."""
        return (inputs @ self._luminance)[..., None]

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Each colour by its weight."""
        return gradient * self._luminance


class Resizing(Layer):
    """Maps (n, h, w, c) to (n, size, size, c), bilinearly, with antialiasing where they shrink.

    Each axis is a matrix product: an output is the mean of the inputs near its centre, weighted by a triangle that
    reaches to the next input, or to the next output where these lie wider apart.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """There are no weights that learn."""
        self._rows, self._columns = (_triangles(count, self.size).astype(dtype) for count in shape[:2])
        return (self.size, self.size, shape[2])

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The maps at their new size."""
        return _along_both(inputs, self._rows, self._columns)

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Through the transposed matrices."""
        return _along_both(gradient, self._rows.T, self._columns.T)


def _triangles(inputs: int, outputs: int) -> np.ndarray:
    """The share of each input in each output, (outputs, inputs)."""
    step = inputs / outputs
    centres = (np.arange(outputs) + 0.5) * step - 0.5
    shares = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(inputs)) / max(step, 1))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _along_both(maps: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    count, height, width, channels = maps.shape
    tall = (rows @ maps.reshape(count, height, -1)).reshape(-1, width, channels)
    return (columns @ tall).reshape(count, len(rows), len(columns), channels)
