"""Fine-tuning that is interrupted in every epoch, in either phase, in a grid or alone, ends as if it had not been."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import (
    MACHINE,
    Ended,
    InterruptionError,
    assert_equal,
    in_many_lives,
    interrupt,
    saved_at_the_end_alone,
)
from tuning_on_trial import SIZE, digits, features, small

from graft import finetuning, runtime
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.feature_sets import FeatureSet
from graft.finetuning import fine_tune
from graft.sections import Backbone
from graft.training import Trained
from graft.trials import Trainer

DIGITS = digits()


def base() -> Any:
    """Small, with random layers and BatchNormalization of its own, before and after its two cuts; always the same."""
    import keras

    def drawn(seed: int) -> Any:
        return keras.initializers.HeNormal(seed)

    runtime.configure(1)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", kernel_initializer=drawn(1))(images)
    x = keras.layers.Activation("relu", name="low")(keras.layers.Dropout(0.3)(x))
    x = keras.layers.Conv2D(6, 3, strides=2, kernel_initializer=drawn(2))(keras.layers.Dropout(0.3)(x))
    x = keras.layers.Activation("relu", name="middle")(keras.layers.BatchNormalization()(x))
    return keras.Model(images, keras.layers.Conv2D(8, 2, kernel_initializer=drawn(3))(keras.layers.Dropout(0.3)(x)))


@cache
def rows(cuts: tuple[str, ...], stored: tuple[str, ...] | None) -> FeatureSet:
    return features(base(), small(features__frozen_until=list(cuts) or "none"), DIGITS, stored)


def row(cuts: list[str] | str = "low", **changes: object) -> Backbone:
    settings: dict[str, object] = {"epochs": 3, "unfrozen_epochs": 3, "dropout": 0.2, "patience": 9, "batch_size": 8}
    settings |= {"unfrozen_learning_rate": 0.003, "weight_decay": 0.01}
    return small(features__frozen_until=cuts, **settings | changes)


def tuned(
    backbone: Backbone,
    checkpoints: Checkpoints = NOTHING_KEPT,
    published: list[Any] | None = None,
    stored: tuple[str, ...] | None = None,
) -> Trained:
    given = rows(tuple(backbone.features.cuts), stored)  # before the base: else its layers' names would count on
    return fine_tune(
        base(), backbone, DIGITS.manifest, given, image_size=SIZE,
        class_weights="none", seed=5, checkpoints=checkpoints,
        publish=lambda *record: None if published is None else published.append(record),
    )  # fmt: skip


def ended(trained: Trained, folder: Path) -> Ended:
    return Ended.of(trained, DIGITS.validation, folder)


HEADS = {"learning_rate": [1e-3, 0.3], "dropout": [0.4], "hidden_units": [0, 5]}
TAILS = {"unfrozen_learning_rate": [1e-3, 1e-2], "batch_size": [8], "halving": 1}
CASES: dict[str, tuple[Backbone, int]] = {  # with the epochs that are trained in all, those of a grid's heads at once
    "both phases": (row(), 3 + 3),
    "cosine": (row(schedule="cosine", hidden_units=4), 3 + 3),
    "sgd": (row(optimizer="sgd", learning_rate=0.01), 3 + 3),
    "the head alone": (row(unfrozen_epochs=0), 3),
    "the whole base": (row("none", train_batch_normalization=True), 3 + 3),
    "a grid of heads, of which some stop early": (row(heads=HEADS, epochs=4, patience=1, unfrozen_epochs=1), 4 + 1),
    "a grid of tails": (row(["low", "middle"], tails=TAILS, epochs=1, unfrozen_epochs=2), 1 + 4 * 2),
    "halving": (row(["low", "middle"], tails=TAILS | {"halving": 2}, epochs=1, unfrozen_epochs=4), 1 + 4 + 2 + 2),
}


@pytest.mark.parametrize("name", CASES)
def test_a_training_that_never_gets_beyond_an_epoch_ends_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, epochs = CASES[name]
    told: list[Any] = []
    whole = tuned(backbone, published=told)
    expected = ended(whole, tmp_path)
    again: list[Any] = []

    def live(checkpoints: Checkpoints) -> Trained:
        again.clear()
        return tuned(backbone, checkpoints, again)

    resumed, interruptions = in_many_lives(live, tmp_path / "kept", monkeypatch)
    assert interruptions == epochs - 1
    assert_equal(ended(resumed, tmp_path), expected)
    assert again == told
    interrupt(monkeypatch, 1)  # there is nothing left to train
    assert_equal(ended(tuned(backbone, Checkpoints(tmp_path / "kept", MACHINE)), tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both phases", "halving"])
def test_one_interruption_anywhere_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only what ends a phase, or a rung, is saved."""
    backbone, epochs = CASES[name]
    expected = ended(tuned(backbone), tmp_path)
    saved_at_the_end_alone(monkeypatch)
    for last in range(1, epochs + 1):
        kept = tmp_path / f"ended-in-{last}"
        interrupt(monkeypatch, last)
        with pytest.raises(InterruptionError):
            tuned(backbone, Checkpoints(kept, MACHINE))
        interrupt(monkeypatch, None)
        assert_equal(ended(tuned(backbone, Checkpoints(kept, MACHINE)), tmp_path), expected)


