"""A support vector machine on frozen features, with calibrated probabilities."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.errors import GraftError
from graft.model_files import check_machine
from graft.sections import Svm
from graft.storage import ArtifactError, write_zip
from graft.svm_search import candidates_of, configure, fold_scores, search_table, threads

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
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    settings: Svm,
    seed: int,
    class_weights: str = "none",
    checkpoints: Checkpoints = NOTHING_KEPT,
) -> Machine:
    """Choose kernel and C by cross-validation, then fit on all rows and calibrate.

    The folds are stratified and keep the views of a group of images together, for the search and for the calibration
    alike; otherwise a fold would be scored on images it was trained on. Scores become probabilities by temperature
    scaling (Guo et al. 2017) on out-of-fold decision values, which leaves the predicted class as it was. An exact
    search holds the kernel between all training rows of a fold: 8 bytes x rows x rows.

    Args:
        features: of shape (n, features), training rows only.
        labels: class numbers of shape (n,).
        groups: of each row's image, of shape (n,); the views of an image, and images that belong together, share one.
        settings: the grid; above max_rows the kernel is approximated (Nystroem) or linear, so that cost grows with n.
        seed: of the folds and of the approximation.
        class_weights: none; or balanced: rows count inversely to their class's share, and the search chooses by
            balanced accuracy.
        checkpoints: of this search; folds whose scores they hold are not computed again.

    Raises:
        SvmError: a class has fewer groups of images than there are folds, or memory ran out.
    """
    images = pd.DataFrame({"label": labels, "group": groups}).drop_duplicates()["label"].value_counts()
    if images.min() < settings.folds:
        raise SvmError(
            f"svm.folds must not exceed the training images (or groups of them) of any class, received "
            f"{settings.folds} for class number {images.idxmin()} with {images.min()}"
        )
    folds = list(StratifiedGroupKFold(settings.folds, shuffle=True, random_state=seed).split(features, labels, groups))
    pipeline, candidates = candidates_of(len(features), settings, seed)
    score = accuracy_score
    if class_weights == "balanced":
        pipeline.set_params(svm__class_weight="balanced")
        score = balanced_accuracy_score
    with _named_memory_errors(features.shape, settings):
        score_fold = partial(fold_scores, features, labels, pipeline=pipeline, candidates=candidates, score=score)
        scores = [
            _kept(checkpoints.at(f"fold-{number}"), partial(score_fold, fold=fold))
            for number, fold in enumerate(folds, start=1)
        ]
        table = search_table(candidates, np.stack(scores, axis=1))
        chosen = candidates[table["mean_accuracy"].argmax()]
        configure(pipeline[-1], chosen, len(features))
        with threads():
            model = CalibratedClassifierCV(pipeline, method="temperature", cv=folds, ensemble=False)
            model.fit(features, labels)
    return Machine(model, table, chosen)


def _kept(place: Checkpoints, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What a place keeps; computed and kept where it keeps nothing."""
    if (saved := place.load()) is not None:
        return saved.arrays[0]
    scores = compute()
    place.save(Saved([scores], {}))
    return scores


@contextmanager
def _named_memory_errors(shape: tuple[int, ...], settings: Svm) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        rows = shape[0]
        if rows > settings.max_rows:
            need, advice = f"{rows:,} training rows of {shape[1]:,} features", f"components, now {settings.components}"
        else:
            seen = rows - rows // settings.folds
            need = f"the exact kernel of {rows:,} training rows, {8 * seen * rows:,} bytes for a fold"
            advice = f"max_rows, now {settings.max_rows:,}, below the rows to have it approximated"
        raise SvmError(
            f"memory must hold {need}, and ran out ({error or 'MemoryError'}); lower svm.{advice}, or augment.views"
        ) from error


def count_parameters(model: CalibratedClassifierCV) -> int:
    """How many fitted numbers a prediction uses: scaler, kernel map, support vectors and coefficients."""
    fitted = model.calibrated_classifiers_[0].estimator
    names = ("mean_", "scale_", "components_", "normalization_", "support_vectors_", "dual_coef_", "intercept_")
    arrays = [getattr(step, name) for _, step in fitted.steps for name in names if hasattr(step, name)]
    linear = [step.coef_ for _, step in fitted.steps if isinstance(step, SGDClassifier)]
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
    check_machine(path)
    try:
        return skops.io.load(path, trusted=list(TRUSTED))
    except Exception as error:  # of whichever class it restores
        raise ArtifactError(f"{path} is damaged: {str(error)[:200]}") from error
