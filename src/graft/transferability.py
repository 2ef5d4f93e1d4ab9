"""How well a frozen base suits a data set, told from its features before anything is trained on it.

One thread computes: sums of several would differ in their last digits from machine to machine, and the many short ones
here gain little from more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from graft.errors import GraftError

# Of the signal in the features' strongest direction to the noise, as log10 of the variances' ratio: what is searched
# for the largest evidence. At the lower end the features say nothing; the upper end keeps the evidence finite where
# they reproduce the labels exactly.
WEAKEST, STRONGEST, STEPS = -6.0, 12.0, 145
INVERSE_PENALTY = 10.0  # see linear_probe


class TransferabilityError(GraftError):
    """The training images are too few to judge a base by."""


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME (You et al. 2021): how probable the labels are under Bayesian linear regression on the features.

    For each class that occurs, the labels become targets y of ones and zeros with y = F w + noise, w ~ N(0, 1/alpha)
    and noise ~ N(0, 1/beta). The score is the natural logarithm of p(y | F), largest over alpha and beta, per image,
    as the mean over the classes. It has no intercept and takes the features as they are, like the paper; a common
    factor of the features changes nothing. Higher is better; it has no upper bound, and only scores of the same images
    can be compared. The paper finds the maximum by a fixed point in alpha and beta. Here the best noise is solved for
    each ratio of the two, which leaves one dimension to search.

    Args:
        features: (n, features), one row per image.
        labels: class numbers (n,).

    Raises:
        TransferabilityError: there are fewer than two classes.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise TransferabilityError(f"LogME needs images of at least two classes, received {len(present)}")
    with threadpool_limits(1):
        left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    targets = (labels[:, None] == present).astype(np.float64)
    explained = (left.T @ targets) ** 2
    unexplained = np.maximum(targets.sum(axis=0) - explained.sum(axis=0), 0)
    strengths = (singular / max(singular[0], np.finfo(np.float64).tiny)) ** 2
    parts = zip(explained.T, unexplained, strict=True)
    return float(np.mean([_largest_evidence(strengths, *part, len(labels)) for part in parts]) / len(labels))


def _largest_evidence(strengths: np.ndarray, explained: np.ndarray, unexplained: float, n: int) -> float:
    """Of one class; the best of a grid, refined between its neighbours.

    Args:
        strengths: squares of the singular values, as shares of the largest.
        explained: squares of the targets along the singular vectors.
        unexplained: sum of the squares elsewhere.
        n: images.
    """

    def evidence(exponents: np.ndarray) -> np.ndarray:
        # Along the singular vectors the covariance of y is diagonal: noise x (1 + ratio x strength), and noise
        # elsewhere. So the best noise of each ratio is a mean of squares.
        widths = 1 + 10 ** exponents[:, None] * strengths
        noise = ((1 / widths) @ explained + unexplained) / n
        return -0.5 * (n * np.log(2 * np.pi * noise) + n + np.log(widths).sum(axis=1))

    grid = np.linspace(WEAKEST, STRONGEST, STEPS)
    values = evidence(grid)
    best = int(values.argmax())
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, STEPS - 1)])
    refined = minimize_scalar(lambda exponent: -evidence(np.array([exponent]))[0], bounds=bounds, method="bounded")
    return float(max(values[best], -refined.fun))  # the refinement leaves out its bounds


@dataclass(frozen=True)
class Probe:
    """A cross-validated linear classifier.

    Attributes:
        probabilities: (n, classes), of each image by the fold that was not fitted on it.
        folds: how many there were.
    """

    probabilities: np.ndarray
    folds: int


def linear_probe(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, classes: int, folds: int, seed: int
) -> Probe:
    """Multinomial logistic regression on frozen features, cross-validated by stratified folds that keep groups whole.

    Features are standardised on the fitted part. C is ten divided by their number, which is C = 10 for rows of length
    one on average, so that one penalty suits bases of any width; nothing is chosen by looking at the score.

    Args:
        features: (n, features), one row per image.
        labels: class numbers (n,).
        groups: (n,); images that belong together share one.
        classes: columns of the probabilities.
        folds: at most so many; fewer where a class has fewer groups.
        seed: of the folds.

    Raises:
        TransferabilityError: a class has a single group, or the images outside of a fold would be of one class.
    """
    parts = _folds(labels, groups, folds, seed)
    probabilities = np.zeros((len(labels), classes))
    rows = features.astype(np.float64)
    with threadpool_limits(1):
        for seen, unseen in parts:
            model = _classifier(rows.shape[1]).fit(rows[seen], labels[seen])
            probabilities[np.ix_(unseen, model.classes_)] = model.predict_proba(rows[unseen])
    return Probe(probabilities, len(parts))


def _folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    counts = pd.DataFrame({"label": labels, "group": groups}).drop_duplicates()["label"].value_counts().sort_index()
    if len(counts) < 2 or counts.min() < 2:
        raise TransferabilityError(
            "a linear probe needs training images of at least two classes, in at least two groups (or single images) "
            f"of each, received {len(counts)} classes, of which number {counts.idxmin()} has {counts.min()}"
        )
    splitter = StratifiedGroupKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)
    parts = list(splitter.split(labels, labels, groups))
    if any(len(np.unique(labels[seen])) < 2 for seen, _ in parts):
        raise TransferabilityError(
            f"a linear probe needs two classes outside of every fold, but the groups of the {len(labels)} training "
            "images leave one: they are too few or too unequal"
        )
    return parts


def _classifier(width: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY / width, max_iter=1000))
