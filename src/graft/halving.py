"""Successive halving: how many candidates of a grid are trained until which epoch."""

from __future__ import annotations

import math
from itertools import pairwise

from graft.sections import Backbone


def rungs(candidates: int, epochs: int, halving: int) -> list[tuple[int, int]]:
    """How many candidates are trained until which epoch, rung by rung.

    Successive halving (Jamieson & Talwalkar 2016): from a rung to the next the best 1/halving go on, to `halving` times
    the epochs, the last rung having them all. There are no more rungs than keep both numbers changing.

    >>> rungs(24, 10, 2)
    [(24, 1), (12, 2), (6, 3), (3, 5), (1, 10)]
    """
    sizes, budgets = [candidates], [epochs]
    if halving > 1:
        while sizes[-1] > 1:
            sizes.append(max(1, sizes[-1] // halving))
        while budgets[0] > 1:
            budgets.insert(0, math.ceil(budgets[0] / halving))
    count = min(len(sizes), len(budgets))
    return list(zip(sizes[:count], budgets[-count:], strict=True))


def epochs_per_cut(row: Backbone) -> float:
    """Epochs that all candidates of a row's second phases train at most, shared out evenly among its cuts."""
    settings, cuts = row.finetune, max(1, len(row.features.cuts))
    grid = settings.tails
    candidates = cuts * (len(grid.unfrozen_learning_rate) * len(grid.batch_size) if grid else 1)
    if not settings.unfrozen_epochs:
        return 0
    steps = [(0, 0), *rungs(candidates, settings.unfrozen_epochs, grid.halving if grid else 1)]
    return sum(size * (until - before) for (_, before), (size, until) in pairwise(steps)) / cuts
