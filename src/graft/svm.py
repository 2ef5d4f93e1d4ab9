"""A support vector machine on frozen features, with calibrated probabilities."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from joblib import Parallel, delayed, parallel_config
from sklearn.base import ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

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
    pipeline, candidates = _candidates(len(features), settings, seed)
    score = accuracy_score
    if class_weights == "balanced":
        pipeline.set_params(svm__class_weight="balanced")
        score = balanced_accuracy_score
    scores = [_fold_scores(features, labels, fold, pipeline, candidates, score) for fold in folds]
    table = _search_table(candidates, np.stack(scores, axis=1))
    chosen = candidates[table["mean_accuracy"].argmax()]
    _configure(pipeline[-1], chosen, len(features))
    with _threads():
        model = CalibratedClassifierCV(pipeline, method="temperature", cv=folds, ensemble=False).fit(features, labels)
    return Machine(model, table, chosen)


@contextmanager
def _threads() -> Iterator[None]:
    """What joblib and scikit-learn can do in parallel, they do here, in threads.

    The machines compute without Python's lock. BLAS must not divide each thread's short vectors once more.
    """
    with parallel_config("threading", n_jobs=-1), threadpool_limits(1, "blas"):
        yield


def _candidates(rows: int, settings: Svm, seed: int) -> tuple[Pipeline, list[dict[str, Any]]]:
    """The machine, and what is to be tried, C by C."""
    scale = ("scale", StandardScaler())
    if rows <= settings.max_rows:
        grid = [{"C": c, "kernel": kernel} for c in settings.c for kernel in settings.kernels]
        return Pipeline([scale, ("svm", SVC())]), grid
    # Averaged stochastic gradients of the hinge loss (Xu 2011): in float32 and without a copy of the rows.
    steps = [scale, ("svm", SGDClassifier("hinge", average=True, random_state=seed))]
    if settings.approximation == "nystroem":
        steps.insert(1, ("kernel", Nystroem(n_components=min(settings.components, rows // 2), random_state=seed)))
    return Pipeline(steps), [{"C": c} for c in settings.c]


def _configure(machine: SVC | SGDClassifier, candidate: dict[str, Any], rows: int) -> SVC | SGDClassifier:
    """The machine with a candidate's parameters; rows: of all folds, which make C the weight of the squared norm."""
    if isinstance(machine, SVC):
        return machine.set_params(**candidate)
    return machine.set_params(alpha=1 / (candidate["C"] * rows))


def _fold_scores(
    features: np.ndarray,
    labels: np.ndarray,
    fold: tuple[np.ndarray, np.ndarray],
    pipeline: Pipeline,
    candidates: Sequence[dict[str, Any]],
    score: Callable[..., float],
) -> np.ndarray:
    """The score of each candidate on the rows left out, as GridSearchCV finds them.

    What candidates share is computed once: the scaling, the Nystroem map and, of an exact machine, the kernel, which
    libsvm would compute anew for each C and each pair of classes.
    """
    prepare = clone(pipeline[:-1]).fit(features[fold[0]])
    seen, unseen = (prepare.transform(features[rows]) for rows in fold)
    targets = [labels[rows] for rows in fold]
    scores = np.empty(len(candidates))
    for kernel in dict.fromkeys(candidate.get("kernel") for candidate in candidates):
        places = [place for place, candidate in enumerate(candidates) if candidate.get("kernel") == kernel]
        inputs = (seen, unseen) if kernel is None else _kernels(kernel, seen, unseen)
        machines = [_configure(clone(pipeline[-1]), candidates[place], len(features)) for place in places]
        if kernel is not None:
            machines = [machine.set_params(kernel="precomputed") for machine in machines]
        with _threads():
            scores[places] = Parallel()(delayed(_score)(machine, *inputs, *targets, score) for machine in machines)
    return scores


def _kernels(name: str, seen: np.ndarray, unseen: np.ndarray) -> list[np.ndarray]:
    """The kernel, with SVC's own defaults, between the rows seen, and of the rows unseen with them."""
    default, seen = SVC(), seen.astype(np.float64)
    variance = seen.var()
    gamma = 1 / (seen.shape[1] * variance) if variance else 1.0  # SVC's "scale"
    parameters = {"gamma": gamma, "degree": default.degree, "coef0": default.coef0}
    return [
        pairwise_kernels(rows, seen, metric=name, filter_params=True, n_jobs=1, **parameters)
        for rows in (seen, unseen.astype(np.float64))
    ]


def _score(
    machine: ClassifierMixin,
    seen: np.ndarray,
    unseen: np.ndarray,
    seen_labels: np.ndarray,
    unseen_labels: np.ndarray,
    score: Callable[..., float],
) -> float:
    return score(unseen_labels, machine.fit(seen, seen_labels).predict(unseen))


def _search_table(candidates: Sequence[dict[str, Any]], scores: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(candidates)
    return table.assign(mean_accuracy=scores.mean(axis=1), std_accuracy=scores.std(axis=1))


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
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED))
        if unknown:
            raise ArtifactError(f"{path} must hold an SVM written by this pipeline, received also {', '.join(unknown)}")
        return skops.io.load(path, trusted=list(TRUSTED))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
