from __future__ import annotations

import pytest
from networks_on_trial import backbone

from graft.halving import epochs_per_cut, rungs


@pytest.mark.parametrize(
    ("candidates", "epochs", "halving", "expected"),
    [
        (1, 10, 1, [(1, 10)]),
        (24, 10, 1, [(24, 10)]),
        (1, 10, 3, [(1, 10)]),
        (24, 10, 2, [(24, 1), (12, 2), (6, 3), (3, 5), (1, 10)]),
        (24, 10, 3, [(24, 1), (8, 2), (2, 4), (1, 10)]),
        (24, 10, 4, [(24, 1), (6, 3), (1, 10)]),
        (24, 2, 2, [(24, 1), (12, 2)]),
        (24, 1, 2, [(24, 1)]),
        (3, 100, 2, [(3, 50), (1, 100)]),
    ],
)
def test_rungs_by_hand(candidates: int, epochs: int, halving: int, expected: list[tuple[int, int]]) -> None:
    assert rungs(candidates, epochs, halving) == expected


@pytest.mark.parametrize(
    ("halving", "cuts", "expected"),
    [
        (1, ["conv_pw_11_relu"], 6 * 10),
        (1, ["conv_pw_11_relu", "conv_pw_12_relu"], 6 * 10),
        (2, ["conv_pw_11_relu", "conv_pw_12_relu"], (12 * 2 + 6 * 1 + 3 * 2 + 1 * 5) / 2),  # 12 until 2, 6 until 3, ...
    ],
)
def test_epochs_of_all_candidates_are_shared_by_the_cuts(halving: int, cuts: list[str], expected: float) -> None:
    tails = {"unfrozen_learning_rate": [1e-3, 1e-4, 1e-5], "batch_size": [8, 16], "halving": halving}
    row = backbone(finetune__tails=tails, finetune__unfrozen_epochs=10, features__frozen_until=cuts)
    assert epochs_per_cut(row) == expected
    assert epochs_per_cut(backbone(finetune__unfrozen_epochs=10)) == 10
    assert epochs_per_cut(backbone(finetune__unfrozen_epochs=0, finetune__tails=tails)) == 0
