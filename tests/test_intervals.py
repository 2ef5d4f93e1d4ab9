from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score
from statsmodels.stats.proportion import proportion_confint

from graft.comparison_sections import Compare
from graft.intervals import CHUNK, Design, bootstrap_interval, t_interval, wilson_interval, wilson_intervals

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import interval_coverage
from interval_coverage import Scenario


def all_weights(design: Design, resamples: int, seed: int = 0) -> np.ndarray:
    return np.hstack(list(design.weights(resamples, seed)))


def test_images_are_drawn_within_their_class() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 2, 2])
    weights = all_weights(Design.of(labels, None), 300)
    assert weights.shape == (8, 300)
    for label, size in ((0, 3), (1, 3), (2, 2)):
        own = weights[labels == label]
        assert np.allclose(own.sum(axis=0), size)
        assert np.allclose(own * (size - 1) / size % 1, 0)  # of m - 1 draws, each counts m / (m - 1)
        assert own.mean(axis=1) == pytest.approx(1, abs=0.15)


def test_the_variance_of_a_mean_is_that_of_the_formula_even_for_two_images_per_class() -> None:
    """Sum over the classes of (m / n)^2 s^2 / m, with s^2 the sample variance in the class."""
    labels, values = np.array([0, 0, 1, 1, 1, 1]), np.array([1.0, 4, 0, 2, 2, 5])
    weights = all_weights(Design.of(labels, None), 40_000)
    expected = (2 / 6) ** 2 * np.var([1, 4], ddof=1) / 2 + (4 / 6) ** 2 * np.var([0, 2, 2, 5], ddof=1) / 4
    assert (values @ weights / 6).var() == pytest.approx(expected, rel=0.03)


def test_groups_are_drawn_as_wholes_in_the_class_that_most_of_their_images_have() -> None:
    groups = np.array(["a", "b", "a", "c", "c", "d", "d", "d", "e"], object)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1, 1])  # d is mostly of class 1
    design = Design.of(labels, groups)
    assert design.strata[design.units].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert design.degrees == 5 - 2
    weights = all_weights(design, 200)
    for name in "acd":
        assert (weights[groups == name] == weights[groups == name][0]).all()
    drawn = weights[[0, 1, 3, 5, 8]]  # one image of each group
    assert np.allclose(drawn[:2].sum(axis=0), 2)
    assert np.allclose(drawn[2:].sum(axis=0), 3)


def test_single_units_of_a_class_share_a_stratum() -> None:
    assert Design.of(np.array([0, 0, 1, 2, 3, 3]), None).strata.tolist() == [0, 0, 4, 4, 3, 3]
    assert Design.of(np.array([0, 0, 0, 1, 2, 2]), None).strata.tolist() == [0, 0, 0, 2, 2, 2]  # with the smallest
    alone = Design.of(np.array([3]), None)
    assert alone.degrees == 0
    assert all_weights(alone, 5).tolist() == [[1.0] * 5]


def test_the_rarest_class_decides_how_sure_a_mean_over_classes_is() -> None:
    assert Design.of(np.repeat([0, 1, 2], 8), None).degrees_by_class == pytest.approx(24 - 3)
    rare = Design.of(np.repeat([0, 1], [1000, 5]), None)
    assert rare.degrees == 1003
    assert rare.degrees_by_class == pytest.approx((1 / 1000 + 1 / 5) ** 2 / (1 / 1000**2 / 999 + 1 / 5**2 / 4))
    assert Design.of(np.array([2]), None).degrees_by_class == 0


def test_weights_are_seeded_and_come_in_chunks_of_bounded_size() -> None:
    design = Design.of(np.arange(5000) % 7, None)
    chunks = list(design.weights(500, 3))
    assert len(chunks) > 1
    assert max(chunk.size for chunk in chunks) <= CHUNK
    assert sum(chunk.shape[1] for chunk in chunks) == 500
    assert np.array_equal(np.hstack(chunks), all_weights(design, 500, 3))
    assert not np.array_equal(np.hstack(chunks), all_weights(design, 500, 4))


def test_groups_that_do_not_belong_to_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match="received 3 labels and 2 groups"):
        Design.of(np.array([0, 0, 1]), np.array(["a", "b"], object))
    with pytest.raises(ValueError, match="received 0 labels"):
        Design.of(np.array([], int), None)


