from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks_on_trial import learnable_digits, tiny_params

from graft import runtime
from graft.baselines import NetworkError, build_cnn, train_baseline
from graft.params import load_params
from graft.sections import Baseline
from graft.shards import Shards, ShardWriter
from graft.training import Rows

ROOT = Path(__file__).resolve().parents[1]


def baseline(layers: list[dict[str, Any]], channels: int = 3, input_size: int = 8) -> Baseline:
    train = load_params(ROOT / "params.yaml").baselines["cnn"].train
    return Baseline(engine="keras", input_size=input_size, channels=channels, layers=layers, train=train)


def test_default_cnn_is_three_blocks_and_a_dense_head() -> None:
    model = build_cnn(load_params(ROOT / "params.yaml").baselines["cnn"], 32, classes=10)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "BatchNormalization", "Activation", "MaxPooling2D", "SpatialDropout2D"]
    assert kinds == ["InputLayer", "Rescaling", *block * 3, "Flatten", "Dense", "Dropout", "Dense"]
    # convolutions without bias, 4 numbers per normalised channel, 4 * 4 * 128 inputs of the dense layer
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * (32 + 64 + 128)
    assert model.count_params() == convolutions + (2048 + 1) * 128 + (128 + 1) * 10


def test_a_one_channel_network_converts_and_resizes_within_the_model() -> None:
    model = build_cnn(baseline([{"Flatten": {}}], channels=1), image_size=16, classes=3)
    assert model.input_shape == (None, 16, 16, 3)
    assert model.get_layer("classes").kernel.shape == (8 * 8 * 1, 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"Convolution": {}}], r"layers\[0\] must name a class of keras\.layers, received 'Convolution'"),
        ([{"Lambda": {}}], "received 'Lambda'"),
        ([{"Flatten": {}}, {"Dense": {"unit": 3}}], r"layers\[1\] Dense \{'unit': 3\} cannot be built"),
        ([{"MaxPooling2D": {"pool_size": 32}}, {"Flatten": {}}], r"layers\[0\] MaxPooling2D"),
        ([{"Conv2D": {"filters": 2, "kernel_size": 3}}], r"must end in a vector per image .*received shape \(None, 6"),
    ],
)
def test_layers_that_cannot_be_are_named(layers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        build_cnn(baseline(layers), 8, classes=3)


def test_a_baseline_learns_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    pixels, labels = learnable_digits()
    with ShardWriter(tmp_path, "images", (32, 32, 3), np.uint8) as writer:
        writer.append(pixels)
    images = Shards(tmp_path, "images")
    train, validation = np.arange(0, 60, 2), np.arange(1, 60, 2)
    baseline = tiny_params(baselines__cnn__train__epochs=6).baselines["cnn"]
    results = []
    for _ in range(2):
        runtime.configure(1)
        trained = train_baseline(
            baseline,
            Rows(images, [train], labels[train]),
            Rows(images, [validation], labels[validation]),
            classes=3,
            seed=1,
            publish=lambda *record: None,
        )
        results.append((trained.history, trained.model.predict(pixels, batch_size=20, verbose=0)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    history = results[0][0]
    assert {record["phase"] for record in history} == {"scratch"}
    assert history[-1]["loss"] < history[0]["loss"] / 2
