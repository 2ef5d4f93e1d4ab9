"""Convolution: the same small filters at every place of the maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, Shape, column_sums, glorot_uniform
from graft.numpy_cnn.windows import Pair, Windows


class Convolution(Layer):
    """Filters over maps: inputs (n, h, w, c), outputs (n, h', w', filters), kernel (f, f, c, filters), bias (filters).

    Along each axis h' = floor((h + 2p - f) / s) + 1. As in the lectures and in Keras the filter is not mirrored, which
    makes this a cross-correlation:

        y[i, j, k] = bias[k] + sum over u, v, c of x[i * s + u, j * s + v, c] * kernel[u, v, c, k]

    Every window becomes a row of a matrix (im2col), so that the whole layer is one matrix product with the kernel, and
    its gradients are two:

        dL/dkernel = columns.T @ dL/dy,    dL/dbias = sum of dL/dy,    dL/dcolumns = dL/dy @ kernel.T

    where dL/dx adds up what the windows have in common. At stride 1 this is the full convolution of dL/dy with the
    kernel turned by 180 degrees, as the lectures derive it.

    Args:
        filters: how many.
        size: height and width of a filter.
        strides: down and to the right.
        padding: valid, same or edge, as of Windows.
        use_bias: whether a number is added to each filter's map.
    """

    def __init__(
        self, filters: int, size: Pair, *, strides: Pair = (1, 1), padding: str = "valid", use_bias: bool = True
    ) -> None:
        super().__init__()
        self.filters, self.use_bias = filters, use_bias
        self.windows = Windows(size, strides, padding)

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Draw the kernel; the bias is zero."""
        counts = self.windows.count(shape)
        height, width = self.windows.size
        fans = height * width * shape[2], height * width * self.filters
        self.weights = {"kernel": glorot_uniform((height, width, shape[2], self.filters), fans, random, dtype)}
        if self.use_bias:
            self.weights["bias"] = np.zeros(self.filters, dtype)
        return (*counts, self.filters)

    def kept(self, shape: Shape) -> int:
        """The columns."""
        return int(np.prod((*self.windows.count(shape), *self.windows.size, shape[2])))

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The answer of every filter to every window."""
        padded = self.windows.pad(inputs)
        view = self.windows.over(padded)
        self._shapes = inputs.shape, padded.shape, view.shape
        self._columns = view.reshape(-1, self._kernel.shape[0])
        outputs = self._columns @ self._kernel
        if self.use_bias:
            outputs += self.weights["bias"]
        return outputs.reshape(*view.shape[:3], self.filters)

    def gradients(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Each filter's number is used at every place, so that its gradient is a sum over all of them."""
        rows = gradient.reshape(-1, self.filters)
        found = {"kernel": (self._columns.T @ rows).reshape(self.weights["kernel"].shape)}
        if self.use_bias:
            found["bias"] = column_sums(rows)
        return found

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """What each value contributed through all windows that it lies in."""
        shape, padded, windows = self._shapes
        columns = (gradient.reshape(-1, self.filters) @ self._kernel.T).reshape(windows)
        result = np.zeros(padded, columns.dtype)
        target = self.windows.over(result, writeable=True)
        for place in self.windows.places():
            target[:, :, :, *place] += columns[:, :, :, *place]
        return self.windows.unpad(result, shape[1:])

    @property
    def _kernel(self) -> np.ndarray:
        """The kernel as a matrix, one filter per column."""
        return self.weights["kernel"].reshape(-1, self.filters)
