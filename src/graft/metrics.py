"""Labels and probabilities to numbers: exact over all samples, from counts, never a mean of batch means."""

from __future__ import annotations

import numpy as np

LEAST = float(np.finfo(np.float64).eps)  # the smallest step from zero that float64 resolves at one


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Five numbers about probabilities (n, classes) for the class numbers labels (n,).

    Balanced accuracy is the mean recall of the classes that occur. Macro-F1 is the mean over the classes that occur or
    are predicted; one that does neither has no F1 and is left out. Log loss is natural, with probabilities clipped at
    LEAST. The Brier score is the multi-class one, in 0..2: the squared differences from the one-hot label, summed over
    the classes (Brier 1950).

    Returns:
        accuracy, balanced_accuracy, macro_f1, log_loss and brier.

    Raises:
        ValueError: there is no sample, or labels and probabilities do not belong together.
    """
    counts = confusion(labels, probabilities)
    right, chosen, actual = np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)
    occurs, concerned = actual > 0, chosen + actual  # F1 = 2 TP / (2 TP + FP + FN), and the denominator is this sum
    log_losses, briers = losses(labels, probabilities)
    return {
        "accuracy": float(right.sum() / actual.sum()),
        "balanced_accuracy": float((right[occurs] / actual[occurs]).mean()),
        "macro_f1": float((2 * right / np.maximum(concerned, 1)).sum() / (concerned > 0).sum()),
        "log_loss": float(log_losses.mean()),
        "brier": float(briers.mean()),
    }


def losses(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss and Brier score of each sample, both (n,)."""
    chances = probabilities.astype(np.float64)
    given = chances[np.arange(len(labels)), labels]
    return -np.log(np.clip(given, LEAST, 1)), (chances**2).sum(axis=1) - given**2 + (1 - given) ** 2


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts of shape (classes, classes): row = actual, column = predicted; ties go to the lower class number.

    Raises:
        ValueError: there is no sample, or labels and probabilities do not belong together.
    """
    if probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise ValueError(f"expected {len(labels)} rows of probabilities, received shape {probabilities.shape}")
    if not len(labels):
        raise ValueError("a metric needs at least one sample, received none")
    classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, received {labels.min()}..{labels.max()}")
    cells = np.bincount(labels.astype(np.int64) * classes + probabilities.argmax(axis=1), minlength=classes * classes)
    return cells.reshape(classes, classes)
