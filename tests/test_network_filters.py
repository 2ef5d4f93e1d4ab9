from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cornered import two_patches
from PIL import Image
from test_activations import classifier_on, plain

from graft import activations, runtime
from graft.kernels import SOBEL_X, respond
from graft.network_filters import base_on_images, first_layer
from graft.storage import ArtifactError, read_json, write_json
from graft.weights import save_base

GREY = np.repeat(np.random.default_rng(1).integers(0, 256, (16, 16, 1), np.uint8), 3, axis=-1)
COLOURED = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(autouse=True)
def _configured() -> None:
    runtime.configure(1)


def with_kernel(kernel: np.ndarray, **arguments: Any) -> Any:
    """A network whose first layer has set weights, of shape (h, w, 3, filters)."""
    from keras import layers

    network = plain(layers.Conv2D(kernel.shape[-1], kernel.shape[:2], use_bias=False, name="conv", **arguments))
    network.get_layer("conv").set_weights([kernel])
    return network


def test_a_learned_sobel_answers_as_the_one_made_by_hand() -> None:
    kernel = np.repeat(SOBEL_X.weights[..., None, None], 3, axis=2) / 3
    network = with_kernel(kernel)
    found = activations.first_maps(network, GREY)
    assert found is not None
    expected = respond(SOBEL_X, GREY[..., 0])[1:-1, 1:-1]  # without padding
    np.testing.assert_allclose(found.maps[..., 0], expected, atol=1e-3)
    layer = first_layer(network, GREY, 5)
    assert layer is not None
    assert (layer.layer, layer.count, layer.size, layer.summed) == ("conv", 1, (14, 14), True)
    np.testing.assert_allclose(layer.filters[0].weights[..., 0], SOBEL_X.weights, atol=1e-5)
    answer = Image.open(io.BytesIO(layer.filters[0].png)).convert("RGBA")
    opacity = np.asarray(answer)[..., 3] / 255
    shares = np.abs(expected) / np.quantile(np.abs(expected), 0.995)
    np.testing.assert_allclose(opacity, np.minimum(shares, 1), atol=0.012)


def test_an_image_in_colours_gets_filters_in_colours() -> None:
    kernel = np.random.default_rng(3).normal(size=(3, 3, 3, 2)).astype(np.float32)
    layer = first_layer(with_kernel(kernel), COLOURED, 5)
    assert layer is not None
    assert not layer.summed
    for one in layer.filters:
        np.testing.assert_allclose(one.weights, kernel[..., one.number], atol=1e-5)


def test_filters_are_taken_evenly_from_the_liveliest_to_the_dullest() -> None:
    kernel = np.zeros((1, 1, 3, 5), np.float32)
    kernel[0, 0, 0] = [0.2, 0, 0.9, 0.1, -0.5]  # how much each map varies
    numbers = {
        most: [one.number for one in found.filters]
        for most in (1, 3, 5, 64)
        if (found := first_layer(with_kernel(kernel), GREY, most)) is not None
    }
    assert numbers == {1: [2], 3: [2, 0, 1], 5: [2, 4, 0, 3, 1], 64: [2, 4, 0, 3, 1]}


def test_a_dead_filter_has_an_empty_map() -> None:
    layer = first_layer(with_kernel(np.zeros((3, 3, 3, 1), np.float32)), GREY, 1)
    assert layer is not None
    assert not np.asarray(Image.open(io.BytesIO(layer.filters[0].png)).convert("RGBA"))[..., 3].any()


def test_large_maps_are_shrunk_and_their_size_is_told() -> None:
    network = plain_of(160)
    layer = first_layer(network, np.zeros((160, 160, 3), np.uint8), 1)
    assert layer is not None
    assert layer.size == (160, 160)
    assert Image.open(io.BytesIO(layer.filters[0].png)).size == (128, 128)


def plain_of(size: int) -> Any:
    from keras import layers

    return plain(layers.Conv2D(1, 3, padding="same"), shape=(size, size, 3))


def test_each_map_belongs_to_its_filter_in_other_first_layers() -> None:
    from keras import layers

    for layer in (
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.SeparableConv2D(4, 3, depth_multiplier=2, use_bias=False),
    ):
        network = plain(layer)
        filters, maps = activations.first_filters(network), activations.first_maps(network, COLOURED)
        assert filters is not None
        assert maps is not None
        for number, kernel in enumerate(filters.kernels):  # two for each colour
            window = COLOURED[4:7, 5:8, number // 2]
            assert maps.maps[4, 5, number] == pytest.approx(float((window * kernel[..., 0]).sum()), rel=1e-3)


def test_a_network_without_a_convolution_has_no_filters() -> None:
    from keras import layers

    assert first_layer(plain(), GREY, 5) is None
    assert first_layer(plain(layers.Dense(4)), GREY, 5) is None


def test_of_a_nested_base_the_first_layer_is_found() -> None:
    layer = first_layer(classifier_on("MobileNet", 32, alpha=0.25), two_patches("top left", "bottom right"), 4)
    assert layer is not None
    assert (layer.layer, layer.count, layer.size, len(layer.filters)) == ("conv1", 8, (16, 16), 4)


def test_the_base_of_an_svm_is_that_of_the_classifier_on_it(tmp_path: Path) -> None:
    classifier = classifier_on("MobileNet", 32, alpha=0.25)
    base = activations.body(classifier)
    source, machine = tmp_path / "source", tmp_path / "mobilenet-svm"
    source.mkdir()
    machine.mkdir()
    save_base(source, base, {})
    description = {"application": "MobileNet", "input_size": 32, "image_size": 32}
    description["weights_sha256"] = read_json(source / "card.json")["weights_sha256"]
    write_json(machine / "base.json", description)
    image = two_patches("top left", "bottom right")
    found, expected = first_layer(base_on_images(machine, source), image, 3), first_layer(classifier, image, 3)
    assert found is not None
    assert expected is not None
    assert [(one.number, one.png) for one in found.filters] == [(one.number, one.png) for one in expected.filters]
    for one, other in zip(found.filters, expected.filters, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
    write_json(machine / "base.json", description | {"weights_sha256": "0" * 64})
    with pytest.raises(ArtifactError, match=r"base.weights.h5 must have sha256 0000"):
        base_on_images(machine, source)
