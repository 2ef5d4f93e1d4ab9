"""Fully connected layers, and what turns maps into their inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, LayerError, Shape, glorot_uniform


class Dense(Layer):
    """Every output from every input: inputs (n, features), outputs (n, units), kernel (features, units), bias (units).

        y = x @ kernel + bias
        dL/dkernel = x.T @ dL/dy,    dL/dbias = sum of dL/dy over the images,    dL/dx = dL/dy @ kernel.T

    Args:
        units: how many outputs.
        use_bias: whether there is a bias.
    """

    def __init__(self, units: int, *, use_bias: bool = True) -> None:
        super().__init__()
        self.units, self.use_bias = units, use_bias

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Draw the kernel; the bias is zero."""
        if len(shape) != 1:
            raise LayerError(f"a dense layer needs a vector per image (add Flatten), received shape {shape}")
        self.weights = {"kernel": glorot_uniform((*shape, self.units), (*shape, self.units), random, dtype)}
        if self.use_bias:
            self.weights["bias"] = np.zeros(self.units, dtype)
        return (self.units,)

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The weighted sums."""
        self._inputs = inputs
        outputs = inputs @ self.weights["kernel"]
        if self.use_bias:
            outputs += self.weights["bias"]
        return outputs

    def gradients(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Sums over the images."""
        found = {"kernel": self._inputs.T @ gradient}
        if self.use_bias:
            found["bias"] = gradient.sum(axis=0)
        return found

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """What each input contributed to all outputs."""
        return gradient @ self.weights["kernel"].T


class Flatten(Layer):
    """Maps (n, h, w, c) to vectors (n, h * w * c), row by row, the channels of a place together; the gradient back."""

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """There are no weights."""
        return (int(np.prod(shape)),)

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The same numbers in one row per image."""
        self._shape = inputs.shape
        return inputs.reshape(len(inputs), -1)

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """The same numbers in the shape of the maps."""
        return gradient.reshape(self._shape)