def test_an_interval_on_the_logit_scale_by_hand() -> None:
    """0.9 with a standard error of 0.03: logit 2.197 ± 2.086 x 0.03 / 0.09 for 20 degrees of freedom."""
    resampled = 0.9 + 0.03 * np.array([-1, 1] * 500) * np.sqrt(999 / 1000)
    low, high = bootstrap_interval(0.9, resampled, 20, 0.95, most=1, observations=100)
    margin = stats.t(20).ppf(0.975) * 0.03 / 0.09
    assert low == pytest.approx(1 / (1 + np.exp(margin) / 9))
    assert high == pytest.approx(1 / (1 + np.exp(-margin) / 9))
    twice = bootstrap_interval(1.8, 2 * resampled, 20, 0.95, most=2, observations=100)
    assert twice == pytest.approx((2 * low, 2 * high))
    logged = bootstrap_interval(0.9, resampled, 20, 0.95, most=np.inf, observations=100)
    assert logged == pytest.approx((0.9 * np.exp(-margin / 10), 0.9 * np.exp(margin / 10)))


def test_the_interval_is_nearly_the_percentile_bootstrap_where_both_hold() -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(2000) % 5
    right = generator.random(2000) < 0.7
    resampled = right @ all_weights(Design.of(labels, None), 4000) / 2000
    found = bootstrap_interval(right.mean(), resampled, 1995, 0.9, most=1, observations=2000)
    rows = [np.flatnonzero(labels == label) for label in range(5)]
    plain = []
    for _ in range(500):
        chosen = np.concatenate([generator.choice(own, len(own)) for own in rows])
        plain.append(accuracy_score(labels[chosen], np.where(right, labels, -1)[chosen]))
    assert found == pytest.approx(tuple(np.quantile(plain, [0.05, 0.95])), abs=0.004)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.4])
def test_resamples_that_are_all_alike_leave_wilsons_interval(value: float) -> None:
    same = np.full(100, value) + 1e-16
    expected = wilson_interval(50 * value, 50, 0.95)
    assert bootstrap_interval(value, same, 40, 0.95, most=1, observations=50) == pytest.approx(expected)
    twice = bootstrap_interval(2 * value, 2 * same, 40, 0.95, most=2, observations=50)
    assert twice == pytest.approx(tuple(2 * end for end in expected))
    assert np.isnan(bootstrap_interval(value, same, 40, 0.95, most=np.inf, observations=50)).all()


def test_what_is_undefined_has_no_interval() -> None:
    resampled = np.array([0.4, np.nan, 0.6, 0.5])
    defined = bootstrap_interval(0.5, resampled, 9, 0.95, most=1, observations=9)
    assert defined == bootstrap_interval(0.5, resampled[[0, 2, 3]], 9, 0.95, most=1, observations=9)
    assert np.isnan(bootstrap_interval(np.nan, resampled, 9, 0.95, most=1, observations=9)).all()
    assert np.isnan(bootstrap_interval(0.5, resampled[:2], 9, 0.95, most=1, observations=9)).all()


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (350, 359)])
def test_wilson_is_statsmodels_and_scipys(right: int, n: int) -> None:
    found = wilson_interval(right, n, 0.9)
    assert found == pytest.approx(proportion_confint(right, n, 0.1, "wilson"), abs=1e-12)
    expected = stats.binomtest(right, n).proportion_ci(0.9, "wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found[0] <= right / n <= found[1]
    low, high = wilson_intervals(np.array([right / n, np.nan]), np.array([n, 0]), 0.9)
    assert (low[0], high[0]) == found
    assert np.isnan([low[1], high[1], *wilson_interval(0, 0, 0.9)]).all()


def test_repeats_have_students_interval() -> None:
    values = [0.91, 0.93, 0.9, 0.95]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert t_interval(values, 0.95) == pytest.approx((0.9225, *expected))
    mean, low, high = t_interval(np.array([0.9]), 0.95)
    assert mean == 0.9
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="at least one value"):
        t_interval([], 0.95)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [Scenario([60] * 4, 2.6, 2.0), Scenario([25] * 4, 2.4, 2.0, group=4)],
    ids=["images", "groups"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(scenario: Scenario) -> None:
    """1,000 simulations, nominal 95 %; benchmarks/interval_coverage.py has more of them."""
    settings = Compare(confidence=0.95, resamples=400, top_k=2, calibration_bins=15)
    held = interval_coverage.cover(scenario, settings, 1000)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "top_k_accuracy", "roc_auc")
    for name in (*names, "average_precision", "difference"):
        assert 0.93 <= held[name] <= 0.97, (name, held)
    for name in ("precision", "recall", "f1", "calibration_error"):  # these err on the wide side
        assert held[name] >= 0.93, (name, held)
    one, of_several = interval_coverage.errors(scenario, settings.model_copy(update={"resamples": 100}), 1000)
    assert one <= 0.065
    assert of_several <= 0.065
