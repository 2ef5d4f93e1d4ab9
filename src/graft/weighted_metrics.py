"""Metrics of one set of predictions under many weightings of its images at once, as a bootstrap needs them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from graft.metrics import losses

MEANS = ("accuracy", "top_k_accuracy", "log_loss", "brier")  # over images of what each one gives
BY_CLASS = ("balanced_accuracy", "macro_f1")
RANKED = ("roc_auc", "average_precision")


@dataclass(frozen=True)
class ClassCounts:
    """Weights of the images by class, each (classes, resamples): rightly predicted, predicted, and present."""

    right: np.ndarray
    chosen: np.ndarray
    actual: np.ndarray


class WeightedMetrics:
    """Metrics as functions of the images' weights; a metric of no weight at all is NaN.

    ROC AUC and average precision are one against the rest, as scikit-learn's roc_auc_score and average_precision_score
    define them with sample_weight, and averaged over the classes that occur without being all there is. An image is
    right among the top k where fewer than k classes are more probable than its own, ties going to the lower number.
    The others are as in metrics.classification_metrics.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, metrics: Collection[str], top_k: int) -> None:
        """Sort and compare once, for all weightings.

        Args:
            labels: class numbers (n,).
            probabilities: of shape (n, classes).
            metrics: among MEANS, BY_CLASS and RANKED.
            top_k: of top_k_accuracy.
        """
        self._metrics = metrics
        self._labels, self._classes = labels, probabilities.shape[1]
        self._predicted = probabilities.argmax(axis=1)
        log_losses, briers = losses(labels, probabilities)
        self._means = {
            "accuracy": (self._predicted == labels).astype(np.float64),
            "top_k_accuracy": _among_first(labels, probabilities, top_k),
            "log_loss": log_losses,
            "brier": briers,
        }
        occurring = np.unique(labels)
        asked = bool(set(metrics) & set(RANKED)) and len(occurring) > 1
        self._rankings = [_Ranking(labels == label, probabilities[:, label]) for label in occurring if asked]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """By metric, of shape (resamples,), for weights (n, resamples)."""
        totals = weights.sum(axis=0)
        found = {name: self._means[name] @ weights / totals for name in MEANS if name in self._metrics}
        if set(BY_CLASS) & set(self._metrics):
            counts = self.counts(weights)
            concerned = counts.chosen + counts.actual
            found["balanced_accuracy"] = _mean_ratio(counts.right, counts.actual)
            found["macro_f1"] = _mean_ratio(2 * counts.right, concerned)
        if set(RANKED) & set(self._metrics):
            found |= self._ranked(weights)
        return {name: found[name] for name in self._metrics}

    def counts(self, weights: np.ndarray) -> ClassCounts:
        """Of each class, for weights (n, resamples)."""
        right = self._predicted == self._labels
        return ClassCounts(
            right=_by_class(self._labels[right], self._classes) @ weights[right],
            chosen=_by_class(self._predicted, self._classes) @ weights,
            actual=_by_class(self._labels, self._classes) @ weights,
        )

    def _ranked(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        if not self._rankings:
            return {name: np.full(weights.shape[1], np.nan) for name in RANKED}
        parts = [ranking.areas(weights) for ranking in self._rankings]
        numerators, precisions, pairs, own = (np.stack(part) for part in zip(*parts, strict=True))
        return {
            "roc_auc": _mean_ratio(numerators, pairs),
            "average_precision": _mean_ratio(precisions, np.where(pairs > 0, own, 0)),
        }


class _Ranking:
    """The images in falling order of one class's probability."""

    def __init__(self, own: np.ndarray, scores: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        falling = -scores[self._order]
        self._places = np.flatnonzero(own[self._order])  # of the class's own images
        # Of each own image, where the images begin and end that have its very score: all of them, and the own ones.
        self._first = np.searchsorted(falling, falling[self._places])
        self._last = np.searchsorted(falling, falling[self._places], side="right")
        self._own_first = np.searchsorted(self._places, self._first)
        self._own_last = np.searchsorted(self._places, self._last)

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """ROC AUC x pairs, average precision x own weight, weight of the pairs, own weight; each (resamples,)."""
        all_above = _cumulated(weights, self._order)
        own_above = _cumulated(weights, self._order[self._places])
        own = np.diff(own_above, axis=0)
        own_total, total = own_above[-1], all_above[-1]
        others = total - own_total
        all_last, own_last = all_above[self._last], own_above[self._own_last]
        others_last = all_last - own_last
        others_first = all_above[self._first] - own_above[self._own_first]
        below = others - (others_first + others_last) / 2  # of those with the same score, half
        precision = own_last / np.where(all_last > 0, all_last, 1)
        return (own * below).sum(axis=0), (own * precision).sum(axis=0), own_total * others, own_total


def _cumulated(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... of these rows, of shape (rows + 1, resamples)."""
    sums = np.empty((len(rows) + 1, weights.shape[1]))
    sums[0] = 0
    np.cumsum(weights[rows], axis=0, out=sums[1:])
    return sums


def _by_class(classes: np.ndarray, count: int) -> csr_array:
    """Sums image weights by class: of shape (count, images)."""
    images = np.arange(len(classes))
    return csr_array((np.ones(len(classes)), (classes, images)), shape=(count, len(classes)))


def _mean_ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Mean over the classes (classes, resamples) whose denominator is not zero; NaN where all are."""
    defined = denominators > 0
    ratios = np.where(defined, numerators, 0) / np.where(defined, denominators, 1)
    count = defined.sum(axis=0)
    return np.where(count > 0, ratios.sum(axis=0) / np.maximum(count, 1), np.nan)


def _among_first(labels: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    given = probabilities[np.arange(len(labels)), labels][:, None]
    ahead = (probabilities > given) | ((probabilities == given) & (np.arange(probabilities.shape[1]) < labels[:, None]))
    return (ahead.sum(axis=1) < k).astype(np.float64)
