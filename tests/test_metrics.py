import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from graft.metrics import bootstrap_interval, classification_metrics, confusion

# Six labels of three classes; the fourth and the sixth are predicted wrongly.
LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]
)


def some_predictions(classes, samples, accuracy, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    predicted = np.where(generator.random(samples) < accuracy, labels, generator.integers(0, classes, samples))
    return labels, predicted


def test_six_labels_by_hand():
    metrics = classification_metrics(LABELS, PROBABILITIES)
    assert metrics["accuracy"] == 4 / 6
    # predictions 0 0 1 0 2 1: F1 = 2*2/(3+2), 2*1/(2+2), 2*1/(1+2)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.7, 0.2, 0.8, 0.3]).sum() / 6)
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
        assert (confusion(labels, probabilities) == confusion_matrix(labels, predicted, labels=range(classes))).all()


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_lower_macro_f1():
    wider = np.hstack([PROBABILITIES, np.zeros((6, 2))])
    assert classification_metrics(LABELS, wider) == classification_metrics(LABELS, PROBABILITIES)


def test_a_certain_and_wrong_prediction_has_a_finite_log_loss():
    metrics = classification_metrics(np.array([0]), np.array([[0.0, 1.0]]))
    assert metrics == {"accuracy": 0.0, "macro_f1": 0.0, "log_loss": pytest.approx(-np.log(np.finfo(float).eps))}


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="expected 6 rows of probabilities, received shape \\(5, 3\\)"):
        confusion(LABELS, PROBABILITIES[:5])
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1, received 0\.\.2"):
        confusion(LABELS, PROBABILITIES[:, :2])
    with pytest.raises(ValueError, match="at least one sample, received none"):
        classification_metrics(np.array([], int), np.empty((0, 3)))
    with pytest.raises(ValueError, match="expected 6 predictions, received 5"):
        bootstrap_interval(LABELS, LABELS[:5], confidence=0.95, resamples=100, seed=0)
    with pytest.raises(ValueError, match=r"among \['accuracy', 'macro_f1'\], received 'auc'"):
        bootstrap_interval(LABELS, LABELS, "auc", confidence=0.95, resamples=100, seed=0)


@pytest.mark.parametrize("statistic", ["accuracy", "macro_f1"])
def test_interval_agrees_with_resampling_the_images_themselves(statistic):
    labels, predicted = some_predictions(5, 400, 0.8)
    measure = {"accuracy": accuracy_score, "macro_f1": lambda a, p: f1_score(a, p, average="macro")}[statistic]
    generator = np.random.default_rng(1)
    rows = [np.flatnonzero(labels == label) for label in range(5)]
    values = []
    for _ in range(500):
        chosen = np.concatenate([generator.choice(own, len(own)) for own in rows])
        values.append(measure(labels[chosen], predicted[chosen]))
    low, high = bootstrap_interval(labels, predicted, statistic, confidence=0.9, resamples=4000, seed=2)
    assert low == pytest.approx(np.quantile(values, 0.05), abs=0.008)
    assert high == pytest.approx(np.quantile(values, 0.95), abs=0.008)


def test_interval_is_seeded_and_widens_with_confidence():
    labels, predicted = some_predictions(4, 200, 0.8)

    def interval(confidence, seed):
        return bootstrap_interval(labels, predicted, confidence=confidence, resamples=500, seed=seed)

    assert interval(0.95, 1) == interval(0.95, 1)
    assert interval(0.99, 1)[0] < interval(0.8, 1)[0] < interval(0.8, 1)[1] < interval(0.99, 1)[1]


@pytest.mark.parametrize(
    ("samples", "wrong", "classes"),
    [(60, 0, 3), (60, 60, 3), (60, 3, 3), (50, 15, 50)],
    ids=["all right", "all wrong", "three wrong", "one image per class"],
)
def test_interval_is_wilsons_where_a_bootstrap_has_too_little_to_draw(samples, wrong, classes):
    labels = np.arange(samples) % classes
    predicted = np.where(np.arange(samples) < wrong, (labels + 1) % classes, labels)
    expected = stats.binomtest(samples - wrong, samples).proportion_ci(0.95, method="wilson")
    received = bootstrap_interval(labels, predicted, confidence=0.95, resamples=200, seed=0)
    assert received == pytest.approx((expected.low, expected.high))


def test_macro_f1_is_not_certain_where_every_prediction_is_right():
    labels = np.arange(60) % 3
    low, high = bootstrap_interval(labels, labels, "macro_f1", confidence=0.95, resamples=200, seed=0)
    assert 0.9 < low < 0.96
    assert high == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "per_class", "accuracy"),
    [(10, 36, 0.93), (10, 36, 0.98), (2, 76, 0.9), (100, 3, 0.9), (50, 1, 0.9), (10, 100, 0.7)],
)
def test_interval_covers_the_true_accuracy_about_as_often_as_it_says(classes, per_class, accuracy):
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), per_class)
    # Classes of unequal difficulty, as real ones are, with the asked mean.
    chance = np.clip(accuracy + (1 - accuracy) * np.linspace(-0.8, 0.8, classes), 0, 1)
    covered = 0
    for trial in range(1500):
        right = generator.random(len(labels)) < chance[labels]
        predicted = np.where(right, labels, (labels + 1) % classes)
        low, high = bootstrap_interval(labels, predicted, confidence=0.95, resamples=400, seed=trial)
        covered += low <= chance.mean() <= high
    assert 0.925 < covered / 1500 < 0.985
