from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from graft.metrics import classification_metrics
from graft.weighted_metrics import BY_CLASS, MEANS, RANKED, WeightedMetrics

ALL = (*MEANS, *BY_CLASS, *RANKED)


def by_scikit_learn(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, top_k: int) -> dict[str, float]:
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    present = [label for label in classes if weights[labels == label].sum() > 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without weight
        return {
            "accuracy": np.average(predicted == labels, weights=weights),
            "top_k_accuracy": top_k_accuracy_score(
                labels, probabilities, k=top_k, sample_weight=weights, labels=classes
            )
            if len(classes) > 2
            else np.nan,
            "log_loss": log_loss(labels, probabilities, sample_weight=weights, labels=classes),
            "brier": brier_score_loss(
                np.eye(len(classes))[labels], probabilities, sample_weight=weights, scale_by_half=False
            ),
            "balanced_accuracy": balanced_accuracy_score(
                labels[weights > 0], predicted[weights > 0], sample_weight=weights[weights > 0]
            ),
            "macro_f1": f1_score(
                labels[weights > 0], predicted[weights > 0], average="macro", sample_weight=weights[weights > 0]
            ),
            "roc_auc": np.mean(
                [roc_auc_score(labels == one, probabilities[:, one], sample_weight=weights) for one in present]
            ),
            "average_precision": np.mean(
                [
                    average_precision_score(labels == one, probabilities[:, one], sample_weight=weights)
                    for one in present
                ]
            ),
        }


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "many ties"])
@pytest.mark.parametrize(("classes", "used"), [(2, 2), (5, 5), (6, 4)])
def test_weighted_metrics_are_scikit_learns(classes: int, used: int, tied: bool) -> None:
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, used, 80)
    probabilities = generator.dirichlet(np.full(classes, 0.5), 80)
    probabilities[np.arange(80), labels] += 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if tied:
        probabilities = generator.multinomial(8, probabilities) / 8
    weights = generator.integers(0, 4, (80, 6)) * generator.choice([1, 1.25], (80, 6))
    weights[:, 0] = 1
    weights[labels == 0, 5] = 0  # a class that no draw has hit
    top_k = classes - 1
    found = WeightedMetrics(labels, probabilities, ALL, top_k)(weights)
    for column in range(6):
        expected = by_scikit_learn(labels, probabilities, weights[:, column], top_k)
        for name in ALL:
            if name == "top_k_accuracy" and (tied or classes == 2):
                continue  # scikit-learn gives ties to the higher class number, and wants one column of two
            if name in RANKED and len(np.unique(labels[weights[:, column] > 0])) == 1:
                assert np.isnan(found[name][column])
                continue
            assert found[name][column] == pytest.approx(expected[name]), (name, column)


def test_equal_weights_give_the_plain_metrics() -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 4, 50), generator.dirichlet(np.ones(4), 50)
    found = WeightedMetrics(labels, probabilities, (*MEANS, *BY_CLASS), 2)(np.full((50, 1), 3.0))
    for name, value in classification_metrics(labels, probabilities).items():
        assert found[name][0] == pytest.approx(value)


def test_ranks_by_hand() -> None:
    """Of class 1, 0.9 and 0.4 among 0.9 0.6 0.4 0.1: of four pairs one is tied with none, three are in order."""
    labels = np.array([1, 0, 1, 0])
    scores = np.array([0.9, 0.6, 0.4, 0.1])
    found = WeightedMetrics(labels, np.column_stack([1 - scores, scores]), RANKED, 1)(np.ones((4, 1)))
    assert found["roc_auc"][0] == pytest.approx(3 / 4)
    first, second = (1 + 2 / 3) / 2, (1 + 2 / 3) / 2  # of class 1, and of class 0 among 0.9 0.6 0.4 0.1
    assert found["average_precision"][0] == pytest.approx((first + second) / 2)


def test_a_tie_among_the_first_k_goes_to_the_lower_class() -> None:
    probabilities = np.tile([0.4, 0.2, 0.2, 0.2], (4, 1))
    found = WeightedMetrics(np.arange(4), probabilities, ("top_k_accuracy",), 2)(np.eye(4))
    assert found["top_k_accuracy"].tolist() == [1, 1, 0, 0]
    everything = WeightedMetrics(np.arange(4), probabilities, ("top_k_accuracy",), 4)(np.eye(4))
    assert everything["top_k_accuracy"].tolist() == [1, 1, 1, 1]


def test_one_class_alone_has_no_ranks() -> None:
    found = WeightedMetrics(np.zeros(3, int), np.full((3, 2), 0.5), ALL, 1)(np.ones((3, 2)))
    assert np.isnan([found["roc_auc"], found["average_precision"]]).all()
    assert found["balanced_accuracy"].tolist() == [1, 1]
