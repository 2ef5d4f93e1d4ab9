from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from graft.calibration import (
    FLOOR,
    HIGHEST,
    LOWEST,
    Calibration,
    abstain_threshold,
    apply_temperature,
    fit_calibration,
    fit_temperature,
    read_calibration,
    remove_temperature,
    write_calibration,
)
from graft.storage import ArtifactError, write_json


def sure(p: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes; every image is given to class 0 with the same probability, so many of them rightly."""
    labels = np.repeat([0, 1], [right, wrong])
    return labels, np.tile([p, 1 - p], (right + wrong, 1))


def drawn(n: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from random probabilities, and these as a model would give them that is off by a temperature."""
    random = np.random.default_rng(seed)
    actual = random.dirichlet(np.full(classes, 0.3), n)
    labels = (random.random((n, 1)) > actual.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return labels, remove_temperature(actual, temperature)


@pytest.mark.parametrize(("p", "right", "wrong"), [(0.99, 8, 2), (0.6, 9, 1), (0.9, 9, 1), (0.999, 51, 49)])
def test_two_classes_by_hand(p: float, right: int, wrong: int) -> None:
    """The loss is lowest where the confidence is the share of right ones: logit(p) / T = logit(right / n)."""
    labels, probabilities = sure(p, right, wrong)
    temperature = fit_temperature(labels, probabilities)
    by_hand = math.log(p / (1 - p)) / math.log(right / wrong)
    if by_hand <= HIGHEST:
        assert temperature == pytest.approx(by_hand, rel=1e-9)
        np.testing.assert_allclose(apply_temperature(probabilities, temperature)[:, 0], right / (right + wrong))
    else:
        assert temperature == HIGHEST


def test_three_classes_by_hand() -> None:
    """Log p / T of (8/10, 1/10, 1/10) at T = 3 is (2, 1, 1) / 4, which is right where half of the images are."""
    labels = np.array([0, 0, 1, 2])
    assert fit_temperature(labels, np.tile([0.8, 0.1, 0.1], (4, 1))) == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize("off", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found_and_no_other_has_a_lower_loss(off: float) -> None:
    labels, probabilities = drawn(4000, 5, off)
    temperature = fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(off, rel=0.06)

    def loss(log_temperature: float) -> float:
        return float(log_loss(labels, apply_temperature(probabilities, math.exp(log_temperature)), labels=range(5)))

    plain = minimize_scalar(loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    assert math.log(temperature) == pytest.approx(plain.x, abs=1e-4)
    assert loss(math.log(temperature)) <= plain.fun


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        pytest.param([0, 1], [[0.9, 0.1], [0.2, 0.8]], 1.0, id="all right: surer, but not how much"),
        pytest.param([0, 1], [[1.0, 0.0], [0.0, 1.0]], 1.0, id="all right and certain"),
        pytest.param([0], [[0.6, 0.4]], 1.0, id="one image, right"),
        pytest.param([1], [[0.6, 0.4]], HIGHEST, id="one image, wrong"),
        pytest.param([1, 1], [[1.0, 0.0], [1.0, 0.0]], HIGHEST, id="all wrong and certain"),
        pytest.param([0, 0, 0], [[1.0], [1.0], [1.0]], 1.0, id="one class"),
        pytest.param([0, 1], [[0.5, 0.5], [0.5, 0.5]], 1.0, id="no preference"),
        pytest.param([0] * 99 + [1], [[0.51, 0.49]] * 99 + [[0.500001, 0.499999]], LOWEST, id="far too unsure"),
    ],
)
def test_where_validation_says_little_the_temperature_stays_in_its_bounds(
    labels: list[int], probabilities: list[list[float]], expected: float
) -> None:
    assert fit_temperature(np.array(labels), np.array(probabilities)) == expected


def test_a_zero_counts_as_the_least_that_a_network_can_say() -> None:
    """One of two certain images is wrong: logit(1 - FLOOR) / T = logit(1/2) has no solution, three of four has one."""
    labels, probabilities = sure(1.0, 3, 1)
    assert fit_temperature(labels, probabilities) == HIGHEST
    labels, probabilities = sure(1.0, 99, 1)
    assert fit_temperature(labels, probabilities) == pytest.approx(-math.log(FLOOR) / math.log(99), rel=1e-9)


@pytest.mark.parametrize("temperature", [LOWEST, 0.3, 1.0, 1.7, HIGHEST])
def test_removing_a_temperature_undoes_applying_it(temperature: float) -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.full(10, 0.05), 500)
    probabilities = np.maximum(probabilities, 1e-30)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    calibrated = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(remove_temperature(calibrated, temperature), probabilities, rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [LOWEST, 0.5, 3.0, HIGHEST])
def test_the_predicted_class_never_changes(temperature: float) -> None:
    """Also where two classes are equal, where they differ by the last bit alone, and where the others underflow."""
    up = np.nextafter(0.5, 1)
    hard = [
        [0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, up, 0.0], [up, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 1.0],
        [1e-300, 1.0, 1e-300], [np.nextafter(1 / 3, 0), 1 / 3, np.nextafter(1 / 3, 1)],
    ]  # fmt: skip
    random = np.random.default_rng(2)
    steps = random.integers(0, 3, (2000, 3)) * np.spacing(0.4)
    near = np.concatenate([np.array(hard), 0.4 + steps, random.dirichlet(np.ones(3), 2000)])
    for probabilities in (near, near.astype(np.float32)):
        for scaled in (apply_temperature, remove_temperature):
            np.testing.assert_array_equal(
                scaled(probabilities, temperature).argmax(axis=1), probabilities.argmax(axis=1)
            )


LABELS = np.zeros(25, int)
CONFIDENCE = np.repeat([0.95, 0.9, 0.8, 0.8, 0.6], 5)
RIGHT = np.repeat([True, True, True, False, True], 5)  # shares from the surest down: 1, 1, 3/4 (two at once), 4/5


def predictions(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two classes, of which 0 is the actual one."""
    first = np.where(right, confidence, 1 - confidence)
    return np.column_stack([first, 1 - first])


@pytest.mark.parametrize(
    ("accuracy", "threshold"),
    [
        pytest.param(1.0, 0.85, id="the two of 0.8 stand and fall together"),
        pytest.param(0.81, 0.85, id="three of four is too little"),
        pytest.param(0.8, 0.0, id="all of them, though some between are too few"),
        pytest.param(0.5, 0.0, id="all of them"),
    ],
)
def test_the_threshold_by_hand(accuracy: float, threshold: float) -> None:
    assert abstain_threshold(LABELS, predictions(CONFIDENCE, RIGHT), accuracy) == pytest.approx(threshold, abs=1e-9)


def test_a_threshold_rests_on_ten_answers_or_on_all_images() -> None:
    surest = predictions(np.linspace(0.99, 0.8, 20), np.arange(20) < 9)  # nine right ones, then wrong ones alone
    assert abstain_threshold(np.zeros(20, int), surest, 0.95) is None
    assert abstain_threshold(np.zeros(20, int), surest, 0.9) == pytest.approx(0.895)  # nine of ten
    assert abstain_threshold(np.zeros(4, int), surest[:4], 1.0) == 0.0


def test_where_no_confidence_is_enough_there_is_no_threshold() -> None:
    assert abstain_threshold(LABELS, predictions(CONFIDENCE, ~RIGHT), 0.9) is None
    assert abstain_threshold(np.array([1]), np.array([[0.9, 0.1]]), 0.01) is None


def test_the_order_of_the_images_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(LABELS))
    shuffled = predictions(CONFIDENCE, RIGHT)[order]
    assert abstain_threshold(LABELS, shuffled, 1.0) == abstain_threshold(LABELS, predictions(CONFIDENCE, RIGHT), 1.0)


def test_noise_of_another_batch_shape_answers_the_same_images() -> None:
    random = np.random.default_rng(3)
    labels, probabilities = drawn(300, 4, 1.0, seed=3)
    threshold = abstain_threshold(labels, probabilities, 0.9)
    assert threshold is not None
    confidence = probabilities.max(axis=1)
    answered = confidence >= threshold
    assert (probabilities.argmax(axis=1) == labels)[answered].mean() >= 0.9
    noise = random.uniform(-4e-7, 4e-7, len(confidence))
    np.testing.assert_array_equal(confidence + noise >= threshold, answered)
    saturated = np.array([[1.0, 0.0], [1 - 2e-7, 2e-7]])  # one is right, one is wrong, and both are as sure
    assert abstain_threshold(np.array([0, 1]), saturated, 0.9) is None


def test_calibration_and_its_file(tmp_path: Path) -> None:
    labels, probabilities = drawn(500, 3, 2.0)
    calibration = fit_calibration(labels, probabilities, 0.95)
    calibrated = apply_temperature(probabilities, calibration.temperature)
    assert calibration.temperature == fit_temperature(labels, probabilities)
    assert calibration.abstain_below == abstain_threshold(labels, calibrated, 0.95)
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path) == calibration
    write_calibration(tmp_path, Calibration(1.0, None, 0.99))
    assert read_calibration(tmp_path) == Calibration(1.0, None, 0.99)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"calibration.json must hold temperature, abstain_below, abstain_accuracy, received \[\]"),
        ({"temperature": 1.0}, "must hold temperature, abstain_below"),
        ({"temperature": 0}, r"calibration.json: temperature must be a number in \[0.05, 20.0\], received 0"),
        ({"temperature": "1"}, r"temperature must be .* received '1'"),
        ({"temperature": None}, r"temperature must be .* received None"),
        ({"temperature": float("nan")}, "temperature must be .* received nan"),
        ({"abstain_below": 1.5}, r"abstain_below must be a number in \[0, 1\], or null, received 1.5"),
        ({"abstain_below": False}, "abstain_below must be .* received False"),
        ({"abstain_accuracy": 0}, r"abstain_accuracy must be a number in \(0, 1\], received 0"),
    ],
)
def test_a_damaged_file_is_named_with_what_it_should_hold(tmp_path: Path, content: object, message: str) -> None:
    whole = {"temperature": 1.5, "abstain_below": 0.5, "abstain_accuracy": 0.9}
    if isinstance(content, dict) and content != {"temperature": 1.0}:
        content = whole | content
    write_json(tmp_path / "calibration.json", content)
    with pytest.raises(ArtifactError, match=message):
        read_calibration(tmp_path)


def test_a_model_without_its_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"calibration.json is missing; `dvc repro` makes it"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("call", [fit_temperature, lambda *given: abstain_threshold(*given, 0.9)])
def test_labels_and_probabilities_must_belong_together(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="at least one image, received none"):
        call(np.array([], int), np.empty((0, 2)))
    with pytest.raises(ValueError, match=r"expected 2 rows of probabilities, received shape \(3, 2\)"):
        call(np.array([0, 1]), np.full((3, 2), 0.5))
