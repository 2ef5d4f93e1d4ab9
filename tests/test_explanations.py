from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from cornered import BLUE, CORNERS, PATCH, RED, SIZE, cornered_classifier, in_corner, two_patches
from networks_on_trial import backbone

from graft import backbones, networks, runtime
from graft.activations import ActivationError, output_of, probe, score_layer
from graft.explanations import grad_cam, in_batches, last_map, occlusion, upsampled


@pytest.fixture(autouse=True)
def _configured() -> None:
    runtime.configure(1)


def applied(model: Any) -> Any:
    return lambda images: np.asarray(model(images, training=False))


@pytest.mark.parametrize("nested", [True, False], ids=["nested base", "one graph"])
def test_grad_cam_points_at_the_corner_of_each_class(nested: bool) -> None:
    """Also where the probability is one, whose own gradient is zero."""
    classifier = cornered_classifier(nested=nested)
    for red, blue in permutations(CORNERS, 2):
        image = two_patches(red, blue)[None]
        for label, corner, other in ((RED, red, blue), (BLUE, blue, red)):
            (weights,) = upsampled(grad_cam(classifier, image, np.array([label])), SIZE)
            assert in_corner(weights, corner, PATCH).max() == weights.max() > 0
            assert in_corner(weights, corner, PATCH + 2).sum() > 0.9 * weights.sum()
            assert in_corner(weights, other, PATCH).max() < 1e-3 * weights.max()


def test_occlusion_points_at_the_corner_of_each_class() -> None:
    """Hiding a patch turns the answer to the other class."""
    classifier = cornered_classifier(nested=True)
    for red, blue in permutations(CORNERS, 2):
        for label, corner, other in ((RED, red, blue), (BLUE, blue, red)):
            image = two_patches(red, blue, purer=label)
            (lost,) = occlusion(applied(classifier), image[None], np.array([label]), 4)
            assert lost.shape == (SIZE, SIZE)
            assert in_corner(lost, corner, PATCH).max() == lost.max() > 0.4
            assert in_corner(np.maximum(lost, 0), corner, PATCH + 4).sum() > 0.99 * np.maximum(lost, 0).sum()
            assert in_corner(lost, other, PATCH).max() < 0.01


def real_classifier(name: str, application: str, pooling: str) -> Any:
    base = backbones.build_base(backbone(name).base.model_copy(update={"input_size": 96}))
    features = networks.pool(base.output, pooling).shape[1]
    head = networks.build_head(features, 3, 0.3, (np.ones(features), np.ones(features)), hidden_units=8, seed=1)
    settings = {"application": application, "input_size": 96, "image_size": 48, "pooling": pooling}
    return base, head, networks.build_classifier(base, head, **settings)


@pytest.mark.parametrize(
    ("name", "application", "pooling", "layer", "side"),
    [("mobilenet", "MobileNet", "avg", "conv_pw_13_relu", 3), ("vgg16", "VGG16", "flatten", "block5_conv3", 6)],
)
def test_grad_cam_of_a_real_base_is_the_one_computed_by_hand(
    name: str, application: str, pooling: str, layer: str, side: int
) -> None:
    """On the base parted at a layer, with the gradient of the score taken through the second part."""
    import keras
    import tensorflow as tf

    base, head, classifier = real_classifier(name, application, pooling)
    images = np.random.default_rng(0).integers(0, 256, (9, 48, 48, 3), np.uint8)
    classes = np.arange(9) % 3
    assert last_map(classifier) == (layer, side, side)

    _, vectors = probe(classifier, [output_of(classifier, layer)])(images.astype(np.float32), training=False)
    dense = score_layer(classifier)
    scores = keras.ops.convert_to_numpy(vectors) @ dense.get_weights()[0] + dense.get_weights()[1]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = classifier.predict_on_batch(images)
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), expected, rtol=1e-4, atol=1e-6)

    for asked, cut in ((None, layer), ("conv_pw_11_relu" if name == "mobilenet" else "block4_pool",) * 2):
        found = grad_cam(classifier, images, classes, asked)
        final = cut == base.layers[-1].name
        inputs = networks.image_input(48)
        trunk = base if final else backbones.part(base, None, cut, "trunk")
        maps = keras.Model(inputs, trunk(networks.base_input(inputs, application, 96)))(
            images.astype(np.float32), training=False
        )
        with tf.GradientTape() as tape:
            tape.watch(maps)
            tail = maps if final else backbones.part(base, cut, None, "tail")(maps, training=False)
            hidden = keras.Model(head.input, dense.input)(networks.pool(tail, pooling), training=False)
            score = tf.gather(hidden @ dense.kernel + dense.bias, classes, batch_dims=1)
        gradient = np.asarray(tape.gradient(score, maps))
        by_hand = np.maximum((gradient.mean(axis=(1, 2), keepdims=True) * np.asarray(maps)).sum(axis=-1), 0)
        assert found.shape == maps.shape[:3]
        assert found.min() >= 0 < found.max()
        np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-5 * by_hand.max())


