"""Batch normalisation: each channel at mean zero and variance one, then scaled and shifted as training finds best."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, Shape, column_sums


class BatchNormalization(Layer):
    """Inputs and outputs (n, ..., c); gamma, beta, moving mean and moving variance (c), after Ioffe and Szegedy (2015).

        z = (x - mean) / sqrt(variance + epsilon),    y = gamma * z + beta

    as in the paper and in Keras. The lecture writes (x - mean) / (sigma + epsilon), epsilon beside the standard
    deviation; where the variance is far above epsilon both are the same.

    In training mean and variance are those of the batch, over all images and places, the variance without Bessel's
    correction. The moving ones follow: moving = momentum * moving + (1 - momentum) * batch's, and take their place in
    inference. With m numbers per channel, and since mean and variance depend on every input, the gradient in training
    is

        dL/dx = gamma / sqrt(variance + epsilon) * (dL/dy - mean of dL/dy - z * mean of (dL/dy * z))

    Args:
        momentum: of the moving statistics, from 0 to 1.
        epsilon: what keeps the divisor from zero.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Scale one and shift zero; the moving statistics begin at those of a standardised channel."""
        channels = shape[-1]
        self.weights = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
        self.statistics = {"moving_mean": np.zeros(channels, dtype), "moving_variance": np.ones(channels, dtype)}
        return shape

    def kept(self, shape: Shape) -> int:
        """The standardised inputs."""
        return int(np.prod(shape))

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """Normalised by the batch in training, whatever is drawn there, and by the moving statistics in inference."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        self._in_training = random is not None
        mean, variance = self.statistics.values()
        if self._in_training:
            mean = _mean(rows)
            variance = _mean(np.square(rows - mean))
            self._follow(mean, variance)
        self._scale = 1 / np.sqrt(variance + self.epsilon)
        self._standardized = (rows - mean) * self._scale
        outputs = self._standardized * self.weights["gamma"] + self.weights["beta"]
        return outputs.reshape(inputs.shape)

    def gradients(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Sums over all images and places."""
        rows = gradient.reshape(self._standardized.shape)
        return {"gamma": column_sums(rows * self._standardized), "beta": column_sums(rows)}

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """In inference the statistics are constants, so that only the scale is left of the gradient above."""
        rows = gradient.reshape(self._standardized.shape)
        if self._in_training:
            rows = rows - _mean(rows) - self._standardized * _mean(rows * self._standardized)
        return (rows * (self.weights["gamma"] * self._scale)).reshape(gradient.shape)

    def _follow(self, mean: np.ndarray, variance: np.ndarray) -> None:
        for moving, of_batch in zip(self.statistics.values(), (mean, variance), strict=True):
            moving *= self.momentum
            moving += (1 - self.momentum) * of_batch


def _mean(rows: np.ndarray) -> np.ndarray:
    return column_sums(rows) / len(rows)
