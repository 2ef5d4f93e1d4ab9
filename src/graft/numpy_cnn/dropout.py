"""Dropout: in training a part of the numbers is left out, drawn anew for each batch."""

from __future__ import annotations

import numpy as np

from graft.numpy_cnn.layers import Layer, Shape


class Dropout(Layer):
    """Inputs and outputs (n, ...) of the same shape, after Srivastava et al. (2014).

    In training each number becomes 0 with probability `rate`, and all others are divided by 1 - rate (inverted
    scaling), so that inference, which leaves nothing out, sees the same mean. The gradient passes the same mask.

    Args:
        rate: from 0, which leaves nothing out, to below 1.
        whole_maps: whether a channel of an image is left out as a whole (Tompson et al. 2015), as neighbours in a map
            tell much of each other.
    """

    def __init__(self, rate: float, *, whole_maps: bool = False) -> None:
        super().__init__()
        self.rate, self.whole_maps = rate, whole_maps

    def kept(self, shape: Shape) -> int:
        """The mask."""
        return shape[-1] if self.whole_maps else int(np.prod(shape))

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The inputs times a new mask in training; as they are in inference."""
        self._mask: np.ndarray | None = None
        if random is None or self.rate == 0:
            return inputs
        shape = (len(inputs), *(1,) * (inputs.ndim - 2), inputs.shape[-1]) if self.whole_maps else inputs.shape
        kept = random.random(shape, np.float32) >= self.rate
        self._mask = kept.astype(inputs.dtype) / (1 - self.rate)
        return inputs * self._mask

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Through what was kept."""
        return gradient if self._mask is None else gradient * self._mask
