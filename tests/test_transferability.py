from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from graft.transferability import TransferabilityError, linear_probe, logme


def clusters(n: int, width: int, apart: float, *, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, width) and labels (n,) of classes whose centres are so far apart, in units of their spread."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, width))
    return (generator.normal(size=(n, width)) + apart * centres[labels] + 1).astype(np.float32), labels


def evidence_by_density(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME from the marginal density of the targets, y ~ N(0, F F' / alpha + I / beta), maximised from many starts."""
    rows, n = features.astype(np.float64), len(labels)
    best = []
    for label in np.unique(labels):
        targets = (labels == label).astype(np.float64)

        def lacking(logs: np.ndarray, targets: np.ndarray = targets) -> float:
            alpha, beta = np.exp(np.clip(logs, -40, 40))
            covariance = rows @ rows.T / alpha + np.eye(n) / beta
            return -float(multivariate_normal.logpdf(targets, np.zeros(n), covariance))

        starts = [(alpha, beta) for alpha in (-2.0, 2.0, 8.0) for beta in (0.0, 3.0)]
        options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000}
        best.append(max(-minimize(lacking, at, method="Nelder-Mead", options=options).fun for at in starts))
    return float(np.mean(best) / n)


@pytest.mark.parametrize(("n", "width", "apart"), [(15, 4, 1.0), (24, 3, 0.3), (12, 20, 1.0), (10, 40, 0.2)])
def test_logme_is_the_largest_marginal_density_of_the_labels(n: int, width: int, apart: float) -> None:
    features, labels = clusters(n, width, apart)
    assert logme(features, labels) == pytest.approx(evidence_by_density(features, labels), abs=1e-8)


def test_logme_of_features_that_say_nothing_is_that_of_noise_alone() -> None:
    """Two classes of half the images: y has mean square 1/2, and log N(y | 0, 1/2) is -log(pi)/2 - 1/2 an image."""
    expected = -np.log(np.pi) / 2 - 0.5
    labels = np.arange(20) % 2
    assert logme(np.zeros((20, 3), np.float32), labels) == pytest.approx(expected)
    orthogonal = np.zeros((20, 1), np.float32)
    orthogonal[:4, 0] = [1, 1, -1, -1]  # to both classes
    assert logme(orthogonal, labels) == pytest.approx(expected, abs=1e-6)


def test_logme_ranks_features_by_how_far_they_hold_the_classes_apart() -> None:
    scores = [logme(*clusters(60, 8, apart)) for apart in (0.0, 0.5, 1.0, 3.0)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 0.5


def test_logme_depends_on_neither_the_scale_of_the_features_nor_the_numbers_of_the_classes() -> None:
    features, labels = clusters(40, 6, 1.0)
    plain = logme(features, labels)
    assert logme(features * 1000, labels) == pytest.approx(plain)
    assert logme(features, labels * 5 + 2) == pytest.approx(plain)


def test_logme_stays_finite_where_the_features_are_the_labels() -> None:
    labels = np.arange(30) % 3
    score = logme(np.eye(3, dtype=np.float32)[labels], labels)
    assert np.isfinite(score)
    assert score > 5


def test_logme_needs_two_classes() -> None:
    with pytest.raises(TransferabilityError, match="at least two classes, received 1"):
        logme(np.ones((4, 2), np.float32), np.zeros(4, int))


def test_probe_predicts_each_image_by_a_regression_on_the_other_folds() -> None:
    """One group per fold says which they are, so that scikit-learn can be called by hand on the same ones."""
    features, labels = clusters(36, 5, 0.7)
    groups = np.repeat(np.arange(3), 12)  # each with four of each class
    probe = linear_probe(features, labels, groups, classes=3, folds=3, seed=0)
    assert probe.folds == 3
    for group in range(3):
        seen, unseen = groups != group, groups == group
        scaler = StandardScaler().fit(features[seen].astype(np.float64))
        model = LogisticRegression(C=10 / 5, max_iter=1000).fit(scaler.transform(features[seen]), labels[seen])
        expected = model.predict_proba(scaler.transform(features[unseen].astype(np.float64)))
        np.testing.assert_allclose(probe.probabilities[unseen], expected, atol=1e-4)
    np.testing.assert_allclose(probe.probabilities.sum(axis=1), 1)


def test_probe_never_sees_a_copy_of_an_image_in_another_fold() -> None:
    """Labels are noise, but each image occurs four times: with copies on both sides the probe would recite them."""
    generator = np.random.default_rng(0)
    features = np.repeat(generator.normal(size=(40, 60)), 4, axis=0).astype(np.float32)
    labels = np.repeat(generator.integers(0, 2, 40), 4)
    whole = linear_probe(features, labels, np.repeat(np.arange(40), 4), classes=2, folds=5, seed=1)
    apart = linear_probe(features, labels, np.arange(160), classes=2, folds=5, seed=1)
    assert (apart.probabilities.argmax(axis=1) == labels).mean() > 0.95
    assert (whole.probabilities.argmax(axis=1) == labels).mean() < 0.75


def test_probe_takes_as_many_folds_as_the_rarest_class_allows() -> None:
    features, labels = clusters(30, 4, 2.0)
    kept = np.flatnonzero((labels != 2) | (np.arange(30) < 9))  # three images of the last class
    probe = linear_probe(features[kept], labels[kept], kept, classes=3, folds=5, seed=0)
    assert probe.folds == 3


def test_a_class_without_training_images_has_probability_zero() -> None:
    features, labels = clusters(20, 4, 2.0, classes=2)
    probe = linear_probe(features, labels * 2, np.arange(20), classes=4, folds=5, seed=0)
    assert not probe.probabilities[:, [1, 3]].any()
    assert probe.probabilities[:, [0, 2]].all()


def test_probe_depends_on_the_seed_alone() -> None:
    features, labels = clusters(60, 6, 0.5)
    first, again, other = (
        linear_probe(features, labels, np.arange(60), classes=3, folds=5, seed=seed).probabilities for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_probe_of_identical_images_is_as_good_as_chance() -> None:
    labels = np.arange(12) % 3
    probe = linear_probe(np.ones((12, 4), np.float32), labels, np.arange(12), classes=3, folds=4, seed=0)
    np.testing.assert_allclose(probe.probabilities, 1 / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "groups", "received"),
    [
        ([0, 0, 0, 1], [0, 1, 2, 3], "2 classes, of which number 1 has 1"),
        ([0, 0, 1, 1], [0, 1, 2, 2], "2 classes, of which number 1 has 1"),
        ([3, 3, 3], [0, 1, 2], "1 classes, of which number 3 has 3"),
        ([0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 1, 1], "the groups of the 7 training images leave one"),
    ],
)
def test_probe_says_what_it_lacks(labels: list[int], groups: list[int], received: str) -> None:
    with pytest.raises(TransferabilityError, match=received):
        linear_probe(np.eye(len(labels)), np.array(labels), np.array(groups), classes=4, folds=5, seed=0)
