"""Whether scores that are known before the training rank the bases as their final accuracies do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, permutation_test

SCORES, KINDS = ("logme", "linear_probe"), ("finetune", "svm")


@dataclass(frozen=True)
class RankCorrelation:
    """How well a score of the frozen bases foretells what was trained on them.

    Attributes:
        score: logme or linear_probe.
        kind: finetune or svm, whose final accuracy it is compared with.
        coefficient: Kendall's tau-b; None where it is undefined.
        p_value: exact, two-sided; None where it is undefined.
        n: number of backbones.
    """

    score: str
    kind: str
    coefficient: float | None
    p_value: float | None
    n: int


def rank_correlations(transfer: pd.DataFrame, final: pd.DataFrame) -> list[RankCorrelation]:
    """Kendall's tau-b of each score with the accuracy of each kind of model, score by score.

    The p-value is exact, with ties too: the share of the orderings of the backbones whose correlation is as far from
    zero. With n backbones it is at least 2 / n!, so that four bases cannot go below 0.083 however well they agree.
    Above seven backbones with ties it comes from 9,999 random orderings.

    Args:
        transfer: one row per backbone: backbone, logme, linear_probe.
        final: one row per model: backbone, kind and accuracy; other kinds are left out.
    """
    return [_correlate(transfer, final[final["kind"] == kind], score, kind) for score, kind in product(SCORES, KINDS)]


def _correlate(transfer: pd.DataFrame, final: pd.DataFrame, score: str, kind: str) -> RankCorrelation:
    pairs = transfer[["backbone", score]].merge(final[["backbone", "accuracy"]], on="backbone", validate="one_to_one")
    scores, accuracies = (pairs[column].to_numpy(np.float64) for column in (score, "accuracy"))
    distinct = [len(np.unique(values)) for values in (scores, accuracies)]
    if min(distinct) < 2:  # also where there is one backbone or none
        return RankCorrelation(score, kind, None, None, len(pairs))
    tau = kendalltau(scores, accuracies, method="auto")
    p_value = tau.pvalue if min(distinct) == len(pairs) else _p_value_with_ties(scores, accuracies)
    return RankCorrelation(score, kind, float(tau.statistic), float(p_value), len(pairs))


def _p_value_with_ties(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided; ties stay tied in every ordering, so that tau-b is largest where concordance is."""
    signs = np.sign(second[:, None] - second)

    def concordance(values: np.ndarray, axis: int) -> np.ndarray:
        ordered = np.moveaxis(values, axis, -1)
        return np.abs((np.sign(ordered[..., :, None] - ordered[..., None, :]) * signs).sum(axis=(-2, -1)))

    result = permutation_test(
        (first,), concordance, permutation_type="pairings", vectorized=True, alternative="greater", rng=0
    )
    return float(result.pvalue)