def test_asking_for_maps_changes_nothing_in_the_classifier() -> None:
    base, _, classifier = real_classifier("mobilenet", "MobileNet", "avg")
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), np.uint8)
    for layer in base.layers[:30]:
        layer.trainable = False
    before, states = classifier.predict_on_batch(images), [layer.trainable for layer in base.layers]
    one, two = (grad_cam(classifier, images, np.array([0, 1])) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(classifier.predict_on_batch(images), before)
    assert [layer.trainable for layer in base.layers] == states


def test_a_layer_that_is_not_there_is_named() -> None:
    classifier = cornered_classifier(nested=True)
    with pytest.raises(ActivationError, match="layer must be one of colour_base, such as colours, received 'conv9'"):
        grad_cam(classifier, two_patches("top left", "top right")[None], np.array([0]), "conv9")
    assert output_of(classifier, "colours").shape[1:] == (8, 8, 2)


def test_a_network_without_maps_has_no_grad_cam() -> None:
    import keras

    images = keras.Input((4, 4, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(images))
    classifier = keras.Model(images, outputs, name="plain")
    assert last_map(classifier) is None
    with pytest.raises(ActivationError, match="plain has no maps, which Grad-CAM is made from"):
        grad_cam(classifier, np.zeros((1, 4, 4, 3)), np.array([0]))


def test_occlusion_by_hand() -> None:
    """A black image with one white pixel, of which the probability is the mean brightness."""
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, 0, 0] = 160

    def brightness(images: np.ndarray) -> np.ndarray:
        share = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([share, 1 - share], axis=1)

    # The mean colour is 10: a patch of p pixels makes the sum 10 p, and 160 - 160 + 10 p where it hides the white one.
    (lost,) = occlusion(brightness, image, np.array([0]), 2)
    corner, edge, middle = 4, 8, 16  # pixels of a patch at -2, of one that leaves by one side, and of a whole one

    def loss(pixels: int, white: bool) -> float:
        return (160 * white - 10 * pixels) / 16 / 255

    assert lost[0, 0] == pytest.approx((loss(corner, True) + 2 * loss(edge, True) + loss(middle, True)) / 4)
    assert lost[3, 3] == pytest.approx((loss(middle, True) + 2 * loss(edge, False) + loss(corner, False)) / 4)
    np.testing.assert_allclose(occlusion(brightness, image, np.array([1]), 2), -lost[None])


def test_batches_are_of_one_shape() -> None:
    seen = []

    def count(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images.reshape(len(images), -1)[:, :1].astype(float)

    images = np.arange(70, dtype=np.uint8).reshape(70, 1, 1, 1)
    np.testing.assert_array_equal(in_batches(count, images)[:, 0], np.arange(70))
    assert seen == [64, 64]


def test_upsampling_keeps_the_mean_and_the_place() -> None:
    weights = np.zeros((2, 4, 4), np.float32)
    weights[0, 1, 2] = 16
    large = upsampled(weights, 32)
    assert large.shape == (2, 32, 32)
    assert large[0].mean() == pytest.approx(weights[0].mean())
    assert np.unravel_index(large[0].argmax(), (32, 32))[0] in range(8, 16)
    assert not large[1].any()
