"""A grid of second phases: each is what it would be alone, also when it is interrupted by the others."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from tuning_on_trial import calibrated, digits, features, small, tuned

from graft.sections import Backbone
from graft.tails import tail_grid
from graft.training import Trained

CUTS = ["conv_pw_11_relu", "conv_pw_12_relu"]
EPOCHS = 4
SETTINGS = {"epochs": 2, "unfrozen_epochs": EPOCHS, "dropout": 0.2, "patience": 3, "weight_decay": 0.01}


def row(halving: int = 1, **changes: object) -> Backbone:
    tails = {"unfrozen_learning_rate": [1e-3, 1e-4], "batch_size": [8, 16], "halving": halving}
    return small(features__frozen_until=CUTS, **SETTINGS | {"tails": tails} | changes)


@cache
def start() -> tuple[Any, list[np.ndarray], Any, Any]:
    data = digits()
    base = calibrated(row())
    return base, base.get_weights(), features(base, row(), data), data


def trained(backbone: Backbone, published: list[Any] | None = None) -> Trained:
    base, weights, rows, data = start()
    base.set_weights(weights)
    return tuned(base, backbone, data, rows, published)


def alone(params: dict[str, Any], **changes: object) -> Trained:
    """The candidate as a run of its own, from the same phase 1."""
    rates, sizes = [params["unfrozen_learning_rate"]], [params["batch_size"]]
    tails = {"unfrozen_learning_rate": rates, "batch_size": sizes, "halving": 1}
    return trained(small(features__frozen_until=params["frozen_until"], **SETTINGS | {"tails": tails} | changes))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_candidate_is_what_it_would_be_alone(schedule: str) -> None:
    """Bit for bit, though those of one cut share a compiled model, and all share base and head."""
    published: list[Any] = []
    grid = trained(row(schedule=schedule), published)
    assert [tuple(candidate.params.values()) for candidate in grid.candidates] == [
        (cut, rate, size) for cut in CUTS for rate in (1e-3, 1e-4) for size in (8, 16)
    ]
    losses = [min(record["val_loss"] for record in candidate.history) for candidate in grid.candidates]
    assert [candidate.chosen for candidate in grid.candidates] == [number == np.argmin(losses) for number in range(8)]
    for candidate in grid.candidates:
        if candidate.chosen or candidate.params["batch_size"] == 16:
            single = alone(candidate.params, schedule=schedule)
            assert candidate.history == single.candidates[0].history
        if candidate.chosen:
            assert grid.history == single.history
            for mine, theirs in zip(grid.model.get_weights(), single.model.get_weights(), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert [number for number, _, _ in published] == [record["epoch"] for record in grid.history]


def test_halving_ends_at_a_winner_as_if_it_had_been_alone() -> None:
    """It was interrupted twice, by candidates of its own cut and of another."""
    grid, halved = trained(row()), trained(row(halving=2))
    spent = sorted(len(candidate.history) for candidate in halved.candidates)
    assert spent == [1, 1, 1, 1, 2, 2, 4, 4]
    for full, part in zip(grid.candidates, halved.candidates, strict=True):
        assert part.history == full.history[: len(part.history)]
    (winner,) = (candidate for candidate in halved.candidates if candidate.chosen)
    assert len(winner.history) == EPOCHS
    single = alone(winner.params)
    assert halved.history == single.history
    for mine, theirs in zip(halved.model.get_weights(), single.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_list_of_cuts_is_a_grid_of_its_own() -> None:
    listed = small(features__frozen_until=CUTS, **SETTINGS)
    assert [params.frozen_until for params in tail_grid(listed)] == CUTS
    assert {(params.unfrozen_learning_rate, params.batch_size) for params in tail_grid(listed)} == {
        (listed.finetune.unfrozen_learning_rate, listed.finetune.batch_size)
    }
    whole = small(features__frozen_until="none")
    assert [params.frozen_until for params in tail_grid(whole)] == ["none"]


def test_where_no_candidate_beats_phase_one_none_is_chosen_and_phase_two_undone() -> None:
    base, weights, _, _ = start()
    tails = {"unfrozen_learning_rate": [5.0, 10.0], "batch_size": [8], "halving": 1}
    result = trained(row(tails=tails, optimizer="sgd"))
    assert [candidate.chosen for candidate in result.candidates] == [False] * 4
    for mine, theirs in zip(base.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
