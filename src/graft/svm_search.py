"""The grid of a support vector machine: its candidates, and how each scores on the rows that a fold leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from sklearn.base import ClassifierMixin, clone
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDClassifier
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from graft.sections import Svm


@contextmanager
def threads() -> Iterator[None]:
    """What joblib and scikit-learn can do in parallel, they do here, in threads.

    The machines compute without Python's lock. BLAS must not divide each thread's short vectors once more.
    """
    with parallel_config("threading", n_jobs=-1), threadpool_limits(1, "blas"):
        yield


def candidates_of(rows: int, settings: Svm, seed: int) -> tuple[Pipeline, list[dict[str, Any]]]:
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


def configure(machine: SVC | SGDClassifier, candidate: dict[str, Any], rows: int) -> SVC | SGDClassifier:
    """The machine with a candidate's parameters; rows: of all folds, which make C the weight of the squared norm."""
    if isinstance(machine, SVC):
        return machine.set_params(**candidate)
    return machine.set_params(alpha=1 / (candidate["C"] * rows))


def fold_scores(
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
        machines = [configure(clone(pipeline[-1]), candidates[place], len(features)) for place in places]
        if kernel is not None:
            machines = [machine.set_params(kernel="precomputed") for machine in machines]
        with threads():
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


def search_table(candidates: Sequence[dict[str, Any]], scores: np.ndarray) -> pd.DataFrame:
    """One row per candidate: its parameters, and mean and spread of its scores, of shape (candidates, folds)."""
    table = pd.DataFrame(candidates)
    return table.assign(mean_accuracy=scores.mean(axis=1), std_accuracy=scores.std(axis=1))
