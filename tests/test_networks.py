from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft import backbones, networks
from graft.costs import multiply_adds
from graft.explanations import grad_cam
from graft.model_files import load_network
from graft.sections import Base


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
        for kind in ("flatten", "avg", "max", "min")
    }
    assert results == {"flatten": [1, 2, 3, 6], "avg": [2, 4], "max": [3, 6], "min": [1, 2]}


def test_a_classifier_pooled_by_the_minimum_is_saved_looked_into_and_counted(tmp_path: Path) -> None:
    """The score is w min(maps) + b, whose gradient stands where the minimum is alone; Grad-CAM takes its mean."""
    import keras

    base = _one_convolution()
    head = networks.build_head(4, classes=3, dropout=0.5, seed=1)
    settings = {"application": "VGG16", "input_size": 16, "image_size": 16, "pooling": "min"}
    model = networks.build_classifier(base, head, **settings)
    model.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    maps = base.predict_on_batch(backbones.preprocess("VGG16", images.copy()))
    by_hand = head.predict_on_batch(maps.min(axis=(1, 2)))
    np.testing.assert_allclose(loaded.predict_on_batch(images), by_hand, rtol=1e-5, atol=1e-6)

    weights = keras.ops.convert_to_numpy(head.get_layer("classes").kernel)[:, [2, 0]].T[:, None, None] / (7 * 7)
    expected = np.maximum((weights * maps).sum(axis=-1), 0)
    np.testing.assert_allclose(grad_cam(loaded, images, np.array([2, 0])), expected, rtol=1e-4, atol=1e-6)
    assert multiply_adds(loaded) == 7 * 7 * 3 * 3 * 3 * 4 + 4 * 3


def _one_convolution() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    images = keras.Input((16, 16, 3))
    return keras.Model(images, keras.layers.Conv2D(4, 3, strides=2)(images))


def test_a_head_with_hidden_units_by_hand() -> None:
    """Without dropout at work: softmax(relu(x W + b) V + c)."""
    head = networks.build_head(3, 2, dropout=0.5, hidden_units=4, seed=1)
    assert [layer.name for layer in head.layers] == ["features", "dropout", "hidden", "hidden_dropout", "classes"]
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    w, b, v, c = head.get_weights()
    logits = np.maximum(x @ w + b, 0) @ v + c
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.predict_on_batch(x), expected, rtol=1e-5)


def test_weights_and_masks_follow_the_seed_and_the_step_alone() -> None:
    """Whatever was built, drawn or trained before; and anew after seed_dropout."""
    import keras

    x, seen = np.ones((2, 8), "float32"), []
    for number in (1, 2):
        keras.utils.set_random_seed(number)
        networks.build_head(5, 2, dropout=0.5)(x[:, :5], training=True)
        head = networks.build_head(8, 2, dropout=0.5, hidden_units=16, seed=3)
        steps = [head(x, training=True).numpy() for _ in range(3)]
        networks.seed_dropout(head, 3)
        seen.append([*head.get_weights(), *steps, head(x, training=True).numpy()])
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)
    first, second, _, again = seen[0][-4:]
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)
