import numpy as np
import pytest

from graft.sections import Svm
from graft.svm import fit_svm
from graft.svm_network import machine_network, undecided

COUNTS = (40, 25, 30, 15)


def fitted(classes, *, storage="float32", class_weights="none", kernel="rbf", approximation=None):
    """A machine on clusters of unequal size and scale, and features that it was not fitted on."""
    random, labels = np.random.default_rng(0), np.repeat(np.arange(classes), COUNTS[:classes])
    scales, centres = random.uniform(0.1, 5, 12), random.normal(0, 0.7, (classes, 12))

    def features(numbers):
        return (5 + scales * (random.normal(size=(len(numbers), 12)) + centres[numbers])).astype(storage)

    settings = Svm(
        kernels=[kernel],
        c=[1.0, 10.0],
        folds=3,
        max_rows=20 if approximation else 1000,
        approximation=approximation or "linear",
        components=20,
    )
    machine = fit_svm(features(labels), labels, np.arange(len(labels)), settings, 1, class_weights)
    return machine.model, features(random.integers(0, classes, 500))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize(
    "machine",
    [
        {"kernel": "rbf"},
        {"kernel": "linear"},
        {"kernel": "poly"},
        {"approximation": "nystroem"},
        {"approximation": "linear"},
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_network_has_the_probabilities_of_the_machine(classes, machine, class_weights):
    model, features = fitted(classes, class_weights=class_weights, **machine)
    expected = model.predict_proba(features)
    assert len(np.unique(expected.argmax(axis=1))) == classes
    given = machine_network(model).predict_on_batch(features)
    decided = ~undecided(model, features, 1e-5)
    assert decided.mean() > 0.99
    np.testing.assert_allclose(given[decided], expected[decided], atol=1e-5)


@pytest.mark.parametrize("machine", [{"kernel": "rbf"}, {"approximation": "nystroem"}], ids=str)
def test_rounded_features_are_scaled_in_their_own_precision_as_by_the_machine(machine):
    model, features = fitted(4, storage="float16", **machine)
    decided = ~undecided(model, features, 1e-5)
    given = machine_network(model, "float16").predict_on_batch(features.astype(np.float32))[decided]
    expected = model.predict_proba(features)[decided]
    np.testing.assert_allclose(given, expected, atol=1e-5)
    exact = machine_network(model).predict_on_batch(features.astype(np.float32))[decided]
    assert np.abs(exact - expected).max() > 1e-5


def test_an_image_on_the_border_of_two_classes_is_undecided():
    model, features = fitted(4, kernel="linear")
    steps = model.calibrated_classifiers_[0].estimator
    normal, offset = steps[-1].coef_[0], steps[-1].intercept_[0]
    scaled = steps[0].transform(features[:1].astype(np.float64))
    border = scaled - (scaled @ normal + offset) / (normal @ normal) * normal
    near, far = (steps[0].inverse_transform(border + step * normal / (normal @ normal)) for step in (1e-4, 1e-2))
    assert undecided(model, np.concatenate([near, far]), 1e-3).tolist() == [True, False]


@pytest.mark.parametrize(("classes", "machine"), [(2, {"kernel": "rbf"}), (4, {"approximation": "linear"})])
def test_probabilities_without_votes_have_no_jumps(classes, machine):
    model, features = fitted(classes, **machine)
    assert not undecided(model, features, np.inf).any()
