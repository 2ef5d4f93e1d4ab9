"""A training that ends at any moment and is gone on with is the training that it would have been, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
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
    saved_after_every_epoch,
    saved_at_the_end_alone,
)
from networks_on_trial import tiny_params
from tuning_on_trial import Memory

from graft import runtime
from graft.baselines import train_baseline
from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.sections import Baseline
from graft.training import Trained
from graft.trials import Phase, Publish, TrainingError, Trial, snapshot

EPOCHS = 3
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
LABELS = PIXELS[..., 0].mean(axis=(1, 2)).argsort().argsort() // 20  # of three classes
LAYERS: list[dict[str, Any]] = [
    {"Rescaling": {"scale": 1 / 255}},
    {"Conv2D": {"filters": 4, "kernel_size": 3, "strides": 2}},
    {"BatchNormalization": {"momentum": 0.9}},
    {"SpatialDropout2D": {"rate": 0.2}},
    {"Flatten": {}},
    {"Dense": {"units": 8, "activation": "relu"}},
    {"Dropout": {"rate": 0.5}},
]


def row(**changes: object) -> Baseline:
    settings = {"epochs": EPOCHS, "learning_rate": 0.01, "batch_size": 8, "patience": EPOCHS, **changes}
    values = tiny_params().baselines["cnn"].model_dump(mode="json")
    train = values["train"] | settings
    return Baseline.model_validate(values | {"layers": LAYERS, "input_size": 8, "train": train})


def trained(
    baseline: Baseline, checkpoints: Checkpoints = NOTHING_KEPT, publish: Publish = lambda *record: None
) -> Trained:
    """In three views, so that epochs differ by their pixels, too."""
    runtime.configure(1)
    images = Memory(np.concatenate([PIXELS, 255 - PIXELS // 2, PIXELS // 2]))
    train = np.arange(0, 60, 2)
    rows = Rows(images, [train, train + 60, train + 120], LABELS[::2], {0: 0.5, 1: 1.0, 2: 2.0})
    validation = np.arange(1, 60, 2)
    return train_baseline(
        baseline, rows, Rows(images, [validation], LABELS[1::2]), classes=3, seed=3, publish=publish,
        checkpoints=checkpoints,
    )  # fmt: skip


COSINE = {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("settings", "saving"),
    [(COSINE, saved_after_every_epoch), ({"optimizer": "sgd"}, saved_after_every_epoch), ({}, saved_at_the_end_alone)],
    ids=["adamw and cosine", "sgd", "nothing is saved before the end"],
)
def test_whoever_is_told_of_an_epoch_may_end_the_process_there(
    settings: dict[str, Any], saving: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving(monkeypatch)
    whole: list[Any] = []
    expected = Ended.of(trained(row(**settings), publish=lambda *record: whole.append(record)), PIXELS, tmp_path)
    assert [number for number, *_ in whole] == [1, 2, 3]
    for last in range(1, EPOCHS + 1):
        told: list[Any] = []

        def publish(*record: Any, told: list[Any] = told, last: int = last) -> None:
            told.append(record)
            if len(told) == last:
                raise InterruptionError

        checkpoints = Checkpoints(tmp_path / f"ended-in-{last}", MACHINE)
        with pytest.raises(InterruptionError):
            trained(row(**settings), checkpoints, publish)
        again: list[Any] = []
        resumed = trained(row(**settings), checkpoints, lambda *record, again=again: again.append(record))
        assert_equal(Ended.of(resumed, PIXELS, tmp_path), expected)
        assert told == whole[:last]
        assert again == whole, "epochs of a checkpoint are published again"


def test_only_epochs_that_no_checkpoint_holds_are_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Ended.of(trained(row()), PIXELS, tmp_path)
    resumed, interruptions = in_many_lives(lambda kept: trained(row(), kept), tmp_path / "kept", monkeypatch)
    assert interruptions == EPOCHS - 1
    assert_equal(Ended.of(resumed, PIXELS, tmp_path), expected)
    interrupt(monkeypatch, 1)  # would tell of one more
    finished = trained(row(), Checkpoints(tmp_path / "kept", MACHINE))
    assert_equal(Ended.of(finished, PIXELS, tmp_path), expected)


def test_patience_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends in the same epoch, with the weights of an epoch before the interruption."""
    early = row(epochs=12, patience=3, learning_rate=0.3, optimizer="sgd")
    expected = trained(early)
    losses = [record["val_loss"] for record in expected.history]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 12
    resumed, interruptions = in_many_lives(lambda kept: trained(early, kept), tmp_path / "kept", monkeypatch)
    assert interruptions == len(losses) - 1
    assert_equal(Ended.of(resumed, PIXELS, tmp_path), Ended.of(expected, PIXELS, tmp_path))


