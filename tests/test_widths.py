from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_backbones import base

from graft import backbones
from graft.weights import load_base, save_base
from graft.widths import prepare_config


def layer_kinds(model: Any) -> list[str]:
    return [f"{type(layer).__name__} {getattr(layer, 'strides', '')}" for layer in model._flatten_layers()]


@pytest.mark.parametrize(
    ("application", "layer", "channels"),
    [
        ("EfficientNetV2B0", "block5e_add", {"stem_conv": 10, "block4a_se_expand": 58, "top_conv": 384}),
        (
            "ConvNeXtTiny",
            "convnext_tiny_downsampling_block_1",
            {"convnext_tiny_stage_0_block_0_depthwise_conv": 29, "convnext_tiny_stage_3_block_2_pointwise_conv_1": 922},
        ),
    ],
)
def test_layers_that_state_channels_of_their_own_are_scaled_too(
    application: str, layer: str, channels: dict[str, int], tmp_path: Path
) -> None:
    """Also those of EfficientNet's reshaped vectors, and of depthwise convolutions that are grouped ones."""
    model = backbones.build_base(base(application, width=0.3))
    whole = backbones.application(application)(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert layer_kinds(model) == layer_kinds(whole)
    assert [layer.name for layer in model.layers[3:-1]] == [layer.name for layer in whole.layers[3:-1]]
    assert 0.08 < model.count_params() / whole.count_params() < 0.12  # about the square of the width
    for name, expected in channels.items():
        found = model.get_layer(name)
        assert getattr(found, "filters", getattr(found, "units", None)) == expected

    save_base(tmp_path, model, {})
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    outputs = model.predict_on_batch(images)
    assert np.isfinite(outputs).all()
    np.testing.assert_array_equal(load_base(tmp_path).predict_on_batch(images), outputs)
    trunk, tail = backbones.cut(model, layer)
    np.testing.assert_array_equal(tail.predict_on_batch(trunk.predict_on_batch(images)), outputs)


def test_settings_by_hand() -> None:
    def layer(kind: str, **settings: Any) -> dict[str, Any]:
        return {"class_name": kind, "config": settings, "build_config": {"input_shape": [None, 4, 4, 10]}}

    inner = [layer("InputLayer", batch_shape=[None, 4, 4, 10]), layer("Conv2D", filters=10, groups=1)]
    config = {
        "layers": [
            layer("Conv2D", filters=10, groups=10, kernel_initializer="zeros"),
            layer("Conv2D", filters=10, groups=2),
            layer("Dense", units=40),
            layer("LayerScale", projection_dim=1),
            layer("Reshape", target_shape=[1, 1, 10]),
            layer("Reshape", target_shape=[4, 40]),
            layer("BatchNormalization", momentum=0.99),
            layer("Sequential", layers=inner, build_input_shape=[None, 4, 4, 10]),
        ]
    }
    prepare_config(config, 0.25)
    assert [one["config"] for one in config["layers"]] == [
        {"filters": 2, "groups": 2, "kernel_initializer": "he_normal"},
        {"filters": 2, "groups": 2},
        {"units": 10},
        {"projection_dim": 1},
        {"target_shape": (1, 1, 2)},
        {"target_shape": [4, 40]},
        {"momentum": 0.9},
        {"layers": [{"class_name": "Conv2D", "config": {"filters": 2, "groups": 1}}]},
    ]
    assert not any("build_config" in one for one in config["layers"])
