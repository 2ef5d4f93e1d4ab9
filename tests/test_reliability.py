from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from graft.intervals import Design
from graft.reliability import POINTS, BinGaps, bins, calibration_error, coverage_curve

# Confidences 0.9 0.8 0.6 0.6 0.5 of which the second and the fourth are wrong.
LABELS = np.array([0, 1, 1, 0, 0])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6], [0.5, 0.5]])


def calibrated(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, right as often as the confidence says, less the shift."""
    generator = np.random.default_rng(seed)
    confidences = generator.uniform(0.55, 1, n)
    labels = (generator.random(n) > confidences - shift).astype(int)
    return labels, np.column_stack([confidences, 1 - confidences])


def test_bins_by_hand() -> None:
    table = bins(LABELS, PROBABILITIES, 5)
    assert table["low"].tolist() == [0.4, 0.6, 0.8]
    assert table["high"].tolist() == [0.6, 0.8, 1.0]
    assert table["n"].tolist() == [3, 1, 1]  # an edge belongs to the bin below
    assert table["confidence"].tolist() == pytest.approx([1.7 / 3, 0.8, 0.9])
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 0, 1])
    assert calibration_error(LABELS, PROBABILITIES, 5) == pytest.approx((abs(1.7 - 2) + 0.8 + 0.1) / 5)


def test_bins_are_scikit_learns() -> None:
    labels, probabilities = calibrated(500, 0)
    table = bins(labels, probabilities, 10)
    accuracy, confidence = calibration_curve(labels == 0, probabilities[:, 0], n_bins=10)
    assert table["accuracy"].tolist() == pytest.approx(accuracy.tolist())
    assert table["confidence"].tolist() == pytest.approx(confidence.tolist())
    assert table["n"].sum() == 500


def test_certainty_is_in_the_last_bin_and_a_tie_goes_to_the_lower_class() -> None:
    table = bins(np.array([0, 1]), np.array([[1.0, 0], [0.5, 0.5]]), 4)
    assert table["high"].tolist() == [0.5, 1.0]
    assert table["accuracy"].tolist() == [0, 1]


def test_gaps_of_equal_weights_are_the_calibration_error() -> None:
    labels, probabilities = calibrated(200, 1)
    gaps = BinGaps(labels, probabilities, 15)
    generator = np.random.default_rng(0)
    weights = np.column_stack([np.ones(200), generator.integers(0, 3, 200)])
    repeated = np.repeat(np.arange(200), weights[:, 1].astype(int))
    assert np.abs(gaps(weights)).sum(axis=0) == pytest.approx(
        [calibration_error(labels, probabilities, 15), calibration_error(labels[repeated], probabilities[repeated], 15)]
    )


def ends(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    gaps = BinGaps(labels, probabilities, 15)
    resampled = np.hstack([gaps(weights) for weights in Design.of(np.zeros_like(labels), None).weights(500, 0)])
    return gaps.interval(resampled, 0.95)


def test_a_calibrated_model_may_have_no_calibration_error_and_another_may_not() -> None:
    found = [ends(*calibrated(300, seed)) for seed in range(20)]
    assert sum(low == 0 for low, _ in found) >= 18
    found = [ends(*calibrated(300, seed, shift=0.25)) for seed in range(20)]
    assert sum(0.1 < low < 0.25 < high for low, high in found) >= 18


def test_the_interval_holds_the_error_found_and_narrows_with_images() -> None:
    widths = []
    for n in (50, 500, 5000):
        labels, probabilities = calibrated(n, 2, shift=0.1)
        low, high = ends(labels, probabilities)
        assert low <= calibration_error(labels, probabilities, 15) <= high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_images_that_are_all_right_do_not_prove_a_calibration_error() -> None:
    """40 confidences of 0.98: none wrong has a chance of 45 % if they are calibrated."""
    low, high = ends(np.zeros(40, int), np.tile([0.98, 0.02], (40, 1)))
    assert low == 0
    assert high >= 0.02


def test_coverage_by_hand() -> None:
    curve = coverage_curve(LABELS, PROBABILITIES, 0.95)
    assert curve["threshold"].tolist() == [0.9, 0.8, 0.6, 0.5]
    assert curve["n"].tolist() == [1, 2, 4, 5]
    assert curve["coverage"].tolist() == pytest.approx([0.2, 0.4, 0.8, 1])
    assert curve["accuracy"].tolist() == pytest.approx([1, 1 / 2, 2 / 4, 3 / 5])
    for row in curve.itertuples():
        expected = proportion_confint(round(row.accuracy * row.n), row.n, 0.05, "wilson")
        assert (row.low, row.high) == pytest.approx(expected, abs=1e-12)


def test_groups_whose_images_are_alike_count_once_each() -> None:
    labels, probabilities = (np.repeat(each, 3, axis=0) for each in (LABELS, PROBABILITIES))
    groups = np.repeat(np.array(["a", "b", "c", "d", "e"], object), 3)
    grouped, single = coverage_curve(labels, probabilities, 0.95, groups), coverage_curve(LABELS, PROBABILITIES, 0.95)
    assert grouped["n"].tolist() == (3 * single["n"]).tolist()
    for column in ("coverage", "accuracy", "low", "high"):
        assert grouped[column].tolist() == pytest.approx(single[column].tolist())
    all_right = coverage_curve(labels, np.eye(3)[labels] * 0.9 + 0.1 / 3, 0.95, groups)
    assert all_right["low"].iloc[-1] == pytest.approx(proportion_confint(5, 5, 0.05, "wilson")[0])


def test_a_long_curve_is_thinned_evenly_between_its_ends() -> None:
    labels, probabilities = calibrated(7000, 3)
    curve = coverage_curve(labels, probabilities, 0.95)
    assert len(curve) <= POINTS
    assert curve["n"].iloc[0] == 1
    assert curve["coverage"].iloc[-1] == 1
    assert curve["coverage"].diff().max() < 1.5 / POINTS
    assert (curve["threshold"].diff().dropna() < 0).all()
    confidences = probabilities.max(axis=1)
    for row in curve.iloc[::99].itertuples():
        answered = confidences >= row.threshold
        assert answered.sum() == row.n
        assert (probabilities.argmax(axis=1) == labels)[answered].mean() == pytest.approx(row.accuracy)