def test_seconds_count_what_was_before_the_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_after_every_epoch(monkeypatch)
    interrupt(monkeypatch, 3)
    before = Checkpoints(tmp_path, MACHINE)
    with pytest.raises(InterruptionError):
        trained(row(), before)
    place = Checkpoints(tmp_path, MACHINE).at("baseline", {"row": row().model_dump(mode="json")})
    content = {
        "phase": {"name": "scratch", "epochs": EPOCHS, "learning_rate": 0.01},
        "settings": row().train.model_dump(mode="json"), "seed": 3,
    }  # fmt: skip
    phase = place.phase("scratch", content)
    assert phase.load() is not None
    spent = phase.seconds
    interrupt(monkeypatch, None)
    assert trained(row(), Checkpoints(tmp_path, MACHINE)).seconds["scratch"] > spent > 0


@pytest.mark.parametrize("harm", ["truncated", "other parameters", "other machine"])
def test_what_cannot_be_gone_on_from_is_trained_from_the_start(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_after_every_epoch(monkeypatch)
    interrupt(monkeypatch, 3)
    with pytest.raises(InterruptionError):
        trained(row(epochs=5 if harm == "other parameters" else EPOCHS), Checkpoints(tmp_path, MACHINE))
    (path,) = tmp_path.rglob("*.checkpoint")
    if harm == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    interrupt(monkeypatch, None)
    capsys.readouterr()
    machine = {"processor": "another"} if harm == "other machine" else MACHINE
    resumed = trained(row(), Checkpoints(tmp_path, machine))
    assert capsys.readouterr().out.count(f"{path} is ") == 1
    assert_equal(Ended.of(resumed, PIXELS, tmp_path / "file"), Ended.of(trained(row()), PIXELS, tmp_path / "file"))


def test_a_loss_that_is_not_finite_ends_every_attempt_right_after_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_after_every_epoch(monkeypatch)
    from graft.trials import Trainer

    measured, calls = Trainer._measured, []

    def exploding(self: Trainer, step: Any, batches: Any) -> list[dict[str, float]]:
        found = measured(self, step, batches)
        calls.append(step)
        steps = int(self._models[0].optimizer.iterations)
        return [{**found[0], "loss": float("nan")}] if steps > 2 * 4 else found  # from the third epoch on

    monkeypatch.setattr(Trainer, "_measured", exploding)
    for passes in (6, 2, 2):  # through training and validation rows; then of the third epoch alone
        calls.clear()
        with pytest.raises(TrainingError, match=r"received nan .* in epoch 3 \(scratch\)"):
            trained(row(), Checkpoints(tmp_path, MACHINE))
        assert len(calls) == passes
        assert len(list(tmp_path.rglob("*.checkpoint"))) == 1


def test_a_snapshot_tells_of_trials_with_and_without_best_weights() -> None:
    one, other = (Trial(Phase("frozen", 9, 0.1), 2, 1, None) for _ in range(2))
    one.restore({"history": [{"epoch": 1, "phase": "frozen", "val_loss": 0.5}], "failure": ""}, [np.ones(2)])
    other.restore({"history": [], "failure": "nan"}, [])
    saved = snapshot([one, other], [np.zeros(3)])
    assert [array.tolist() for array in saved.arrays] == [[0, 0, 0], [1, 1]]
    assert saved.facts["state"] == 1
    assert [facts["best_weights"] for facts in saved.facts["trials"]] == [1, 0]
    assert other.done
    assert one.best_loss_within(0) == float("inf")
    assert one.best_loss_within(1) == 0.5


def test_a_process_killed_within_an_epoch_leaves_a_training_that_goes_on(tmp_path: Path) -> None:
    """A real one, by SIGKILL; half an epoch after it told of the third."""
    long = row(epochs=8, patience=8)
    code = f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
        import numpy as np
        import test_trials as here
        from graft import checkpoints, trials
        from graft.batches import training_batches
        checkpoints.SHARE = float("inf")

        def slow(rows, classes, batch_size, seed, epoch):
            for number, batch in enumerate(training_batches(rows, classes, batch_size, seed, epoch)):
                if epoch == 3 and number == 2:
                    print("in the middle", flush=True)
                    time.sleep(600)
                yield batch

        trials.training_batches = slow
        folder = here.Path({str(tmp_path / "kept")!r})
        here.trained(here.row(epochs=8, patience=8), here.Checkpoints(folder, here.MACHINE))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    again: list[Any] = []
    resumed = trained(long, Checkpoints(tmp_path / "kept", MACHINE), lambda *record: again.append(record))
    assert len(again) == 8
    assert_equal(Ended.of(resumed, PIXELS, tmp_path), Ended.of(trained(long), PIXELS, tmp_path))
