"""Activations: the same function of every number, whose derivative follows from what it gave."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from graft.numpy_cnn.layers import Layer


class Activation(Layer):
    """A function of each number by itself; inputs and outputs (n, ...) have the same shape."""

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The function's values."""
        self._outputs = self._value(inputs)
        return self._outputs

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """dL/dx = dL/dy * f'(x)."""
        return gradient * self._derivative(self._outputs)

    @abstractmethod
    def _value(self, inputs: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _derivative(self, outputs: np.ndarray) -> np.ndarray:
        """At the inputs that gave these outputs."""


class ReLU(Activation):
    """max(0, x); the derivative is 1 above zero and 0 elsewhere, at zero itself, too."""

    def _value(self, inputs: np.ndarray) -> np.ndarray:
        return np.maximum(inputs, 0)

    def _derivative(self, outputs: np.ndarray) -> np.ndarray:
        return outputs > 0


class Tanh(Activation):
    """Hyperbolic tangent, from -1 to 1; the derivative is 1 - y**2."""

    def _value(self, inputs: np.ndarray) -> np.ndarray:
        return np.tanh(inputs)

    def _derivative(self, outputs: np.ndarray) -> np.ndarray:
        return 1 - np.square(outputs)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)), from 0 to 1; the derivative is y * (1 - y)."""

    def _value(self, inputs: np.ndarray) -> np.ndarray:
        return sigmoid(inputs)

    def _derivative(self, outputs: np.ndarray) -> np.ndarray:
        return outputs * (1 - outputs)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by the tangent, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))
