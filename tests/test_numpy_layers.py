"""Every layer in NumPy computes what Keras' computes, and its gradients are those of differences and of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_layers import (
    assert_near,
    built,
    gradients_by_differences,
    gradients_of_tensorflow,
    own_gradients,
    spread,
)

from graft.numpy_cnn.activations import ReLU, Sigmoid, Tanh, sigmoid
from graft.numpy_cnn.convolution import Convolution
from graft.numpy_cnn.dense import Dense, Flatten
from graft.numpy_cnn.dropout import Dropout
from graft.numpy_cnn.layers import Layer, LayerError
from graft.numpy_cnn.normalization import BatchNormalization
from graft.numpy_cnn.pooling import AveragePooling, MaxPooling
from graft.numpy_cnn.preprocessing import Grayscale, Rescaling, Resizing
from graft.numpy_cnn.windows import output_size, size_keeping_padding

MAPS, VECTORS = (7, 6, 3), (5,)
CASES: dict[str, tuple[Callable[[], Layer], str, dict[str, Any]]] = {
    **{
        f"convolution {size[0]}x{size[1]} {padding} by {strides}": (
            lambda size=size, padding=padding, strides=strides: Convolution(
                4, size, strides=strides, padding=padding
            ),
            "Conv2D",
            {"filters": 4, "kernel_size": size, "strides": strides, "padding": padding},
        )
        for size in [(3, 3), (2, 3), (5, 5), (1, 1)]
        for padding in ("valid", "same")
        for strides in [(1, 1), (2, 2), (3, 3)]
    },
    "convolution without bias": (
        lambda: Convolution(2, (3, 3), use_bias=False), "Conv2D", {"filters": 2, "kernel_size": 3, "use_bias": False}
    ),
    **{
        f"{name} {size} {padding} by {strides}": (
            lambda kind=kind, size=size, padding=padding, strides=strides: kind(
                size, strides=strides, padding=padding
            ),
            name,
            {"pool_size": size, "strides": strides, "padding": padding},
        )
        for kind, name in [(MaxPooling, "MaxPooling2D"), (AveragePooling, "AveragePooling2D")]
        for size in [(2, 2), (3, 2)]
        for padding in ("valid", "same")
        for strides in [None, (1, 1), (2, 3)]
    },
    "batch normalisation of maps": (
        lambda: BatchNormalization(0.9, 1e-2), "BatchNormalization", {"momentum": 0.9, "epsilon": 1e-2}
    ),
    "relu": (ReLU, "ReLU", {}),
    "tanh": (Tanh, "Activation", {"activation": "tanh"}),
    "sigmoid": (Sigmoid, "Activation", {"activation": "sigmoid"}),
    "flatten": (Flatten, "Flatten", {}),
    "rescaling": (lambda: Rescaling(0.25, -1.5), "Rescaling", {"scale": 0.25, "offset": -1.5}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_a_layer_of_maps_is_that_of_keras(case: str, training: bool) -> None:
    make, name, arguments = CASES[case]
    compare(make(), name, arguments, MAPS, training)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    ("layer", "name", "arguments"),
    [
        (Dense(3), "Dense", {"units": 3}),
        (Dense(3, use_bias=False), "Dense", {"units": 3, "use_bias": False}),
        (BatchNormalization(), "BatchNormalization", {}),
    ],
)
def test_a_layer_of_vectors_is_that_of_keras(
    layer: Layer, name: str, arguments: dict[str, Any], training: bool
) -> None:
    compare(layer, name, arguments, VECTORS, training)


def compare(layer: Layer, name: str, arguments: dict[str, Any], shape: tuple[int, ...], training: bool) -> None:
    import keras

    inputs = spread((2, *shape))
    theirs = getattr(keras.layers, name)(dtype="float64", **arguments)
    theirs.build(inputs.shape)
    built(layer, shape)
    theirs.set_weights([*layer.weights.values(), *layer.statistics.values()])
    outputs = layer.forward(inputs, np.random.default_rng(0) if training else None)
    upstream = spread(outputs.shape, seed=5)
    expected, gradients = gradients_of_tensorflow(
        lambda x: theirs(x, training=training), theirs.trainable_variables, inputs, upstream
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-12)
    for name_of, variable in zip(layer.statistics, theirs.non_trainable_variables, strict=True):
        np.testing.assert_allclose(layer.statistics[name_of], variable, rtol=1e-9)
    seed = 0 if training else None
    received = own_gradients(layer, inputs, upstream, seed)
    assert_near(received, gradients)
    assert_near(received, gradients_by_differences(layer, inputs, upstream, seed))


@pytest.mark.parametrize("size", [(3, 3), (4, 2), (5, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_edge_padding_repeats_the_outermost_values(size: tuple[int, int], strides: tuple[int, int]) -> None:
    import tensorflow as tf

    layer = built(Convolution(2, size, strides=strides, padding="edge"), MAPS)
    kernel, bias = (tf.Variable(array) for array in layer.weights.values())

    def convolved(x: Any) -> Any:
        for axis in (1, 2):
            before, after = size_keeping_padding(MAPS[axis - 1], size[axis - 1], strides[axis - 1])
            places = np.clip(np.arange(-before, MAPS[axis - 1] + after), 0, MAPS[axis - 1] - 1)
            x = tf.gather(x, places, axis=axis)
        return tf.nn.conv2d(x, kernel, strides, "VALID") + bias

    inputs = spread((2, *MAPS))
    outputs = layer.forward(inputs)
    upstream = spread(outputs.shape, seed=5)
    expected, gradients = gradients_of_tensorflow(convolved, [kernel, bias], inputs, upstream)
    np.testing.assert_allclose(outputs, expected, rtol=1e-9)
    received = own_gradients(layer, inputs, upstream, None)
    assert_near(received, gradients)
    assert_near(received, gradients_by_differences(layer, inputs, upstream, None))


def test_edge_padding_by_hand() -> None:
    layer = Convolution(1, (3, 3), padding="edge")
    layer.build((2, 2, 1), np.random.default_rng(0), np.float64)
    layer.weights["kernel"][...] = 1
    image = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    # the first window: 1 1 2 / 1 1 2 / 3 3 4
    np.testing.assert_allclose(layer.forward(image).reshape(2, 2), [[18, 21], [24, 27]])


def test_the_input_gradient_is_the_full_convolution_with_the_turned_kernel() -> None:
    """As the lectures derive it, of one channel and one filter at stride 1."""
    from scipy.signal import convolve2d

    layer = built(Convolution(1, (3, 3)), (6, 6, 1))
    outputs = layer.forward(spread((1, 6, 6, 1)))
    upstream = spread(outputs.shape, seed=5)
    full = convolve2d(upstream[0, :, :, 0], layer.weights["kernel"][:, :, 0, 0], mode="full")
    np.testing.assert_allclose(layer.backward(upstream)[0, :, :, 0], full)  # convolve2d turns the kernel itself


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "expected"),
    [(6, 3, 1, 0, 4), (28, 3, 1, 0, 26), (26, 2, 2, 0, 13), (7, 3, 2, 0, 3), (8, 3, 2, 1, 4), (227, 11, 4, 0, 55)],
)
def test_output_sizes_of_the_formula(size: int, window: int, stride: int, padding: int, expected: int) -> None:
    assert output_size(size, window, stride, (padding, padding)) == expected


def test_of_equal_maxima_the_first_takes_the_gradient() -> None:
    layer = MaxPooling((2, 2))
    layer.build((2, 2, 1), np.random.default_rng(0), np.float64)
    layer.forward(np.zeros((1, 2, 2, 1)))
    assert layer.backward(np.ones((1, 1, 1, 1))).ravel().tolist() == [1, 0, 0, 0]


def test_dropout_keeps_the_mean_and_passes_gradients_where_it_passed_numbers() -> None:
    layer = Dropout(0.25)
    ones = np.ones((200, 300))
    outputs = layer.forward(ones, np.random.default_rng(1))
    assert sorted(np.unique(outputs)) == pytest.approx([0, 4 / 3])
    assert outputs.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(layer.backward(ones), outputs)
    np.testing.assert_array_equal(layer.forward(ones), ones)
    np.testing.assert_array_equal(layer.backward(ones), ones)
    inputs = spread((3, 8))
    received = own_gradients(layer, inputs, spread((3, 8), seed=5), seed=3)
    assert_near(received, gradients_by_differences(layer, inputs, spread((3, 8), seed=5), seed=3))


def test_spatial_dropout_leaves_out_whole_maps() -> None:
    layer = Dropout(0.5, whole_maps=True)
    outputs = layer.forward(np.ones((50, 4, 3, 6)), np.random.default_rng(1))
    per_map = outputs.reshape(50, 12, 6)
    assert (per_map == per_map[:, :1]).all()
    assert sorted(np.unique(outputs)) == [0, 2]
    np.testing.assert_array_equal(layer.backward(np.ones_like(outputs)), outputs)


@pytest.mark.parametrize("size", [4, 5, 9, 16])
def test_resizing_and_grey_are_those_of_keras(size: int) -> None:
    import keras

    images = np.random.default_rng(0).uniform(0, 255, (2, 9, 7, 3)).astype(np.float32)
    layer, grey = Resizing(size), Grayscale()
    assert layer.build((9, 7, 3), np.random.default_rng(0), np.float32) == (size, size, 3)
    assert grey.build((9, 7, 3), np.random.default_rng(0), np.float32) == (9, 7, 1)
    expected = keras.ops.image.resize(images, (size, size), antialias=True)
    np.testing.assert_allclose(layer.forward(images), expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(grey.forward(images), keras.ops.image.rgb_to_grayscale(images), rtol=1e-5)


@pytest.mark.parametrize("layer", [Resizing(4), Resizing(9), Grayscale()])
def test_gradients_through_resizing_and_grey(layer: Layer) -> None:
    inputs = spread((2, *MAPS))
    built(layer, MAPS)
    upstream = spread(layer.forward(inputs).shape, seed=5)
    received = own_gradients(layer, inputs, upstream, None)
    assert_near(received, gradients_by_differences(layer, inputs, upstream, None))


def test_sigmoid_overflows_on_neither_side() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Convolution(2, (5, 5)), (4, 4, 1), r"maps \(4, 4, 1\) are smaller than the window \(5, 5\)"),
        (lambda: Convolution(2, (3, 3), padding="full"), (4, 4, 1), "one of valid, same, edge, received 'full'"),
        (lambda: Convolution(2, (3, 0)), (4, 4, 1), r"at least 1, received \(3, 0\)"),
        (lambda: Convolution(2, (3, 3)), (4,), r"need maps \(height, width, channels\), received shape \(4,\)"),
        (lambda: MaxPooling((2, 2), padding="edge"), (4, 4, 1), "valid or same, received 'edge'"),
        (lambda: Dense(2), (4, 4, 1), r"vector per image \(add Flatten\), received shape \(4, 4, 1\)"),
    ],
)
def test_what_cannot_be_built_says_so(make: Callable[[], Layer], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        make().build(shape, np.random.default_rng(0), np.float32)
