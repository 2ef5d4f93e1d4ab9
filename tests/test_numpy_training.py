"""A row with engine numpy: trained as a Keras row, gone on with bit for bit, saved as the identical Keras network."""

from __future__ import annotations

import itertools
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
    saved_after_every_epoch,
    saved_at_the_end_alone,
)
from networks_on_trial import tiny_params
from test_trials import EPOCHS, LABELS, LAYERS, PIXELS
from tuning_on_trial import Memory

from graft import runtime
from graft.baselines import NetworkError, baseline_memory, build_cnn, settled_baseline, train_baseline
from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.numpy_cnn import training
from graft.numpy_cnn.losses import SoftmaxCrossEntropy
from graft.numpy_cnn.rows import LAYERS as NUMPY_LAYERS
from graft.numpy_cnn.rows import EngineError, network_of
from graft.sections import Baseline
from graft.training import Trained
from graft.trials import Publish, TrainingError

WITHOUT_DROPOUT = [item for item in LAYERS if not {"Dropout", "SpatialDropout2D"} & set(item)]
EVERY_LAYER: list[dict[str, Any]] = [
    {"Rescaling": {"scale": 1 / 127.5, "offset": -1}},
    {"Conv2D": {"filters": 6, "kernel_size": [3, 2], "padding": "same", "use_bias": False, "name": "first"}},
    {"BatchNormalization": {"momentum": 0.8, "epsilon": 0.01}},
    {"ReLU": {}},
    {"MaxPooling2D": {"pool_size": 3, "strides": 2, "padding": "same"}},
    {"SpatialDropout2D": {"rate": 0.1}},
    {"Conv2D": {"filters": 4, "kernel_size": 2, "activation": "tanh"}},
    {"AveragePooling2D": {"pool_size": 2, "strides": 1, "padding": "same"}},
    {"Flatten": {}},
    {"Dense": {"units": 8, "activation": "sigmoid"}},
    {"BatchNormalization": {}},
    {"Activation": {"activation": "linear"}},
    {"Dropout": {"rate": 0.2}},
]


def row(
    engine: str = "numpy", layers: list[dict[str, Any]] = LAYERS, channels: int = 3, input_size: int = 8, **changes: Any
) -> Baseline:
    settings = {
        "epochs": EPOCHS, "learning_rate": 0.05, "batch_size": 8, "patience": EPOCHS, "optimizer": "sgd",
        "schedule": "constant", "weight_decay": 0.0, **changes,
    }  # fmt: skip
    values = tiny_params().baselines["cnn"].model_dump(mode="json")
    described = {"engine": engine, "layers": layers, "channels": channels, "input_size": input_size}
    return Baseline.model_validate(values | described | {"train": values["train"] | settings})