def test_a_candidate_that_failed_has_failed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, in its second epoch; the other is not disturbed."""
    measured = Trainer._measured

    def exploding(self: Trainer, step: Any, batches: Any) -> list[dict[str, float]]:
        found, optimizer = measured(self, step, batches), self._models[0].optimizer
        explodes = float(optimizer.learning_rate) == pytest.approx(0.5) and int(optimizer.iterations) > 4
        return [{**found[0], "loss": float("nan")}] if explodes else found

    monkeypatch.setattr(Trainer, "_measured", exploding)
    wild = row(tails={"unfrozen_learning_rate": [0.5, 1e-3], "batch_size": [8], "halving": 1}, epochs=1)
    expected = tuned(wild)
    assert [len(candidate.history) for candidate in expected.candidates] == [1, 3]
    resumed, interruptions = in_many_lives(lambda kept: tuned(wild, kept), tmp_path / "kept", monkeypatch)
    assert interruptions == 1 + 2 + 3 - 1
    assert_equal(ended(resumed, tmp_path), ended(expected, tmp_path))


def test_beaten_candidates_keep_their_histories_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, _ = CASES["halving"]
    saved_at_the_end_alone(monkeypatch)
    trained = tuned(backbone, Checkpoints(tmp_path, MACHINE))
    sizes = {path.name.removesuffix(".checkpoint"): path.stat().st_size for path in tmp_path.rglob("tail-*")}
    chosen = {candidate.name for candidate in trained.candidates if candidate.chosen}
    assert sizes.keys() == {candidate.name for candidate in trained.candidates}
    assert max(size for name, size in sizes.items() if name not in chosen) < min(sizes[name] for name in chosen) / 3


def test_a_pass_over_the_frozen_layers_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the head standardises by is kept, too."""
    passes: list[str] = []
    scale = finetuning._training_scale

    def counted(*arguments: Any) -> Any:
        passes.append(arguments[1])
        return scale(*arguments)

    monkeypatch.setattr(finetuning, "_training_scale", counted)
    backbone, epochs = CASES["both phases"]
    expected = ended(tuned(backbone, stored=()), tmp_path)
    resumed, interruptions = in_many_lives(
        lambda kept: tuned(backbone, kept, stored=()), tmp_path / "kept", monkeypatch
    )
    assert interruptions == epochs - 1
    assert_equal(ended(resumed, tmp_path), expected)
    assert passes == ["image"] * 2, "once for each of the two trainings"


def test_another_row_or_seed_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tuned(row(), Checkpoints(tmp_path / "kept", MACHINE))
    capsys.readouterr()
    other = row(unfrozen_learning_rate=0.002)
    changed = tuned(other, Checkpoints(tmp_path / "kept", MACHINE))
    said = capsys.readouterr().out
    for name in (
        "frozen.checkpoint is of another content: row differ;",
        "tail-01.checkpoint is of another content: row",
    ):
        assert said.count(name) == 1
    assert_equal(ended(changed, tmp_path), ended(tuned(other), tmp_path))
    assert changed.history[:3] == first.history[:3]
    assert changed.history[3:] != first.history[3:]


def test_all_that_training_changes_is_in_a_checkpoint(tmp_path: Path) -> None:
    """Of phase 2 alone: weights of the layers after the cut, their random states, the optimiser's numbers."""
    tuned(row(), Checkpoints(tmp_path, MACHINE))
    saved = Checkpoints(tmp_path, MACHINE, {"row": row().model_dump(mode="json"), "seed": 5}).at(
        "finetune/unfrozen/tail-01",
        {"frozen_until": "low", "unfrozen_learning_rate": 0.003, "batch_size": 8},
    )
    loaded = saved.load()
    assert isinstance(loaded, Saved)
    integers = [array.tolist() for array in loaded.arrays if array.dtype.kind in "iu"]
    # two seeds of dropout in the tail and one in the head, each drawn from in twelve steps; the optimiser's steps
    steps = 3 * 4
    assert sorted(state[1] for state in integers if isinstance(state, list)) == [steps] * 3
    assert [state for state in integers if not isinstance(state, list)] == [steps]
    assert np.isfinite(np.concatenate([array.ravel() for array in loaded.arrays])).all()
