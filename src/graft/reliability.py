"""Whether confidences are right as often as they say: reliability bins, calibration error, accuracy by coverage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from graft.design_effects import design_effect, intraclass_correlation
from graft.intervals import wilson_intervals

POINTS = 1000  # of a coverage curve, at most
HALVINGS = 20  # to find the end of an interval


def bins(labels: np.ndarray, probabilities: np.ndarray, count: int) -> pd.DataFrame:
    """Equal bins of the predicted class's probability, and how often that class was right (Niculescu-Mizil 2005).

    Args:
        labels: class numbers (n,).
        probabilities: of shape (n, classes).
        count: bins between 0 and 1; each includes its upper edge.

    Returns:
        One row per bin that is not empty: low and high edge, n images, their mean confidence, their accuracy.
    """
    confidences, right, places = _placed(labels, probabilities, count)
    sizes = np.bincount(places, minlength=count)
    full = np.flatnonzero(sizes)
    n = sizes[full]
    return pd.DataFrame(
        {
            "low": full / count,
            "high": (full + 1) / count,
            "n": n,
            "confidence": np.bincount(places, confidences, count)[full] / n,
            "accuracy": np.bincount(places, right, count)[full] / n,
        }
    )


def _placed(labels: np.ndarray, probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether right, and number of the bin of each image, all (n,)."""
    confidences = probabilities.max(axis=1).astype(np.float64)
    return (
        confidences,
        probabilities.argmax(axis=1) == labels,
        np.searchsorted(np.linspace(0, 1, count + 1)[1:-1], confidences),
    )


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, count: int) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017) of probabilities (n, classes), in 0..1.

    |accuracy - mean confidence| of each of `count` equal bins of confidence, weighted by its share of the images. The
    fewer images, the larger it comes out: chance parts accuracy and confidence also where a model is calibrated.
    """
    table = bins(labels, probabilities, count)
    return float((table["n"] / len(labels) * (table["accuracy"] - table["confidence"]).abs()).sum())


class BinGaps:
    """The parts of the calibration error, for a bootstrap: of each bin, share of images x (confidence - accuracy)."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, count: int) -> None:
        confidences, right, places = _placed(labels, probabilities, count)
        self._parts = np.zeros((count, len(labels)))
        self._parts[places, np.arange(len(labels))] = confidences - right
        self._variances = np.bincount(places, confidences * (1 - confidences), count) / len(labels) ** 2

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Of shape (bins, resamples), for image weights (n, resamples)."""
        return self._parts @ weights / weights.sum(axis=0)

    def interval(self, resampled: np.ndarray, confidence: float) -> tuple[float, float]:
        """Interval of the calibration error that the same bins would have over all images there are.

        The sum of absolute gaps overstates that, most where the model is calibrated, and a percentile bootstrap
        overstates it once more: it covers 0 to 78 %. Here the gaps found are shrunk towards zero, or grown, until
        their error with the noise of the resamples would be as small as the one found in (1 - confidence) / 2 of the
        cases, or as large: a test inverted along the line from perfect calibration through what was found. The noise
        of a bin is at least what calibrated confidences would cause, for a bin whose images are all right shows none.
        The error found is always within. In simulations nominal 95 % held 95 to 98 % where the model is off, and up to
        100 % where it is nearly calibrated, as the interval then begins at zero.

        Args:
            resampled: gaps (bins, resamples).
            confidence: nominal coverage, in (0, 1).
        """
        found = self._parts.sum(axis=1) / self._parts.shape[1]
        noise = resampled - found[:, None]
        missing = np.sqrt(np.maximum(0, self._variances - noise.var(axis=1)))
        noise += missing[:, None] * np.random.default_rng(0).normal(size=noise.shape)
        error, tail = float(np.abs(found).sum()), (1 - confidence) / 2

        def quantile(scale: float, share: float) -> float:
            return float(np.quantile(np.abs(scale * found[:, None] + noise).sum(axis=0), share))

        low = _crossing(lambda scale: quantile(scale, 1 - tail) - error) * error
        high = _crossing(lambda scale: quantile(scale, tail) - error) * error
        return min(low, error), min(1.0, max(high, error))


def _crossing(rises: Callable[[float], float]) -> float:
    """Where a function that rises from scale 0 on becomes positive; 0 where it is so at once."""
    if rises(0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    while rises(high) < 0:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return (low + high) / 2


def coverage_curve(
    labels: np.ndarray, probabilities: np.ndarray, confidence: float, groups: np.ndarray | None = None
) -> pd.DataFrame:
    """How accurate the answers are when a model answers only where it is confident enough.

    The intervals are Wilson's. Where images come in groups, they take as many images as would tell as much if they were
    independent, by the design effect of the groups among the answers.

    Args:
        labels: class numbers (n,).
        probabilities: of shape (n, classes).
        confidence: of the intervals.
        groups: names of the groups of images that belong together (n,), or None where every image is its own.

    Returns:
        threshold (descending), coverage (share of images at or above it), n (how many), and their accuracy with low
        and high; one row per confidence that occurs, or POINTS of them at even coverage, the first and last included.
    """
    confidences = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidences, kind="stable")
    thresholds = confidences[order]
    n = np.flatnonzero(np.append(thresholds[1:] < thresholds[:-1], True)) + 1  # the last image of each confidence
    if len(n) > POINTS:
        n = n[np.unique(np.searchsorted(n, np.linspace(n[0], n[-1], POINTS)))]
    accuracy = np.cumsum(right[order])[n - 1] / n
    effects = 1.0 if groups is None else _design_effects(right[order], groups[order], n)
    low, high = wilson_intervals(accuracy, n / effects, confidence)
    columns = {"threshold": thresholds[n - 1], "coverage": n / len(labels), "n": n}
    return pd.DataFrame({**columns, "accuracy": accuracy, "low": low, "high": high})


def _design_effects(right: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the first so many images, for each of the counts; whether they are alike is asked of all images."""
    numbers = np.unique(groups, return_inverse=True)[1]
    alike = bool(right.all() or not right.any())  # then groups look as if they were one image each, and may be
    correlation = 1.0 if alike else intraclass_correlation(right, numbers)
    return np.array([design_effect(numbers[:count], correlation) for count in counts])
