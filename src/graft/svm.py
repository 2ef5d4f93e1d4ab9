"""A support vector machine on frozen features, with calibrated probabilities."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.kernel_approximation import Nystroem
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from graft.errors import GraftError
from graft.sections import Svm
from graft.storage import ArtifactError, write_zip

# Beyond what skops trusts by itself: what a fitted machine of this module consists of, and nothing else.
TRUSTED = (
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.linear_model._loss.HalfMultinomialLoss",
)


class SvmError(GraftError):
    """The features cannot be searched as the row asks."""


@dataclass(frozen=True)
class Machine:
    """A fitted SVM.

    Attributes:
        model: features (n, features) to calibrated probabilities by predict_proba, in class number order.
        search: one row per candidate of the grid: its parameters, mean_accuracy and std_accuracy over the folds.
        choice: the parameters chosen.
    """

    model: ClassifierMixin
    search: pd.DataFrame
    choice: dict[str, Any]


def fit_svm(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, settings: Svm, seed: int, class_weights: str = "none"
) -> Machine:
    """Choose kernel and C by cross-validation, then fit on all rows and calibrate.

    The folds are stratified and keep the views of a group of images together, for the search and for the calibration
    alike; otherwise a fold would be scored on images it was trained on. Scores become probabilities by temperature
    scaling (Guo et al. 2017) on out-of-fold decision values, which leaves the predicted class as it was.

    Args:
        features: of shape (n, features), training rows only.
        labels: class numbers of shape (n,).
        groups: of each row's image, of shape (n,); the views of an image, and images that belong together, share one.
        settings: the grid; above max_rows the kernel is approximated (Nystroem) or linear, so that cost grows with n.
        seed: of the folds and of the approximation.
        class_weights: none; or balanced: rows count inversely to their class's share, and the search chooses by
            balanced accuracy.

    Raises:
        SvmError: a class has fewer groups of images than there are folds.
    """
    images = pd.DataFrame({"label": labels, "group": groups}).drop_duplicates()["label"].value_counts()
    if images.min() < settings.folds:
        raise SvmError(
            f"svm.folds must not exceed the training images (or groups of them) of any class, received "
            f"{settings.folds} for class number {images.idxmin()} with {images.min()}"
        )
    folds = list(StratifiedGroupKFold(settings.folds, shuffle=True, random_state=seed).split(features, labels, groups))
    pipeline, grid = _candidates(len(features), settings, seed)
    scoring = "accuracy"
    if class_weights == "balanced":
        pipeline.set_params(svm__class_weight="balanced")
        scoring = "balanced_accuracy"
    search = GridSearchCV(pipeline, grid, cv=folds, scoring=scoring, refit=False, n_jobs=-1)
    search.fit(features, labels)
    best = pipeline.set_params(**search.best_params_)
    model = CalibratedClassifierCV(best, method="temperature", cv=folds, ensemble=False).fit(features, labels)
    return Machine(model, _search_table(search), _plain(search.best_params_))


def _candidates(rows: int, settings: Svm, seed: int) -> tuple[Pipeline, dict[str, list[Any]]]:
    if rows <= settings.max_rows:
        steps = [("scale", StandardScaler()), ("svm", SVC())]
        return Pipeline(steps), {"svm__kernel": list(settings.kernels), "svm__C": list(settings.c)}
    steps = [("scale", StandardScaler()), ("svm", LinearSVC(random_state=seed))]
    if settings.approximation == "nystroem":
        steps.insert(1, ("kernel", Nystroem(n_components=min(settings.components, rows // 2), random_state=seed)))
    return Pipeline(steps), {"svm__C": list(settings.c)}


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("svm__"): value for name, value in parameters.items()}


def _search_table(search: GridSearchCV) -> pd.DataFrame:
    results = search.cv_results_
    table = pd.DataFrame([_plain(parameters) for parameters in results["params"]])
    return table.assign(mean_accuracy=results["mean_test_score"], std_accuracy=results["std_test_score"])


def count_parameters(model: CalibratedClassifierCV) -> int:
    """How many fitted numbers a prediction uses: scaler, kernel map, support vectors and coefficients."""
    fitted = model.calibrated_classifiers_[0].estimator
    names = ("mean_", "scale_", "components_", "normalization_", "support_vectors_", "dual_coef_", "intercept_")
    arrays = [getattr(step, name) for _, step in fitted.steps for name in names if hasattr(step, name)]
    linear = [step.coef_ for _, step in fitted.steps if isinstance(step, LinearSVC)]
    return sum(array.size for array in arrays + linear)


def save_svm(path: Path, model: ClassifierMixin) -> None:
    """Write with skops, whose files cannot run code when read; equal machines give equal bytes.

    skops names objects by their memory addresses; here they are numbered as they occur.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    address = re.compile(r'("__id__": |"file": ")(\d+)')
    schema = entries.pop("schema.json").decode()
    addresses = dict.fromkeys(match[2] for match in address.finditer(schema))
    numbers = {found: str(number) for number, found in enumerate(addresses)}
    renamed = {f"{numbers[name.removesuffix('.npy')]}.npy": content for name, content in entries.items()}
    schema = address.sub(lambda match: match[1] + numbers[match[2]], schema)
    write_zip(path, renamed | {"schema.json": schema.encode()})


def load_svm(path: Path) -> ClassifierMixin:
    """Read a machine of this module.

    Raises:
        ArtifactError: the file is missing, damaged, or holds types that no machine of this module has.
    """
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED))
        if unknown:
            raise ArtifactError(f"{path} must hold an SVM written by this pipeline, received also {', '.join(unknown)}")
        return skops.io.load(path, trusted=list(TRUSTED))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
