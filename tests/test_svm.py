from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from graft import svm as module
from graft.checkpoints import Checkpoints
from graft.sections import Svm
from graft.storage import ArtifactError
from graft.svm import SvmError, count_parameters, fit_svm, load_svm, save_svm
from graft.svm_search import fold_scores

SETTINGS = {
    "kernels": ["rbf", "linear"], "c": [0.1, 10.0], "folds": 3, "max_rows": 500, "approximation": "nystroem",
    "components": 20,
}  # fmt: skip


def svm(**changes: Any) -> Svm:
    return Svm(**(SETTINGS | changes))


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three overlapping classes of 20 images in 3 views: features (180, 4), labels, image of each row."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.normal(size=(60, 4)) + np.eye(3, 4)[labels] * 3
    features = np.concatenate([images + random.normal(scale=0.1, size=images.shape) for _ in range(3)])
    return features, np.tile(labels, 3), np.tile(np.arange(60), 3)


def test_the_chosen_machine_predicts_as_plain_scikit_learn_with_its_parameters(blobs: Any) -> None:
    features, labels, groups = blobs
    machine = fit_svm(features, labels, groups, svm(), seed=1)
    plain = make_pipeline(StandardScaler(), SVC(**machine.choice)).fit(features, labels)
    probabilities = machine.model.predict_proba(features)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), plain.predict(features))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert len(machine.search) == 4
    best = machine.search.loc[machine.search["mean_accuracy"].idxmax()]
    assert (best["C"], best["kernel"]) == (machine.choice["C"], machine.choice["kernel"])


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("changes", [{}, {"max_rows": 100}, {"max_rows": 100, "approximation": "linear"}])
def test_the_search_is_that_of_scikit_learn(blobs: Any, class_weights: str, changes: dict[str, Any]) -> None:
    """Sharing a fold's scaling and kernel between candidates changes no score."""
    features, labels, groups = blobs
    rows = np.flatnonzero((labels != 0) | (groups < 30))  # one class is rarer
    features, labels, groups = features[rows], labels[rows], groups[rows]
    machine = fit_svm(features, labels, groups, svm(kernels=["rbf", "linear", "poly"], **changes), 1, class_weights)
    pipeline = machine.model.calibrated_classifiers_[0].estimator
    grid: dict[str, list[Any]] = {"svm__C": [0.1, 10.0], "svm__kernel": ["rbf", "linear", "poly"]}
    if changes:
        grid = {"svm__alpha": [1 / (c * len(features)) for c in (0.1, 10.0)]}
    folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=1).split(features, labels, groups))
    scoring = {"none": "accuracy", "balanced": "balanced_accuracy"}[class_weights]
    plain = GridSearchCV(pipeline, grid, cv=folds, scoring=scoring).fit(features, labels)
    np.testing.assert_array_equal(machine.search["mean_accuracy"], plain.cv_results_["mean_test_score"])
    np.testing.assert_allclose(machine.search["std_accuracy"], plain.cv_results_["std_test_score"])
    best = machine.search.loc[plain.best_index_]
    assert machine.choice == {name: best[name] for name in machine.choice}
    calibrated = CalibratedClassifierCV(plain.best_estimator_, method="temperature", cv=folds, ensemble=False)
    probabilities = calibrated.fit(features, labels).predict_proba(features)
    np.testing.assert_allclose(machine.model.predict_proba(features), probabilities, rtol=1e-6, atol=1e-12)


def test_views_of_an_image_are_never_in_two_folds() -> None:
    """Random labels on near-copies: with copies in other folds the search would report nearly 100 %."""
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(60, 10)), np.tile([0, 1], 30)
    features = np.repeat(images, 5, axis=0) + random.normal(scale=1e-3, size=(300, 10))
    machine = fit_svm(features, np.repeat(labels, 5), np.repeat(np.arange(60), 5), svm(c=[10.0]), seed=1)
    assert machine.search["mean_accuracy"].max() < 0.75


