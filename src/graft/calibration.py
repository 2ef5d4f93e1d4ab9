"""Temperature scaling of a classifier's probabilities (Guo et al. 2017), and when it had better not answer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from graft.storage import ArtifactError, read_json, write_json

FLOOR = float(np.finfo(np.float32).tiny)  # below it networks, which compute in float32, say zero
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
DIGITS = 6  # of a confidence; further ones depend on how many images were predicted at once
FILE_NAME = "calibration.json"
LEAST_ANSWERS = 10  # on which a threshold may rest; all images where there are fewer


@dataclass(frozen=True)
class Calibration:
    """What validation says of a model's probabilities.

    Attributes:
        temperature: the logarithms of the model's probabilities are divided by it; above one: it was too sure.
        abstain_below: the highest calibrated probability under which a prediction is withheld; None: every one is.
        abstain_accuracy: the share of right ones among the answers on validation that this was chosen for.
    """

    temperature: float
    abstain_below: float | None
    abstain_accuracy: float


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of log p / temperature, of shape (n, classes) and in float64; each row's first maximum stays where it is.

    Probabilities are clipped at FLOOR first.
    """
    return _scaled(probabilities, temperature, FLOOR)


def remove_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The inverse of apply_temperature, within 1e-9 for probabilities (n, classes) that it did not clip."""
    return _scaled(probabilities, 1 / temperature, np.finfo(np.float64).tiny)


def _scaled(probabilities: np.ndarray, temperature: float, floor: float) -> np.ndarray:
    scaled = softmax(_logarithms(probabilities, floor) / temperature, axis=1)
    rows = np.arange(len(scaled))
    best, now = probabilities.argmax(axis=1), scaled.argmax(axis=1)
    moved = best != now  # rounding made it equal to another's
    scaled[rows[moved], best[moved]] = np.nextafter(scaled[rows[moved], now[moved]], 2)
    return scaled


def _logarithms(probabilities: np.ndarray, floor: float) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), floor))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature in [LOWEST, HIGHEST] at which the mean log loss of the class numbers (n,) is lowest.

    The loss is convex in 1 / temperature, so its slope has one root, or none within the bounds: then a bound is best.
    Where every image is right the loss falls as long as the temperature does, which says that the model may be surer
    but not how much; then, and where no image prefers any class, it is 1.

    Args:
        labels: of shape (n,).
        probabilities: as the model gives them, of shape (n, classes).

    Raises:
        ValueError: there is no image, or labels and probabilities do not belong together.
    """
    _check(labels, probabilities)
    logs = _logarithms(probabilities, FLOOR)
    above = logs - logs[np.arange(len(labels)), labels][:, None]  # the actual class

    def slope(log_temperature: float) -> float:
        """Of the mean log loss, along 1 / temperature."""
        return float((softmax(above / math.exp(log_temperature), axis=1) * above).sum(axis=1).mean())

    if above.max() <= 0:
        return 1.0
    if slope(math.log(LOWEST)) <= 0:
        return LOWEST
    if slope(math.log(HIGHEST)) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, math.log(LOWEST), math.log(HIGHEST), xtol=1e-12))


def abstain_threshold(labels: np.ndarray, probabilities: np.ndarray, accuracy: float) -> float | None:
    """The lowest confidence such that of the images at or above it at least this share is right.

    There must be LEAST_ANSWERS of them, for the most confident one alone promises nothing.

    Confidence is the highest probability, to DIGITS digits; images of one confidence are answered or withheld together.
    The threshold lies halfway between the lowest confidence answered and the next, so that a prediction in another
    batch, whose last digits differ, is on the same side.

    Args:
        labels: of shape (n,).
        probabilities: calibrated, of shape (n, classes).
        accuracy: in (0, 1].

    Returns:
        0 where every image is answered; None where no confidence is high enough.

    Raises:
        ValueError: there is no image, or labels and probabilities do not belong together.
    """
    _check(labels, probabilities)
    confidence = probabilities.max(axis=1).round(DIGITS)
    right = probabilities.argmax(axis=1) == labels
    levels, level, counts = np.unique(-confidence, return_inverse=True, return_counts=True)  # descending
    answered = counts.cumsum()
    share = np.bincount(level, weights=right).cumsum() / answered
    enough = np.flatnonzero((share >= accuracy) & (answered >= min(LEAST_ANSWERS, len(labels))))
    if not len(enough):
        return None
    last = enough[-1]
    return 0.0 if last == len(levels) - 1 else round(-float(levels[last] + levels[last + 1]) / 2, DIGITS + 1)


def fit_calibration(labels: np.ndarray, probabilities: np.ndarray, accuracy: float) -> Calibration:
    """Temperature, and abstention at that temperature, by the images of validation.

    Args:
        labels: class numbers of shape (n,).
        probabilities: as the model gives them, of shape (n, classes).
        accuracy: as of abstain_threshold.
    """
    temperature = fit_temperature(labels, probabilities)
    calibrated = apply_temperature(probabilities, temperature)
    return Calibration(temperature, abstain_threshold(labels, calibrated, accuracy), accuracy)


def _check(labels: np.ndarray, probabilities: np.ndarray) -> None:
    if not len(labels):
        raise ValueError("a calibration needs at least one image, received none")
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise ValueError(f"expected {len(labels)} rows of probabilities, received shape {probabilities.shape}")


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write calibration.json into a model's folder."""
    write_json(folder / FILE_NAME, asdict(calibration))


def read_calibration(folder: Path) -> Calibration:
    """The calibration of a model's folder.

    Raises:
        ArtifactError: the file is missing or damaged, or a value is not of its range.
    """
    path = folder / FILE_NAME
    content = read_json(path)
    names = list(Calibration.__dataclass_fields__)
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise ArtifactError(f"{path} must hold {', '.join(names)}, received {content!r}")
    for name, expected, valid in (
        ("temperature", f"in [{LOWEST}, {HIGHEST}]", lambda value: LOWEST <= value <= HIGHEST),
        ("abstain_below", "in [0, 1], or null", lambda value: 0 <= value <= 1),
        ("abstain_accuracy", "in (0, 1]", lambda value: 0 < value <= 1),
    ):
        value = content[name]
        number = isinstance(value, int | float) and not isinstance(value, bool) and valid(value)
        if not number and not (name == "abstain_below" and value is None):
            raise ArtifactError(f"{path}: {name} must be a number {expected}, received {value!r}")
    return Calibration(**content)
