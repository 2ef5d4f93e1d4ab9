"""A grid of heads: each is what it would be alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tuning_on_trial import Memory, small

from graft.batches import Rows
from graft.heads import Vectors, best_trial, fit_heads, head_grid
from graft.sections import Finetune
from graft.trials import Phase, TrainingError, Trial

GRID = {"learning_rate": [1e-3, 0.3], "dropout": [0.0, 0.4], "hidden_units": [0, 5]}


def rows() -> tuple[Rows, Rows]:
    """Forty noisy vectors of three classes in two views, which a large rate soon overfits."""
    random = np.random.default_rng(0)
    labels = np.arange(40) % 3
    vectors = random.normal(size=(120, 6)).astype("float32")
    vectors[:, :3] += 1.5 * np.eye(3, dtype="float32")[np.tile(labels, 3)]
    inputs, train = Memory(vectors), [np.arange(40), np.arange(40, 80)]
    return Rows(inputs, train, labels, {0: 0.5, 1: 1.0, 2: 2.0}), Rows(inputs, [np.arange(80, 120)], labels)


def fitted(settings: Finetune, published: list[Any] | None = None, before: Any = None) -> Any:
    train, validation = rows()
    vectors = Vectors(train, validation, before, features=6, classes=3, scale=(np.zeros(6), np.full(6, 2.0)))
    return fit_heads(
        vectors, settings, seed=7, publish=lambda *record: None if published is None else published.append(record),
    )  # fmt: skip


def settings(**changes: object) -> Finetune:
    return small(epochs=12, patience=2, batch_size=16, **changes).finetune


def test_every_head_of_a_grid_is_what_it_would_be_alone() -> None:
    """Bit for bit: weights, losses, and the epoch in which its patience ends."""
    published: list[Any] = []
    head, trial, candidates = fitted(settings(heads=GRID), published)
    assert [candidate.name for candidate in candidates] == [f"head-0{number}" for number in range(1, 9)]
    assert len({len(candidate.history) for candidate in candidates}) > 2, "the heads must stop in different epochs"
    for candidate in candidates:
        alone, single, none = fitted(settings(**candidate.params))
        assert none == []
        assert candidate.history == single.history
        if candidate.chosen:
            assert candidate.history == trial.history
            for mine, theirs in zip(head.get_weights(), alone.get_weights(), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    losses = [min(record["val_loss"] for record in candidate.history) for candidate in candidates]
    assert [candidate.chosen for candidate in candidates] == [number == np.argmin(losses) for number in range(8)]
    assert [(number, metrics["val_loss"]) for number, _, metrics in published] == [
        (record["epoch"], record["val_loss"]) for record in trial.history
    ]


def test_the_grid_is_every_combination_or_the_rows_own_values() -> None:
    assert [tuple(vars(head).values()) for head in head_grid(settings(heads=GRID))] == [
        (1e-3, 0.0, 0), (1e-3, 0.0, 5), (1e-3, 0.4, 0), (1e-3, 0.4, 5),
        (0.3, 0.0, 0), (0.3, 0.0, 5), (0.3, 0.4, 0), (0.3, 0.4, 5),
    ]  # fmt: skip
    (only,) = head_grid(settings(learning_rate=0.2, dropout=0.1, hidden_units=3))
    assert vars(only) == {"learning_rate": 0.2, "dropout": 0.1, "hidden_units": 3}


def metrics(val_loss: float) -> dict[str, float]:
    return {"loss": val_loss, "accuracy": 0.5, "val_loss": val_loss, "val_accuracy": 0.5, "learning_rate": 0.1}


class Counter:
    """Weights that say after which epoch they were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def get_weights(self) -> list[np.ndarray]:
        self.asked += 1
        return [np.array(self.asked)]


def test_a_trial_stops_after_patience_and_keeps_the_weights_of_its_first_minimum() -> None:
    trial, model = Trial(Phase("frozen", 9, 0.1), 2, 4, None), Counter()
    for loss, done in ((3.0, False), (2.0, False), (2.0, False), (2.5, True)):
        trial.add(metrics(loss), model)
        assert trial.done == done
    assert trial.best_loss == 2.0
    assert [int(weights) for weights in trial.best_weights or []] == [2]
    assert [record["epoch"] for record in trial.history] == [4, 5, 6, 7]


def test_in_a_grid_a_loss_that_is_not_finite_ends_its_trial_alone() -> None:
    failed, other = (Trial(Phase("frozen", 9, rate), 2, 1, None) for rate in (5.0, 0.1))
    for loss in (1.0, math.nan):
        failed.add(metrics(loss), Counter())
    assert failed.done
    assert [record["val_loss"] for record in failed.history] == [1.0]
    other.add(metrics(0.5), Counter())
    assert best_trial([failed, other]) is other
    first = Trial(Phase("frozen", 9, 5.0), 2, 1, None)
    first.add(metrics(math.inf), Counter())
    with pytest.raises(TrainingError, match=r"every candidate failed; the first: .*received inf.*rate, now 5"):
        best_trial([first])
