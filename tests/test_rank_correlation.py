from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from graft.rank_correlation import RankCorrelation, rank_correlations


def correlate(scores: list[float], finetuned: list[float]) -> dict[tuple[str, str], RankCorrelation]:
    """Of LogME scores with accuracies; the linear probe ranks in reverse, and no SVM was trained."""
    names = [f"base{k}" for k in range(len(scores))]
    transfer = pd.DataFrame({"backbone": names, "logme": scores, "linear_probe": [-score for score in scores]})
    final = pd.DataFrame({"backbone": names, "kind": "finetune", "accuracy": finetuned})
    baseline = pd.DataFrame({"backbone": [None], "kind": ["baseline"], "accuracy": [1.0]})
    found = rank_correlations(transfer.astype({"logme": float}), pd.concat([final[::-1], baseline.astype(object)]))
    return {(one.score, one.kind): one for one in found}


def test_four_bases_cannot_be_surer_than_two_in_twenty_four() -> None:
    found = correlate([0.1, 0.2, 0.3, 0.4], [0.80, 0.85, 0.90, 0.95])
    assert list(found) == [
        ("logme", "finetune"), ("logme", "svm"), ("linear_probe", "finetune"), ("linear_probe", "svm"),
    ]  # fmt: skip
    same, reverse = found["logme", "finetune"], found["linear_probe", "finetune"]
    assert (same.coefficient, same.n) == (pytest.approx(1), 4)
    assert same.p_value == pytest.approx(2 / 24)
    assert (reverse.coefficient, reverse.p_value) == (pytest.approx(-1), pytest.approx(2 / 24))
    assert found["logme", "svm"] == RankCorrelation("logme", "svm", None, None, 0)


def test_one_exchanged_pair_of_four() -> None:
    """Five of six pairs agree: tau = (5 - 1) / 6; 1 + 3 orderings of 24 are as far on each side."""
    found = correlate([0.1, 0.2, 0.3, 0.4], [0.80, 0.90, 0.85, 0.95])["logme", "finetune"]
    assert found.coefficient == pytest.approx(4 / 6)
    assert found.p_value == pytest.approx(8 / 24)


def test_ties_keep_the_p_value_exact() -> None:
    scores, accuracies = [0.1, 0.2, 0.3, 0.4, 0.5], [0.8, 0.9, 0.9, 0.85, 0.95]
    found = correlate(scores, accuracies)["logme", "finetune"]
    taus = np.array([kendalltau(scores, ordering).statistic for ordering in permutations(accuracies)])
    observed = kendalltau(scores, accuracies).statistic
    assert found.coefficient == pytest.approx(observed)
    assert found.p_value == pytest.approx((np.abs(taus) >= abs(observed) - 1e-12).mean())


@pytest.mark.parametrize("accuracies", [[0.9], [0.9, 0.9, 0.9]])
def test_without_two_different_values_there_is_no_correlation(accuracies: list[float]) -> None:
    found = correlate([0.1, 0.2, 0.3][: len(accuracies)], accuracies)["logme", "finetune"]
    assert found == RankCorrelation("logme", "finetune", None, None, len(accuracies))
