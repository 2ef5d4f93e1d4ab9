from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cornered import cornered_classifier, two_patches

from graft import backbones, networks, runtime
from graft.activations import (
    ActivationError,
    body,
    feature_maps,
    first_filters,
    first_maps,
    map_layers,
    output_of,
    probe,
    score_layer,
)


@pytest.fixture(autouse=True)
def _configured() -> None:
    runtime.configure(1)


def classifier_on(application: str, size: int, image_size: int | None = None, **arguments: Any) -> Any:
    """A classifier around a keras.applications base with random weights."""
    base = backbones.application(application)(include_top=False, weights=None, input_shape=(size, size, 3), **arguments)
    head = networks.build_head(base.output.shape[-1], 3, 0.3, seed=1)
    return networks.build_classifier(
        base, head, application=application, input_size=size, image_size=image_size or size, pooling="avg"
    )


def plain(*layers: Any, shape: tuple[int, int, int] = (16, 16, 3)) -> Any:
    import keras

    images = x = keras.Input(shape, name="image")
    for layer in layers:
        x = layer(x)
    x = keras.layers.Dense(2, activation="softmax", name="classes")(keras.layers.Flatten(name="flatten")(x))
    return keras.Model(images, x, name="classifier")


@pytest.mark.parametrize(
    ("application", "size", "arguments", "expected"),
    [
        ("VGG16", 64, {}, [f"block{n}_conv{2 if n < 3 else 3}" for n in range(1, 6)]),
        (
            "ResNet50", 64, {},
            ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
        ),
        ("MobileNet", 64, {"alpha": 0.25}, [f"conv_pw_{n}_relu" for n in (1, 3, 5, 11, 13)]),
    ],
)  # fmt: skip
def test_the_last_layer_at_each_resolution(
    application: str, size: int, arguments: dict[str, Any], expected: list[str]
) -> None:
    classifier = classifier_on(application, size, **arguments)
    assert map_layers(classifier) == expected
    body(classifier).trainable = False
    assert map_layers(classifier) == expected
    assert not any(layer.trainable for layer in body(classifier).layers)


def test_branches_are_no_end_of_a_resolution() -> None:
    """Within Inception's blocks convolutions of the old resolution stand beside those of the new one."""
    layers = map_layers(classifier_on("InceptionV3", 75))
    assert layers[-1] == "mixed10"
    assert "mixed7" in layers
    assert "mixed2" in layers


def test_the_layers_of_a_network_without_a_nested_base() -> None:
    from keras import layers

    classifier = plain(
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(name="first"),
        layers.MaxPooling2D(),
        layers.SpatialDropout2D(0.1),
        layers.Conv2D(4, 3, padding="same", activation="relu", name="second"),
        layers.MaxPooling2D(),
        layers.Dropout(0.1),
    )
    assert body(classifier) is classifier
    assert map_layers(classifier) == ["first", "second"]
    found = feature_maps(classifier, np.zeros((16, 16, 3), np.uint8))
    assert [(maps.layer, maps.maps.shape) for maps in found] == [("first", (16, 16, 4)), ("second", (8, 8, 4))]


def test_feature_maps_are_what_the_layers_give() -> None:
    (_, colours) = feature_maps(cornered_classifier(nested=True), two_patches("top left", "bottom right"))
    assert colours.layer == "colours"
    red, blue = np.moveaxis(colours.maps, -1, 0)
    np.testing.assert_allclose(red[:2, :2], (255 - 60) / 255, rtol=1e-5)
    np.testing.assert_allclose(blue[-2:, -2:], (255 - 60) / 255, rtol=1e-5)
    assert red.sum() == pytest.approx(4 * (255 - 60) / 255)


@pytest.mark.parametrize("nested", [True, False])
def test_a_probe_gives_the_tensors_and_what_the_scores_are_made_from(nested: bool) -> None:
    classifier = cornered_classifier(nested=nested)
    image = two_patches("top left", "bottom right")[None].astype(np.float32)
    maps, vectors = probe(classifier, [output_of(classifier, "colours")])(image, training=False)
    np.testing.assert_allclose(np.asarray(maps).mean(axis=(1, 2)), vectors, rtol=1e-5)
    kernel, bias = score_layer(classifier).get_weights()
    shares = np.exp(np.asarray(vectors) @ kernel + bias)
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), classifier(image, training=False), rtol=1e-3)


def test_a_network_that_ends_otherwise_is_refused() -> None:
    import keras

    images = keras.Input((4, 4, 3))
    classifier = keras.Model(images, keras.layers.Dense(2, name="raw")(keras.layers.Flatten()(images)))
    with pytest.raises(ActivationError, match="must end in Dense with softmax, received Dense raw"):
        score_layer(classifier)


@pytest.mark.parametrize(
    ("application", "layer", "order"),
    [("VGG16", "block1_conv1", [2, 1, 0]), ("MobileNet", "conv1", [0, 1, 2])],
    ids=["blue first", "red first"],
)
def test_filters_are_in_the_colours_of_the_image(application: str, layer: str, order: list[int]) -> None:
    """VGG's preprocessing turns RGB into BGR; MobileNet's divides by 127.5. The image is resized on the way."""
    classifier = classifier_on(application, 48, 32)
    filters = first_filters(classifier)
    assert filters is not None
    assert filters.layer == layer
    kernel = np.moveaxis(np.asarray(body(classifier).get_layer(layer).kernel), -1, 0)
    scale = 1 if application == "VGG16" else 127.5
    np.testing.assert_allclose(filters.kernels, kernel[..., order] / scale, rtol=1e-3, atol=1e-6)


def test_filters_of_a_convolution_within_a_model_of_the_base() -> None:
    """ConvNeXt's first one stands in a Sequential, after the normalisation by ImageNet's mean and deviation."""
    classifier = classifier_on("ConvNeXtTiny", 32)
    filters = first_filters(classifier)
    assert filters is not None
    assert filters.layer == "convnext_tiny_stem_conv"
    kernel = np.moveaxis(np.asarray(body(classifier).get_layer("convnext_tiny_stem").layers[0].kernel), -1, 0)
    deviation = 255 * np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(filters.kernels, kernel / deviation, rtol=1e-3, atol=1e-6)
    maps = first_maps(classifier, np.zeros((32, 32, 3), np.uint8))
    assert maps is not None
    assert maps.maps.shape == (8, 8, 96)


def test_filters_of_other_first_layers() -> None:
    from keras import layers

    grey = plain(layers.Conv2D(5, 3), shape=(16, 16, 1))
    found = first_filters(grey)
    assert found is not None
    np.testing.assert_array_equal(found.kernels, np.moveaxis(np.asarray(grey.layers[1].kernel), -1, 0))

    depthwise = first_filters(plain(layers.DepthwiseConv2D(3, depth_multiplier=2)))
    separable = first_filters(plain(layers.SeparableConv2D(4, 5)))
    assert depthwise is not None
    assert separable is not None
    assert (depthwise.kernels.shape, separable.kernels.shape) == ((6, 3, 3, 1), (3, 5, 5, 1))
    assert first_filters(plain()) is None
    assert map_layers(plain(layers.Dropout(0.1))) == []
