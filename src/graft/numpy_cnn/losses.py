"""Losses: the last activation and the cross-entropy in one, where the gradient is simply prediction minus target."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from graft.numpy_cnn.activations import sigmoid


class Loss(ABC):
    """The mean over a batch of each image's loss times its weight.

    It divides by the number of images, not by the sum of the weights, as Keras does.
    """

    def value(self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
        """The loss of scores (n, outputs) before the last activation; weights (n), None: each one."""
        losses = self._losses(scores, targets)
        return float(np.mean(losses if weights is None else losses * weights))

    def gradient(self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Of the loss to the scores, (n, outputs): (prediction - target) * weight / n."""
        difference = (self.predictions(scores) - self._smoothed(targets)) / len(scores)
        return difference if weights is None else difference * weights[:, None]

    @abstractmethod
    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities (n, outputs)."""

    @abstractmethod
    def _losses(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Of each image, (n)."""

    def _smoothed(self, targets: np.ndarray) -> np.ndarray:
        return targets


class SoftmaxCrossEntropy(Loss):
    """For one of several classes: p = exp(z) / sum of exp(z), and - sum over the classes of t * log(p).

    Args:
        label_smoothing: the part of each target that is shared by all classes (Szegedy et al. 2016), from 0 to below 1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """Of each class; every row adds up to one."""
        return np.asarray(np.exp(_log_softmax(scores)))

    def _losses(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.asarray(-(self._smoothed(targets) * _log_softmax(scores)).sum(axis=1))

    def _smoothed(self, targets: np.ndarray) -> np.ndarray:
        return targets * (1 - self.label_smoothing) + self.label_smoothing / targets.shape[1]


class SigmoidCrossEntropy(Loss):
    """For yes or no: p = 1 / (1 + exp(-z)), and - t * log(p) - (1 - t) * log(1 - p), the mean over the outputs."""

    def gradient(self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Of the loss to the scores, (n, outputs)."""
        return super().gradient(scores, targets, weights) / scores.shape[1]

    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """Of yes."""
        return sigmoid(scores)

    def _losses(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        # log(1 + exp(z)) - t * z is the same and does not overflow in this form.
        losses = np.maximum(scores, 0) - targets * scores + np.log1p(np.exp(-np.abs(scores)))
        return np.asarray(losses.mean(axis=1))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax; the largest score is taken off first, which changes nothing but overflow."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
