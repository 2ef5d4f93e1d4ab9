from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft import runtime
from graft.batches import Rows, resident, training_batches
from graft.sections import Optimisation
from graft.shards import Shards, ShardWriter
from graft.training import build_optimizer, class_weights, fit_phase
from graft.trials import Phase, TrainingError

SETTINGS = {
    "epochs": 3, "learning_rate": 0.1, "batch_size": 4, "patience": 5, "optimizer": "sgd", "weight_decay": 0.0,
    "schedule": "constant", "label_smoothing": 0.0,
}  # fmt: skip


def optimisation(**changes: Any) -> Optimisation:
    return Optimisation(**(SETTINGS | changes))


@pytest.fixture
def inputs(tmp_path: Path) -> Shards:
    """Two views of ten vectors (the image's number, a random one); the second view's numbers are a thousand higher."""
    with ShardWriter(tmp_path, "vectors", (2,), np.float32) as writer:
        first = np.column_stack([np.arange(10), np.random.default_rng(0).random(10)])
        writer.append(first)
        writer.append(first + np.array([1000, 0]))
    return Shards(tmp_path, "vectors")


@pytest.fixture
def rows(inputs: Shards) -> Rows:
    return Rows(inputs, [np.arange(10), np.arange(10, 20)], np.arange(10) % 3)


def epoch(rows: Rows, number: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    parts = list(training_batches(rows, classes=3, batch_size=4, seed=seed, epoch=number))
    assert [len(x) for x, _ in parts] == [4, 4, 2]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_every_epoch_holds_each_image_once_with_its_own_label(rows: Rows) -> None:
    for number in range(4):
        x, y = epoch(rows, number)
        image = (x[:, 0] % 1000).astype(int)
        assert sorted(image) == list(range(10))
        assert (y.argmax(axis=1) == image % 3).all()


def test_epochs_take_turns_at_the_views(rows: Rows) -> None:
    views = [set((epoch(rows, number)[0][:, 0] >= 1000).tolist()) for number in range(4)]
    assert views == [{False}, {True}, {False}, {True}]


def test_the_order_follows_the_seed_and_differs_between_epochs(rows: Rows) -> None:
    first = epoch(rows, 0)[0]
    np.testing.assert_array_equal(first, epoch(rows, 0)[0])
    assert (first != epoch(rows, 0, seed=2)[0]).any()
    assert (epoch(rows, 1)[0][:, 0] - 1000 != first[:, 0]).any()


def test_rows_in_memory_are_the_same_rows_and_many_stay_where_they_are(rows: Rows) -> None:
    held = resident(rows.inputs)
    assert held is not rows.inputs
    assert (len(held), held.row_shape, held.dtype) == (20, (2,), np.float32)
    chosen = np.array([11, 3, 3])
    np.testing.assert_array_equal(held[chosen], rows.inputs[chosen])
    np.testing.assert_array_equal(held[2:5], rows.inputs[2:5])
    assert resident(rows.inputs, most=20 * 2 * 4 - 1) is rows.inputs
    assert resident(held) is held


def dense(classes: int = 3) -> Any:
    import keras

    runtime.configure(1)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(classes, activation="softmax")])


def fit(model: Any, rows: Rows, settings: Optimisation, rate: float = 0.001, first: int = 1) -> Any:
    phase = Phase("frozen", settings.epochs, rate)
    published: list[Any] = []
    outcome = fit_phase(
        model, rows, Rows(rows.inputs, [np.arange(10)], rows.labels), classes=3, settings=settings, phase=phase,
        first_epoch=first, seed=1, publish=lambda *record: published.append(record),
    )  # fmt: skip
    return outcome, published


def test_fit_equals_plain_keras_on_the_same_batches(rows: Rows) -> None:
    rows = Rows(rows.inputs, rows.views[:1], rows.labels)
    model, plain = dense(), dense()
    fit(model, rows, optimisation())
    import keras

    plain.compile(keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True), "categorical_crossentropy")
    losses = []
    for number in range(3):
        for batch in training_batches(rows, classes=3, batch_size=4, seed=1, epoch=number):
            plain.train_on_batch(*batch)
        losses.append(plain.evaluate(rows.inputs[np.arange(10)], np.eye(3)[rows.labels], verbose=0))
    assert losses == sorted(losses, reverse=True)  # else fit_phase would rightly go back to an earlier epoch
    for mine, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_balanced_weights_by_hand() -> None:
    """n / (classes * n of the class), as scikit-learn defines it."""
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    assert class_weights(labels, "none") is None
    assert class_weights(labels, "balanced") == pytest.approx({0: 9 / 18, 1: 9 / 6, 2: 9 / 3})


def test_weighted_fit_equals_plain_keras_with_sample_weights(rows: Rows) -> None:
    import keras

    weights = {0: 0.25, 1: 2.0, 2: 1.0}
    model, plain, unweighted = dense(), dense(), dense()
    fit(model, Rows(rows.inputs, rows.views[:1], rows.labels, weights), optimisation(epochs=1))
    fit(unweighted, Rows(rows.inputs, rows.views[:1], rows.labels), optimisation(epochs=1))
    plain.compile(keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True), "categorical_crossentropy")
    for x, y in training_batches(Rows(rows.inputs, rows.views[:1], rows.labels), 3, batch_size=4, seed=1, epoch=0):
        plain.train_on_batch(x, y, sample_weight=np.array([weights[number] for number in y.argmax(axis=1)]))
    for mine, theirs, others in zip(model.get_weights(), plain.get_weights(), unweighted.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
        assert np.abs(mine - others).max() > 1e-6


def test_history_numbers_go_on_and_are_published(rows: Rows) -> None:
    outcome, published = fit(dense(), rows, optimisation(), first=7)
    assert [record["epoch"] for record in outcome.history] == [7, 8, 9]
    assert [(number, phase) for number, phase, _ in published] == [(7, "frozen"), (8, "frozen"), (9, "frozen")]
    assert set(published[0][2]) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert outcome.best_loss == min(record["val_loss"] for record in outcome.history)


def test_training_stops_after_patience_and_keeps_the_best_weights(rows: Rows) -> None:
    """At this rate the loss only explodes, so the first epoch stays the best."""
    settings = optimisation(epochs=20, patience=2)
    model = dense()
    outcome, _ = fit(model, rows, settings, rate=0.5)
    losses = [record["val_loss"] for record in outcome.history]
    assert len(losses) == int(np.argmin(losses)) + 1 + 2
    model.compile(loss="categorical_crossentropy")
    kept, *_ = model.evaluate(rows.inputs[np.arange(10)], np.eye(3)[rows.labels], verbose=0)
    assert kept == pytest.approx(min(losses), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_the_epoch(rows: Rows) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Rescaling(math.inf)])
    with pytest.raises(TrainingError, match=r"must stay finite, received (nan|inf).* in epoch 1 \(frozen\); lower"):
        fit(model, rows, optimisation())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_spares_biases(name: str) -> None:
    """With a zero gradient only the decay moves a weight: by rate * decay of it."""
    model = dense()
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + 1])
    optimizer = build_optimizer(optimisation(optimizer=name, weight_decay=0.1), 0.5, steps=1)
    import keras

    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    np.testing.assert_allclose(model.get_weights()[0], kernel * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(model.get_weights()[1], bias + 1)


def test_cosine_schedule_ends_at_zero() -> None:
    schedule = build_optimizer(optimisation(schedule="cosine"), 0.2, steps=10)._learning_rate
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.2, 0.1, 0.0], abs=1e-7)
