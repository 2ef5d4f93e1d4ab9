from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft import backbones, networks
from graft.networks import NetworkError
from graft.params import Base, Baseline, load_params

ROOT = Path(__file__).resolve().parents[1]


def baseline(layers: list[dict[str, Any]], channels: int = 3, input_size: int = 8) -> Baseline:
    train = load_params(ROOT / "params.yaml").baselines["cnn"].train
    return Baseline(input_size=input_size, channels=channels, layers=layers, train=train)


def test_default_cnn_is_three_blocks_and_a_dense_head() -> None:
    model = networks.build_cnn(load_params(ROOT / "params.yaml").baselines["cnn"], 32, classes=10)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Conv2D", "BatchNormalization", "Activation", "MaxPooling2D", "SpatialDropout2D"]
    assert kinds == ["InputLayer", "Rescaling", *block * 3, "Flatten", "Dense", "Dropout", "Dense"]
    # convolutions without bias, 4 numbers per normalised channel, 4 * 4 * 128 inputs of the dense layer
    convolutions = 9 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * (32 + 64 + 128)
    assert model.count_params() == convolutions + (2048 + 1) * 128 + (128 + 1) * 10


def test_a_one_channel_network_converts_and_resizes_within_the_model() -> None:
    model = networks.build_cnn(baseline([{"Flatten": {}}], channels=1), image_size=16, classes=3)
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
        networks.build_cnn(baseline(layers), 8, classes=3)


@pytest.mark.parametrize(("application", "size"), [("VGG16", 32), ("InceptionV3", 75)])
def test_the_saved_classifier_carries_resizing_and_preprocessing(application: str, size: int, tmp_path: Path) -> None:
    """Raw pixels through the loaded model give what preprocessing by hand, base and head give."""
    import keras

    base = backbones.build_base(
        Base(application=application, input_size=size, width=0.1, weights="random", depends_on=Path("x"))
    )
    head = networks.build_head(base.output_shape[-1], classes=4, dropout=0.5)
    model = networks.build_classifier(
        base, head, application=application, input_size=size, image_size=32, pooling="avg"
    )
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    pixels = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (size, size)))
    by_hand = head.predict_on_batch(
        base.predict_on_batch(backbones.preprocess(application, pixels.copy())).mean(axis=(1, 2))
    )
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(loaded.predict_on_batch(images), by_hand, rtol=1e-5, atol=1e-6)


def test_pooling_by_hand() -> None:
    import keras

    maps = keras.Input((1, 2, 2))
    values = np.array([[[[1.0, 2.0], [3.0, 6.0]]]], "float32")
    results = {
        kind: keras.Model(maps, networks.pool(maps, kind)).predict_on_batch(values)[0].tolist()
        for kind in ("flatten", "avg", "max")
    }
    assert results == {"flatten": [1, 2, 3, 6], "avg": [2, 4], "max": [3, 6]}