def rows() -> tuple[Rows, Rows]:
    """In three views, with class weights."""
    images = Memory(np.concatenate([PIXELS, 255 - PIXELS // 2, PIXELS // 2]))
    train, validation = np.arange(0, 60, 2), np.arange(1, 60, 2)
    weights = {0: 0.5, 1: 1.0, 2: 2.0}
    return (
        Rows(images, [train, train + 60, train + 120], LABELS[::2], weights),
        Rows(images, [validation], LABELS[1::2]),
    )


def trained(
    baseline: Baseline, checkpoints: Checkpoints = NOTHING_KEPT, publish: Publish = lambda *record: None
) -> Trained:
    runtime.configure(1)
    return train_baseline(baseline, *rows(), classes=3, seed=3, publish=publish, checkpoints=checkpoints)


def ended(result: Trained, folder: Path) -> Ended:
    return Ended.of(result, PIXELS, folder)


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int | None) -> None:
    """End training right after so many epochs more, published but not saved; None: never."""
    counted = itertools.count(1)

    def reached(point: str) -> None:
        if next(counted) == epoch:
            raise InterruptionError

    monkeypatch.setattr(training, "reached", reached)


@pytest.mark.parametrize(("channels", "input_size"), [(3, 8), (1, 8), (3, 12), (1, 12)])
def test_the_saved_keras_network_computes_what_numpy_computes(
    channels: int, input_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights of a training, after which moving statistics are anything."""
    networks = []
    monkeypatch.setattr(
        "graft.baselines.network_of", lambda *arguments, **seed: networks.append(network_of(*arguments, **seed)) or
        networks[-1]
    )  # fmt: skip
    result = trained(row(layers=EVERY_LAYER, channels=channels, input_size=input_size))
    scores = networks[-1].forward(PIXELS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(
        result.model.predict_on_batch(PIXELS), SoftmaxCrossEntropy().predictions(scores), rtol=1e-5, atol=1e-5
    )
    used = {name for item in EVERY_LAYER for name in item}
    assert used == set(NUMPY_LAYERS), "each layer of engine numpy is in the comparison"


def test_large_images_shrink_alike() -> None:
    baseline = row(layers=EVERY_LAYER)
    model, network = build_cnn(baseline, 21, classes=3), network_of(baseline, 21, 3, seed=1)
    model.set_weights(network.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (6, 21, 21, 3), np.uint8)
    probabilities = SoftmaxCrossEntropy().predictions(network.forward(images))
    np.testing.assert_allclose(model.predict_on_batch(images), probabilities, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.1, "weight_decay": 0.01, "schedule": "cosine"},
    ],
    ids=["plain", "smoothed labels, weight decay, cosine"],
)
def test_a_training_is_that_of_keras_from_the_same_weights(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches in the same order, 12 steps in three views with class weights and batch normalisation."""
    own = trained(row(layers=WITHOUT_DROPOUT, **settings))
    first = network_of(row(layers=WITHOUT_DROPOUT), 8, 3, seed=3).get_weights()

    def from_there(*arguments: Any) -> Any:
        model = build_cnn(*arguments)
        model.set_weights(first)
        return model

    monkeypatch.setattr("graft.baselines.build_cnn", from_there)
    theirs = trained(row("keras", WITHOUT_DROPOUT, **settings))
    for received, expected in zip(own.history, theirs.history, strict=True):
        assert list(received) == list(expected)
        assert received.pop("phase") == expected.pop("phase")
        assert received == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for received, expected in zip(own.model.get_weights(), theirs.model.get_weights(), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    assert any((one != other).any() for one, other in zip(own.model.get_weights(), first, strict=True))


def test_two_trainings_are_equal_to_the_bit_and_other_seeds_differ(tmp_path: Path) -> None:
    assert_equal(ended(trained(row()), tmp_path), ended(trained(row()), tmp_path))
    other = train_baseline(row(), *rows(), classes=3, seed=4, publish=lambda *record: None)
    assert other.history != trained(row()).history


@pytest.mark.parametrize("saving", [saved_after_every_epoch, saved_at_the_end_alone])
def test_an_interrupted_training_ends_as_one_that_was_not(
    saving: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, velocities, moving statistics, a falling learning rate: all of it goes on."""
    saving(monkeypatch)
    baseline = row(schedule="cosine", weight_decay=0.01)
    whole: list[Any] = []
    expected = ended(trained(baseline, publish=lambda *record: whole.append(record)), tmp_path)
    for last in range(1, EPOCHS + 1):
        checkpoints = Checkpoints(tmp_path / f"{last}", MACHINE)
        interrupt(monkeypatch, last)
        with pytest.raises(InterruptionError):
            trained(baseline, checkpoints)
        interrupt(monkeypatch, None)
        again: list[Any] = []
        resumed = trained(baseline, checkpoints, lambda *record, again=again: again.append(record))
        assert_equal(ended(resumed, tmp_path), expected)
        assert again == whole, "epochs of a checkpoint are published again"
    finished = trained(baseline, Checkpoints(tmp_path / "1", MACHINE))  # from the checkpoint of its end
    assert_equal(ended(finished, tmp_path), expected)


def test_only_what_no_checkpoint_holds_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_after_every_epoch(monkeypatch)
    interrupt(monkeypatch, 3)
    with pytest.raises(InterruptionError):
        trained(row(), Checkpoints(tmp_path, MACHINE))
    interrupt(monkeypatch, 2)  # two of three are kept
    trained(row(), Checkpoints(tmp_path, MACHINE))


def test_a_checkpoint_of_the_keras_network_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_after_every_epoch(monkeypatch)
    trained(row("keras"), Checkpoints(tmp_path, MACHINE))
    capsys.readouterr()
    received = trained(row(), Checkpoints(tmp_path, MACHINE))
    assert "is of another content" in capsys.readouterr().out
    assert received.history == trained(row()).history


def test_patience_ends_it_and_the_best_weights_are_kept() -> None:
    result = trained(row(epochs=30, patience=2, learning_rate=0.3))
    losses = [record["val_loss"] for record in result.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 30
    _, validation = rows()
    chosen = validation.views[0]
    probabilities = result.model.predict_on_batch(PIXELS[chosen])
    expected = -np.log(probabilities[np.arange(len(chosen)), validation.labels]).mean()
    assert losses[best] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss must stay finite, received .* in epoch 1 \(scratch\); lower the"):
        trained(row(layers=[{"Flatten": {}}, {"Dense": {"units": 4}}], learning_rate=10.0))


def test_a_network_learns_and_publishes_each_epoch() -> None:
    told: list[Any] = []
    result = trained(row(layers=WITHOUT_DROPOUT, epochs=12, patience=12), publish=lambda *record: told.append(record))
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2
    assert [(number, phase) for number, phase, _ in told] == [(number, "scratch") for number in range(1, 13)]
    assert set(told[0][2]) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert result.seconds["scratch"] > 0


def test_rows_too_large_for_memory_are_read_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ended(trained(row()), tmp_path)
    monkeypatch.setattr(training, "RESIDENT_BYTES", 0)
    assert_equal(ended(trained(row()), tmp_path), expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"SeparableConv2D": {"filters": 2, "kernel_size": 3}}, {"Flatten": {}}],
         r"layers\[0\] SeparableConv2D: engine numpy has Activation, .*SpatialDropout2D alone; use these, or engine"),
        ([{"Conv2D": {"filters": 2, "kernel_size": 3, "dilation_rate": 2}}, {"Flatten": {}}],
         r"layers\[0\] Conv2D: engine numpy has the arguments filters, .*use_bias alone, received dilation_rate"),
        ([{"Flatten": {}}, {"Dense": {"units": 4, "activation": "gelu"}}],
         r"layers\[1\] Dense: activation must be one of linear, relu, tanh, sigmoid, received 'gelu'"),
        ([{"Flatten": {"data_format": "channels_last"}}], r"layers\[0\] Flatten: engine numpy has no arguments"),
    ],
)  # fmt: skip
def test_what_numpy_does_not_have_is_refused_when_the_network_is_built(
    layers: list[dict[str, Any]], message: str
) -> None:
    build_cnn(row("keras", layers), 8, classes=3)
    with pytest.raises(EngineError, match=message):
        build_cnn(row("numpy", layers), 8, classes=3)


def test_other_optimizers_are_refused() -> None:
    with pytest.raises(EngineError, match=r"train\.optimizer must be sgd with engine numpy, received adam"):
        build_cnn(row(optimizer="adam"), 8, classes=3)


def test_edge_padding_is_nothing_that_keras_could_save() -> None:
    layers = [{"Conv2D": {"filters": 2, "kernel_size": 3, "padding": "edge"}}, {"Flatten": {}}]
    with pytest.raises(NetworkError, match=r"layers\[0\] Conv2D .* cannot be built"):
        build_cnn(row(layers=layers), 8, classes=3)


def test_a_batch_size_is_settled_by_what_numpy_keeps() -> None:
    baseline = row(layers=EVERY_LAYER, batch_size="auto")
    assert baseline_memory(baseline, 8, 3, 60) != baseline_memory(row("keras", EVERY_LAYER), 8, 3, 60)
    params = tiny_params(baselines__cnn__train__batch_size="auto", baselines__cnn__engine="numpy",
                         baselines__cnn__train__optimizer="sgd")  # fmt: skip
    assert isinstance(settled_baseline(params, "cnn", 60, 10).baselines["cnn"].train.batch_size, int)


@pytest.mark.slow
def test_on_digits_it_is_within_one_point_of_the_identical_keras_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same first weights, without dropout, whose masks differ; 20 digits per class, 1,238 to be told apart."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.repeat(
        np.kron(values.reshape(-1, 8, 8, 1) * 255 / 16, np.ones((1, 2, 2, 1))).astype(np.uint8), 3, axis=3
    )
    order = np.random.default_rng(0).permutation(len(labels))
    train = np.concatenate([order[labels[order] == digit][:20] for digit in range(10)])
    others = np.setdiff1d(order, train)
    validation, test = others[:359], others[359:]
    assert len(test) == 1238
    layers: list[dict[str, Any]] = [
        {"Rescaling": {"scale": 1 / 255}},
        *({"Conv2D": {"filters": 16, "kernel_size": 3, "use_bias": False}}, {"BatchNormalization": {"momentum": 0.9}}),
        *({"ReLU": {}}, {"MaxPooling2D": {}}, {"Conv2D": {"filters": 32, "kernel_size": 3, "activation": "relu"}}),
        *({"MaxPooling2D": {}}, {"Flatten": {}}, {"Dense": {"units": 32, "activation": "relu"}}),
    ]
    first = network_of(row(layers=layers, channels=1, input_size=16), 16, 10, seed=1).get_weights()

    def from_there(*arguments: Any) -> Any:
        model = build_cnn(*arguments)
        model.set_weights(first)
        return model

    monkeypatch.setattr("graft.baselines.build_cnn", from_there)
    right = {}
    for engine in ("numpy", "keras"):
        runtime.configure(1)
        result = train_baseline(
            row(engine, layers, 1, 16, epochs=40, patience=10, batch_size=32, learning_rate=0.02),
            Rows(Memory(pixels), [train], labels[train]),
            Rows(Memory(pixels), [validation], labels[validation]),
            classes=10,
            seed=1,
            publish=lambda *record: None,
        )
        probabilities = result.model.predict(pixels[test], verbose=0)
        right[engine] = int((probabilities.argmax(axis=1) == labels[test]).sum())
    assert right["keras"] > 0.9 * len(test)
    assert abs(right["numpy"] - right["keras"]) <= 0.01 * len(test), right
