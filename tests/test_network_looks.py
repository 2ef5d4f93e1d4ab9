from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from cornered import BLUE, CORNERS, RED, cornered_classifier, two_patches
from PIL import Image

from graft import runtime
from graft.comparison_sections import Inspect
from graft.looks import Look
from graft.network_looks import Sample, choose_images, network_looks

SETTINGS = Inspect(images=3, occlusion_stride=4, repeats=5)
PLACES = [("top left", "bottom right"), ("bottom left", "top left"), ("top right", "bottom left")]


@pytest.fixture(autouse=True)
def _configured() -> None:
    runtime.configure(1)


def sample() -> Sample:
    images = np.stack([two_patches(*PLACES[number % 3], purer=number % 2) for number in range(8)])
    labels = np.array([RED, BLUE] * 4)
    labels[2] = BLUE  # is wrong, since the image is redder
    return Sample(images, labels, [f"{number}.png" for number in range(8)], ["red", "blue"])


def looks_of(network: Any) -> list[Look]:
    return network_looks(network, lambda images: np.asarray(network.predict_on_batch(images)), sample(), SETTINGS)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("nested", [True, False])
def test_a_network_with_large_maps_is_shown_with_grad_cam(nested: bool) -> None:
    filters, maps, cam = looks_of(cornered_classifier(nested=nested))
    assert (filters.name, len(filters.tiles), maps.name, maps.columns) == ("filters", 3, "feature_maps", 2)
    assert [tile.caption for tile in maps.tiles] == ["16 x 16 px", "", "8 x 8 px", ""]
    assert maps.tiles[2].title.startswith("colours, channel ")
    assert cam.name == "grad_cam"
    assert "the maps of colours, the last ones" in cam.text
    assert "They have 8 x 8 places" in cam.text
    assert [(tile.title, tile.true, tile.predicted, tile.caption) for tile in cam.tiles] == [
        ("0.png", "red", "red", "100 %"),
        ("1.png", "blue", "blue", "100 %"),
        ("2.png", "blue", "red", "100 %"),
    ]
    for tile, places in zip(cam.tiles, PLACES, strict=True):
        picture = pixels(tile.png)
        glow = (picture[..., 0] - picture[..., 2])[:, -96:]
        vertical, horizontal = CORNERS[places[[RED, BLUE].index(RED if tile.predicted == "red" else BLUE)]]
        assert picture.shape == (96, 196, 3)
        assert np.divmod(glow.argmax(), 96)[0] // 48 == vertical
        assert np.divmod(glow.argmax(), 96)[1] // 48 == horizontal


def small_map() -> Any:
    import keras

    images = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2D(4, 16, strides=16, activation="relu", name="coarse")(images)
    x = keras.layers.Dense(2, activation="softmax", name="classes")(keras.layers.Flatten()(x))
    return keras.Model(images, x, name="classifier")


def test_a_small_last_map_is_told_and_occlusion_shown_instead() -> None:
    filters, maps, occlusion = looks_of(small_map())
    assert len(filters.tiles) == maps.columns == 4
    assert occlusion.name == "occlusion"
    assert occlusion.text.startswith(
        "The network's last map, of coarse, has 2 x 2 places: Grad-CAM needs 3 x 3 to tell where the evidence is. "
        "Instead, a patch of 8 px in the image's mean colour"
    )
    assert len(occlusion.tiles) == 3
    assert " %, hidden " in occlusion.tiles[0].caption


def test_a_network_without_maps_has_neither_filters_nor_feature_maps() -> None:
    import keras

    images = keras.Input((32, 32, 3), name="image")
    outputs = keras.layers.Dense(2, activation="softmax", name="classes")(keras.layers.Flatten()(images))
    (occlusion,) = looks_of(keras.Model(images, outputs, name="classifier"))
    assert occlusion.text.startswith("The network has no maps, which Grad-CAM needs. Instead, a patch")


def test_equal_networks_give_equal_looks() -> None:
    network = cornered_classifier(nested=True)
    assert looks_of(network) == looks_of(network)


def test_classes_take_turns_and_half_are_mistakes() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    predicted = np.array([0, 0, 0, 1, 0, 2, 0, 1])  # wrong: 4, 6 and 7
    assert choose_images(labels, predicted, 4).tolist() == [0, 3, 7, 4]
    assert choose_images(labels, predicted, 6).tolist() == [0, 3, 5, 7, 4, 6]
    assert choose_images(labels, predicted, 100).tolist() == [0, 3, 5, 1, 2, 7, 4, 6]
    assert choose_images(labels, labels, 3).tolist() == [0, 3, 5]
    assert choose_images(labels, (labels + 1) % 3, 3).tolist() == [0, 3, 5]
    assert choose_images(labels, predicted, 1).tolist() == [0]