def test_scaling_is_part_of_the_machine(blobs: Any) -> None:
    features, labels, groups = blobs
    one = fit_svm(features, labels, groups, svm(), seed=1).model.predict_proba(features)
    scaled = features * [1e6, 1, 1e-6, 1] + 5
    other = fit_svm(scaled, labels, groups, svm(), seed=1).model.predict_proba(scaled)
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("max_rows", [500, 10])
def test_balanced_weights_find_the_rare_class(max_rows: int) -> None:
    """Ten of a class among 190 of another, much overlapping: plain accuracy is best served by ignoring them."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [190, 10])
    features = random.normal(size=(200, 2)) + labels[:, None] * [1.0, 0.0]
    settings = svm(c=[0.1], kernels=["linear"], max_rows=max_rows, approximation="linear")

    def recall(class_weights: str) -> float:
        model = fit_svm(features, labels, np.arange(200), settings, 1, class_weights).model
        return float((model.predict_proba(features)[labels == 1].argmax(axis=1) == 1).mean())

    assert recall("none") < 0.2
    assert recall("balanced") > 0.6


@pytest.mark.parametrize("approximation", ["linear", "nystroem"])
def test_above_max_rows_no_kernel_matrix_is_built(blobs: Any, approximation: str) -> None:
    features, labels, groups = blobs
    machine = fit_svm(features, labels, groups, svm(max_rows=100, approximation=approximation), seed=1)
    steps = [type(step).__name__ for _, step in machine.model.calibrated_classifiers_[0].estimator.steps]
    assert steps == ["StandardScaler", *(["Nystroem"] if approximation == "nystroem" else []), "SGDClassifier"]
    assert list(machine.search.columns) == ["C", "mean_accuracy", "std_accuracy"]
    assert (machine.model.predict_proba(features).argmax(axis=1) == labels).mean() > 0.8


@pytest.mark.parametrize("max_rows", [500, 100])
def test_saved_and_loaded_machines_agree(blobs: Any, tmp_path: Path, max_rows: int) -> None:
    features, labels, groups = blobs
    model = fit_svm(features, labels, groups, svm(max_rows=max_rows), seed=1).model
    save_svm(tmp_path / "svm.skops", model)
    again = fit_svm(features, labels, groups, svm(max_rows=max_rows), seed=1).model
    save_svm(tmp_path / "again.skops", again)
    assert (tmp_path / "again.skops").read_bytes() == (tmp_path / "svm.skops").read_bytes()
    loaded = load_svm(tmp_path / "svm.skops")
    np.testing.assert_array_equal(loaded.predict_proba(features), model.predict_proba(features))


def test_a_file_with_other_types_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    import skops.io

    skops.io.dump({"model": Path("x")}, tmp_path / "svm.skops")
    with pytest.raises(ArtifactError, match=r"must hold an SVM written by this pipeline, received also pathlib"):
        load_svm(tmp_path / "svm.skops")
    with pytest.raises(ArtifactError, match="missing"):
        load_svm(tmp_path / "none.skops")


def test_more_folds_than_images_of_a_class_is_one_error(blobs: Any) -> None:
    features, labels, groups = blobs
    with pytest.raises(SvmError, match=r"folds must not exceed .* received 21 for class number \d with 20"):
        fit_svm(features, labels, groups, svm(folds=21), seed=1)


def test_parameters_by_hand(blobs: Any) -> None:
    """A linear machine: mean and scale of 4 features, 3 x 4 coefficients, 3 intercepts."""
    features, labels, groups = blobs
    model = fit_svm(features, labels, groups, svm(max_rows=10, approximation="linear"), seed=1).model
    assert count_parameters(model) == 4 + 4 + 12 + 3


class StoppedError(Exception):
    """Ends a search where a test wants it."""


class Stopping:
    """fold_scores, which is called so many times and then ends the search."""

    def __init__(self, calls: int) -> None:
        self.left, self.compute = calls, fold_scores

    def __call__(self, *arguments: Any, **more: Any) -> np.ndarray:
        if not self.left:
            raise StoppedError
        self.left -= 1
        return self.compute(*arguments, **more)


@pytest.mark.parametrize("max_rows", [500, 10])
def test_a_search_goes_on_after_an_interruption_and_ends_with_the_same_machine(
    blobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    def search(calls: int) -> None:
        monkeypatch.setattr(module, "fold_scores", Stopping(calls))
        kept = Checkpoints(tmp_path / "kept", {}).at("search")
        machine = fit_svm(*blobs, svm(max_rows=max_rows), 1, "balanced", kept)
        save_svm(tmp_path / "resumed.skops", machine.model)
        pd.testing.assert_frame_equal(machine.search, alone.search, check_exact=True)

    alone = fit_svm(*blobs, svm(max_rows=max_rows), 1, "balanced")
    save_svm(tmp_path / "alone.skops", alone.model)
    for calls in (1, 0):
        with pytest.raises(StoppedError):
            search(calls)
    search(2)  # of three folds
    assert (tmp_path / "resumed.skops").read_bytes() == (tmp_path / "alone.skops").read_bytes()
    search(0)
    assert (tmp_path / "resumed.skops").read_bytes() == (tmp_path / "alone.skops").read_bytes()


@pytest.mark.parametrize(
    ("max_rows", "message"),
    [
        (
            500,
            "memory must hold the exact kernel of 180 training rows, 172,800 bytes for a fold, and ran out (no room); "
            "lower svm.max_rows, now 500, below the rows to have it approximated, or augment.views",
        ),
        (
            100,
            "memory must hold 180 training rows of 4 features, and ran out (no room); "
            "lower svm.components, now 20, or augment.views",
        ),
    ],
)
def test_running_out_of_memory_names_rows_bytes_and_the_key_to_lower(
    blobs: Any, monkeypatch: pytest.MonkeyPatch, max_rows: int, message: str
) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(module, "fold_scores", full)
    with pytest.raises(SvmError) as refused:
        fit_svm(*blobs, svm(max_rows=max_rows), 1)
    assert str(refused.value) == message
