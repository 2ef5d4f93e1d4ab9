"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class SGD:
    """Moves weights against their gradients, by a velocity of each.

    With w a weight, v its velocity and r the learning rate:

        v = momentum * v - r * dL/dw
        w = w + v

    or with Nesterov's momentum, which looks one step ahead (Sutskever et al. 2013), w = w + momentum * v - r * dL/dw.

    Attributes:
        velocities: of the weights, in their order; zero at first.
        steps: how many were taken.

    Args:
        weights: changed in place.
        momentum: from 0, plain gradient descent, to below 1.
        nesterov: whether it looks ahead.
        weight_decay: decoupled: before a step each weight shrinks by r * weight_decay of itself.
        decayed: whether each weight does; none where there is no decay.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        *,
        momentum: float,
        nesterov: bool,
        weight_decay: float = 0.0,
        decayed: Sequence[bool] = (),
    ) -> None:
        self._weights, self._momentum, self._nesterov = list(weights), momentum, nesterov
        self._weight_decay, self._decayed = weight_decay, list(decayed) or [False] * len(self._weights)
        self.velocities = [np.zeros_like(weight) for weight in self._weights]
        self.steps = 0

    def step(self, gradients: Sequence[np.ndarray], learning_rate: float) -> None:
        """Take one step; the gradients are in the order of the weights."""
        found = zip(self._weights, self.velocities, gradients, self._decayed, strict=True)
        for weight, velocity, gradient, decayed in found:
            if decayed and self._weight_decay:
                weight -= weight * (self._weight_decay * learning_rate)
            change = gradient * learning_rate
            velocity *= self._momentum
            velocity -= change
            weight += self._momentum * velocity - change if self._nesterov else velocity
        self.steps += 1
