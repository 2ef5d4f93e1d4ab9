from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from graft.comparison_sections import Compare
from graft.significance import Difference, holm, paired_difference, sign_flip_p_value

SETTINGS = Compare(confidence=0.95, resamples=2000, top_k=2, calibration_bins=10)


def compared(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> Difference:
    """Two models that are right where these bool (n,) say so, of three classes."""
    labels = np.arange(len(first)) % 3
    one, two = (np.eye(3)[np.where(right, labels, (labels + 1) % 3)] for right in (first, second))
    return paired_difference(labels, one, two, groups, SETTINGS, seed)


def decided(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("first", "second"), [(9, 2), (2, 9), (5, 5), (1, 0), (30, 11), (400, 330)])
def test_the_p_value_is_mcnemars_exact_one(first: int, second: int) -> None:
    found = compared(*decided(40, first, second, 7))
    expected = mcnemar([[40, first], [second, 7]], exact=True).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert (found.only_first, found.only_second) == (first, second)
    assert found.difference == pytest.approx((first - second) / (47 + first + second))
    assert found.low < found.difference < found.high


def test_groups_of_one_image_are_no_groups() -> None:
    right = decided(40, 12, 3, 7)
    names = np.array([f"g{place}" for place in range(62)], object)
    assert compared(*right, names).p_value == compared(*right).p_value


def test_flipping_groups_by_hand() -> None:
    """Of 2, 1 and -1: the eight sums are 4 2 2 0 0 -2 -2 -4, of which six are 2 or further from zero."""
    assert sign_flip_p_value(np.array([2, 1, -1, 0])) == 6 / 8
    assert sign_flip_p_value(np.array([0, 0])) == 1
    assert sign_flip_p_value(np.array([], int)) == 1
    assert sign_flip_p_value(np.array([3, 2, 2])) == 2 / 8


def test_flipping_is_exact_for_any_sizes() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        differences = generator.integers(-4, 6, 9)
        sums = [abs(np.dot(signs, differences)) for signs in itertools.product([-1, 1], repeat=9)]
        expected = np.mean(np.array(sums) >= abs(differences.sum()))
        assert sign_flip_p_value(differences) == pytest.approx(expected)
    ones = np.repeat([1, -1], [60, 35])
    counted = sign_flip_p_value(np.append(2 * ones, 0))  # even sums only: as with steps of one
    assert counted == pytest.approx(sign_flip_p_value(ones))
    assert counted == pytest.approx(stats.binomtest(35, 95).pvalue)


def test_images_of_a_group_count_together() -> None:
    """Twelve images in two groups that the first model alone has right: two coins, not twelve."""
    right = decided(48, 12, 0, 0)
    groups = np.array([f"g{place // 6}" for place in range(60)], object)
    assert compared(*right).p_value == pytest.approx(2 * 0.5**12)
    grouped = compared(*right, groups)
    assert grouped.p_value == 1 / 2
    assert grouped.high - grouped.low > compared(*right).high - compared(*right).low


def test_models_that_agree_everywhere_are_not_known_to_be_the_same() -> None:
    right = decided(50, 0, 0, 10)
    found = compared(*right)
    assert (found.difference, found.p_value) == (0, 1)
    margin = stats.t(57).ppf(0.975) * np.sqrt(2) / 62  # two pseudo-observations, of 60 + 2
    assert (found.low, found.high) == pytest.approx((-margin, margin))
    groups = np.array([f"g{place // 6}" for place in range(60)], object)
    grouped = compared(*right, groups)
    assert grouped.high == pytest.approx(stats.t(9).ppf(0.975) * np.sqrt(2) / 12, rel=1e-6)


def test_without_strata_the_interval_is_bonett_and_prices() -> None:
    first, second = decided(300, 30, 12, 58)
    labels = np.zeros(400, int)
    one, two = (np.eye(2)[np.where(right, 0, 1)] for right in (first, second))
    found = paired_difference(labels, one, two, None, SETTINGS.model_copy(update={"resamples": 20_000}), 0)
    p, q = 31 / 402, 13 / 402
    margin = 1.96 * np.sqrt((p + q - (p - q) ** 2) / 402)
    assert (found.low, found.high) == pytest.approx((p - q - margin, p - q + margin), abs=0.001)


def test_the_order_of_the_models_only_turns_the_sign() -> None:
    right = decided(100, 14, 4, 12)
    one, two = compared(*right, seed=1), compared(*right[::-1], seed=1)
    assert (one.difference, one.low, one.high) == pytest.approx((-two.difference, -two.high, -two.low))
    assert one.p_value == two.p_value
    assert one == compared(*right, seed=1)


def test_predictions_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 6 rows of probabilities from both models, received 6 and 5"):
        paired_difference(np.zeros(6, int), np.eye(6), np.eye(6)[:5], None, SETTINGS, 0)


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_holm_is_statsmodels(count: int) -> None:
    p_values = np.random.default_rng(count).random(count) ** 4
    expected = multipletests(p_values, method="holm")[1] if count else []
    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    """Sorted 0.01 x 4, 0.02 x 3, 0.03 x 2 which must not fall below, and 0.6 which is capped at nothing."""
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"in 0\.\.1, received \[0\.5, nan\]"):
        holm([0.5, float("nan")])
