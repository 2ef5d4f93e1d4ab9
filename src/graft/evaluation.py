"""Every metric of a set of predictions with its interval, overall and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from graft.comparison_sections import Compare
from graft.intervals import NO_WIDTH, Design, bootstrap_interval, wilson_intervals
from graft.metrics import classification_metrics, confusion
from graft.reliability import BinGaps, calibration_error
from graft.weighted_metrics import BY_CLASS, RANKED, ClassCounts, WeightedMetrics

CALIBRATION_ERROR = "calibration_error"
TOP_K = "top_k_accuracy"
METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", TOP_K),
    *("roc_auc", "average_precision", CALIBRATION_ERROR),
)
MOST = {"log_loss": math.inf, "brier": 2.0}  # 1 for the others
RATIOS = ("precision", "recall", "f1")


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None,
    settings: Compare,
    seed: int,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Metrics with intervals from a bootstrap that is stratified by class and resamples groups as wholes.

    An interval is of the value over all images there are of which these are a sample, with the classes in these
    proportions; see intervals.bootstrap_interval and, for the calibration error, reliability.BinGaps.interval.
    The calibration error itself is that of these images, as everybody reports it, and therefore too large on average.

    Args:
        labels: class numbers (n,).
        probabilities: of shape (n, classes).
        groups: names of the groups of images that belong together (n,), or None where every image is its own.
        settings: confidence, resamples, top_k and calibration_bins.
        seed: of the resampling.
        metrics: which of METRICS.

    Returns:
        Indexed by metric in the order asked for: value, low and high. All three are NaN where ROC AUC and average
        precision are undefined, for want of a second class. Low and high are NaN where the images say nothing about
        them: a calibration error of one group alone, a log loss that is the same for all images.

    Raises:
        ValueError: a metric is unknown, there is no image, or the arrays do not belong together.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"metrics must be among {METRICS}, received {unknown}")
    design, plain = Design.of(labels, groups), classification_metrics(labels, probabilities)
    gaps = BinGaps(labels, probabilities, settings.calibration_bins)
    weighted = WeightedMetrics(labels, probabilities, [m for m in metrics if m != CALIBRATION_ERROR], settings.top_k)
    values = {name: float(one[0]) for name, one in weighted(np.ones((len(labels), 1))).items()} | plain
    values[CALIBRATION_ERROR] = calibration_error(labels, probabilities, settings.calibration_bins)
    chunks = [(weighted(weights), gaps(weights)) for weights in design.weights(settings.resamples, seed)]
    rows = {}
    for name in metrics:
        if name == CALIBRATION_ERROR:
            resampled = np.hstack([gap for _, gap in chunks])
            ends = gaps.interval(resampled, settings.confidence) if design.degrees > 0 else (math.nan, math.nan)
        elif name == TOP_K and settings.top_k >= probabilities.shape[1]:
            ends = (1.0, 1.0)  # by definition
        else:
            resampled = np.concatenate([chunk[name] for chunk, _ in chunks])
            ends = _interval(name, values[name], resampled, labels, design, settings.confidence)
        rows[name] = (values[name], *ends)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def _interval(
    metric: str, value: float, resampled: np.ndarray, labels: np.ndarray, design: Design, confidence: float
) -> tuple[float, float]:
    """Of any metric but the calibration error, from its values over the resamples."""
    degrees = design.degrees_by_class if metric in (*BY_CLASS, *RANKED) else design.degrees
    observations = _observations(metric, labels, design)
    most = MOST.get(metric, 1.0)
    return bootstrap_interval(value, resampled, degrees, confidence, most=most, observations=observations)


def _observations(metric: str, labels: np.ndarray, design: Design) -> float:
    """How many independent units a metric rests on, where resamples do not tell.

    A mean over classes is as sure as a mean of as many observations as k^2 / sum(1 / m), which is all of them in
    classes of the same size m. The variance of the AUC A of m against M units is at most A (1 - A) / min(m, M)
    (van Dantzig 1951), so the smaller side counts; of two classes, both have the same AUC.
    """
    if metric not in (*BY_CLASS, *RANKED):
        return float(len(design.strata))
    classes = np.unique(labels)
    units = np.array([len(np.unique(design.units[labels == label])) for label in classes], np.float64)
    if metric in RANKED:
        if len(classes) == 2:
            return float(units.min())
        units = np.minimum(units, np.maximum(1, len(design.strata) - units))
    return float(len(classes) ** 2 / (1 / units).sum())


def evaluate_classes(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None, settings: Compare, seed: int
) -> pd.DataFrame:
    """Precision, recall and F1 of each class with Wilson's score interval.

    Each is a share or follows from one: F1 = 2 J / (1 + J), where J is the share of right ones among the images that
    are or are called of the class. Where images come in groups, Wilson's formula takes as many images as would have the
    variance that resampling the groups shows (Kott and Carr 1997), never more than there are; where resamples are all
    alike, the number of groups.

    Args:
        labels: class numbers (n,).
        probabilities: of shape (n, classes).
        groups: of the images (n,), or None where every image is its own.
        settings: confidence and resamples.
        seed: of the resampling of groups.

    Returns:
        One row per class number: n (images of the class), then precision, recall and f1, each with _low and _high. What
        is undefined is NaN: the precision of a class that is never predicted, the recall of one that does not occur,
        the F1 of one that neither occurs nor is predicted.

    Raises:
        ValueError: there is no image, or the arrays do not belong together.
    """
    counts = confusion(labels, probabilities)
    shares, sizes = _shares(ClassCounts(np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)))
    if groups is not None:
        sizes = _effective_sizes(labels, probabilities, Design.of(labels, groups), settings, seed)
    low, high = wilson_intervals(shares, sizes, settings.confidence)
    columns = {"n": counts.sum(axis=1)}
    for place, name in enumerate(RATIOS):
        for end, values in (("", shares), ("_low", low), ("_high", high)):
            one = values[place]
            columns[f"{name}{end}"] = 2 * one / (1 + one) if name == "f1" else one
    return pd.DataFrame(columns)


def _shares(counts: ClassCounts) -> tuple[np.ndarray, np.ndarray]:
    """Precision, recall and J, and their denominators: both of shape (3, classes) or (3, classes, resamples)."""
    sizes = np.stack([counts.chosen, counts.actual, counts.chosen + counts.actual - counts.right])
    return np.divide(counts.right, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0), sizes


def _effective_sizes(
    labels: np.ndarray, probabilities: np.ndarray, design: Design, settings: Compare, seed: int
) -> np.ndarray:
    """For each of _shares (3, classes), how many independent images would vary as it does over resampled groups."""
    weighted = WeightedMetrics(labels, probabilities, (), settings.top_k)
    shares, sizes = (each[..., 0] for each in _shares(weighted.counts(np.ones((len(labels), 1)))))
    parts = [_shares(weighted.counts(weights))[0] for weights in design.weights(settings.resamples, seed)]
    variances = _variances(np.concatenate(parts, axis=2))
    predicted = probabilities.argmax(axis=1)
    groups = np.empty(sizes.shape)
    for label in range(probabilities.shape[1]):
        chosen, actual = predicted == label, labels == label
        groups[:, label] = [len(np.unique(design.units[part])) for part in (chosen, actual, chosen | actual)]
    varies = variances > NO_WIDTH
    return np.where(varies, np.minimum(sizes, shares * (1 - shares) / np.where(varies, variances, 1)), groups)


def _variances(resampled: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is defined; 0 where nothing is."""
    defined = np.isfinite(resampled)
    count = defined.sum(axis=-1)
    means = np.where(defined, resampled, 0).sum(axis=-1) / np.maximum(count, 1)
    squares = np.where(defined, resampled - means[..., None], 0) ** 2
    return squares.sum(axis=-1) / np.maximum(count - 1, 1)
