"""How much less images that come in groups tell than as many independent ones."""

from __future__ import annotations

import numpy as np


def intraclass_correlation(values: np.ndarray, groups: np.ndarray) -> float:
    """How alike values of one group are: the one-way ANOVA estimate, within 0..1; 0 where no group has two.

    Args:
        values: numbers or bool, of shape (n,).
        groups: their groups' numbers, of shape (n,), 0..k-1 without a gap.
    """
    sizes = np.bincount(groups)
    k, n = len(sizes), len(groups)
    if k < 2 or k == n:
        return 0.0
    sums = np.bincount(groups, values)
    between = (sizes * (sums / sizes - values.mean()) ** 2).sum() / (k - 1)
    within = ((values**2).sum() - (sums**2 / sizes).sum()) / (n - k)
    size = (n - (sizes**2).sum() / n) / (k - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0


def design_effect(groups: np.ndarray, correlation: float) -> float:
    """By how much the mean of values in groups (group numbers (n,)) varies more than of as many independent ones."""
    sizes = np.bincount(groups)
    return float(1 + ((sizes**2).sum() / sizes.sum() - 1) * correlation)
