import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
)

from graft.metrics import classification_metrics, confusion, losses

# Six labels of three classes; the fourth and the sixth are predicted wrongly.
LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]
)


def test_six_labels_by_hand():
    metrics = classification_metrics(LABELS, PROBABILITIES)
    assert metrics["accuracy"] == 4 / 6
    # predictions 0 0 1 0 2 1: F1 = 2*2/(3+2), 2*1/(2+2), 2*1/(1+2)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.7, 0.2, 0.8, 0.3]).sum() / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    squares = [0.04 + 0.01 + 0.01, 0.25 + 0.09 + 0.04, 0.04 + 0.09 + 0.01]  # of the first three, by class
    squares += [0.36 + 0.64 + 0.04, 0.01 + 0.01 + 0.04, 0.09 + 0.16 + 0.49]
    assert metrics["brier"] == pytest.approx(sum(squares) / 6)
    assert losses(LABELS, PROBABILITIES)[1] == pytest.approx(squares)
    assert confusion(LABELS, PROBABILITIES).tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_equal_to_scikit_learn_also_where_classes_are_absent():
    generator = np.random.default_rng(0)
    for classes, used in ((3, 3), (12, 5), (40, 40)):
        labels = generator.integers(0, used, 97)
        probabilities = generator.dirichlet(np.full(classes, 0.3), 97)
        predicted = probabilities.argmax(axis=1)
        metrics = classification_metrics(labels, probabilities)
        assert metrics["accuracy"] == accuracy_score(labels, predicted)
        assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
        assert metrics["log_loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)))
        one_hot = np.eye(classes)[labels]
        assert metrics["brier"] == pytest.approx(brier_score_loss(one_hot, probabilities, scale_by_half=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are predicted and do not occur
            assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
        assert (confusion(labels, probabilities) == confusion_matrix(labels, predicted, labels=range(classes))).all()


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_lower_macro_f1():
    wider = np.hstack([PROBABILITIES, np.zeros((6, 2))])
    assert classification_metrics(LABELS, wider) == classification_metrics(LABELS, PROBABILITIES)


def test_a_certain_and_wrong_prediction_has_a_finite_log_loss():
    metrics = classification_metrics(np.array([0]), np.array([[0.0, 1.0]]))
    assert metrics["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))
    assert metrics["brier"] == 2
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == metrics["macro_f1"] == 0


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="expected 6 rows of probabilities, received shape \\(5, 3\\)"):
        confusion(LABELS, PROBABILITIES[:5])
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1, received 0\.\.2"):
        confusion(LABELS, PROBABILITIES[:, :2])
    with pytest.raises(ValueError, match="at least one sample, received none"):
        classification_metrics(np.array([], int), np.empty((0, 3)))
