"""The lectures' worked examples, number by number, and the network of 15 parameters whose gradients one derives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy_layers import differences

from graft.numpy_cnn.activations import ReLU
from graft.numpy_cnn.convolution import Convolution
from graft.numpy_cnn.dense import Dense, Flatten
from graft.numpy_cnn.losses import SigmoidCrossEntropy
from graft.numpy_cnn.network import Network
from graft.numpy_cnn.optimizers import SGD
from graft.numpy_cnn.pooling import MaxPooling


def test_a_3x3_kernel_on_a_6x6_image_gives_4x4() -> None:
    layer = Convolution(1, (3, 3))
    assert layer.build((6, 6, 1), np.random.default_rng(0), np.float64) == (4, 4, 1)
    assert layer.forward(np.zeros((1, 6, 6, 1))).shape == (1, 4, 4, 1)


def test_the_2x2_filter_on_three_rows_of_numbers() -> None:
    layer = Convolution(1, (2, 2))
    layer.build((3, 4, 1), np.random.default_rng(0), np.float64)
    layer.weights["kernel"][..., 0, 0] = [[1, 2], [-1, 0]]
    image = np.array([[5, 2, 2, 3], [3, 1, 2, 1], [9, 0, 4, 5]], np.float64)
    outputs = layer.forward(image[None, ..., None])[0, ..., 0]
    # 5 + 2 * 2 - 3 = 6, 2 + 2 * 2 - 1 = 5, 2 + 2 * 3 - 2 = 6; 3 + 2 - 9 = -4, 1 + 4 - 0 = 5, 2 + 2 - 4 = 0
    assert outputs.tolist() == [[6, 5, 6], [-4, 5, 0]]


def test_max_pooling_of_4x4_numbers() -> None:
    layer = MaxPooling((2, 2), strides=(2, 2))
    assert layer.build((4, 4, 1), np.random.default_rng(0), np.float64) == (2, 2, 1)
    image = np.array([[3, 1, 1, 3], [2, 5, 0, 2], [1, 4, 2, 1], [7, 4, 2, 4]], np.float64)
    assert layer.forward(image[None, ..., None])[0, ..., 0].tolist() == [[5, 3], [7, 4]]


IMAGES = np.random.default_rng(3).uniform(-1, 1, (5, 6, 6, 1))
TARGETS = np.array([[1.0], [0.0], [1.0], [1.0], [0.0]])


def fifteen_parameters() -> Network:
    """A 6x6 image, one 3x3 filter and a bias (10), ReLU, 2x2 maxima, four values, one output (5)."""
    layers = [Convolution(1, (3, 3)), ReLU(), MaxPooling((2, 2)), Flatten(), Dense(1)]
    network = Network(layers, (6, 6, 1), random=np.random.default_rng(7), dtype=np.float64)
    assert network.shapes == [(6, 6, 1), (4, 4, 1), (4, 4, 1), (2, 2, 1), (4,), (1,)]
    assert [weight.size for weight in network.weights] == [9, 1, 4, 1]
    network.weights[1][...] = 0.1
    return network


def derived_gradients(network: Network) -> list[np.ndarray]:
    """dL/dK, dL/db, dL/dw and dL/dc as they are derived by hand, the mean over the images, in loops and sums alone.

    z = x * K + b (convolution), a = max(0, z), p = the maximum of each quarter of a, s = p . w + c,
    y = 1 / (1 + exp(-s)), L = - t log y - (1 - t) log(1 - y). Then
    dL/ds = y - t;  dL/dw_k = (y - t) p_k;  dL/dc = y - t;  dL/dp_k = (y - t) w_k;
    dL/dz_ij = dL/dp_k where a_ij is the maximum of quarter k and z_ij > 0, else 0;
    dL/dK_uv = sum of dL/dz_ij x_(i+u)(j+v);  dL/db = sum of dL/dz_ij.
    """
    kernel, bias, weights, constant = (array.squeeze() for array in network.weights)
    found = [np.zeros((3, 3)), np.zeros(()), np.zeros(4), np.zeros(())]
    for image, target in zip(IMAGES[..., 0], TARGETS[:, 0], strict=True):
        z = np.array(
            [[sum(kernel[u, v] * image[i + u, j + v] for u in range(3) for v in range(3)) for j in range(4)]
             for i in range(4)]
        ) + bias  # fmt: skip
        a = np.maximum(z, 0)
        quarters = [(i, j) for i in (0, 2) for j in (0, 2)]
        pooled = np.array([a[i : i + 2, j : j + 2].max() for i, j in quarters])
        y = 1 / (1 + np.exp(-(pooled @ weights + constant)))
        dz = np.zeros((4, 4))
        for k, (i, j) in enumerate(quarters):
            row, column = np.unravel_index(a[i : i + 2, j : j + 2].argmax(), (2, 2))
            if z[i + row, j + column] > 0:
                dz[i + row, j + column] = (y - target) * weights[k]
        dk = [[(dz * image[u : u + 4, v : v + 4]).sum() for v in range(3)] for u in range(3)]
        for total, one in zip(found, (dk, dz.sum(), (y - target) * pooled, y - target), strict=True):
            total += np.asarray(one) / len(IMAGES)
    return found


def own_gradients(network: Network) -> list[np.ndarray]:
    loss = SigmoidCrossEntropy()
    return network.backward(loss.gradient(network.forward(IMAGES), TARGETS))


def test_every_gradient_of_the_15_parameters_is_the_derived_one() -> None:
    network = fifteen_parameters()
    for received, expected in zip(own_gradients(network), derived_gradients(network), strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(received.squeeze(), expected, rtol=1e-12)


def test_every_gradient_of_the_15_parameters_is_that_of_differences() -> None:
    network, loss = fifteen_parameters(), SigmoidCrossEntropy()
    for weight, received in zip(network.weights, own_gradients(network), strict=True):
        expected = differences(lambda: loss.value(network.forward(IMAGES), TARGETS), weight)
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-8)


def test_the_15_parameters_are_those_of_tensorflow() -> None:
    import keras
    import tensorflow as tf

    network, kinds = fifteen_parameters(), keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 1), dtype="float64"), kinds.Conv2D(1, 3, activation="relu", dtype="float64"),
         kinds.MaxPooling2D(dtype="float64"), kinds.Flatten(dtype="float64"), kinds.Dense(1, dtype="float64")]
    )  # fmt: skip
    assert model.count_params() == 15
    model.set_weights(network.get_weights())
    with tf.GradientTape() as tape:
        scores = model(tf.constant(IMAGES))
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(TARGETS, scores))
    assert SigmoidCrossEntropy().value(network.forward(IMAGES), TARGETS) == pytest.approx(float(loss), rel=1e-9)
    for received, expected in zip(own_gradients(network), tape.gradient(loss, model.trainable_variables), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-12)


def test_the_15_parameters_learn_where_a_bright_spot_is() -> None:
    """Descent by the gradients above learns to tell images whose upper part has it from those whose lower part has."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 0.2, (80, 6, 6, 1))
    targets = (np.arange(80) % 2).astype(float)[:, None]
    for image, target in zip(images, targets[:, 0], strict=True):
        row, column = random.integers(0, 2) + 4 * int(target), random.integers(0, 6)
        image[row, column] += 1
    network, loss = fifteen_parameters(), SigmoidCrossEntropy()
    network.weights[0][...] = 1 / 9
    descent = SGD(network.weights, momentum=0.9, nesterov=False)
    for _ in range(300):
        gradients = network.backward(loss.gradient(network.forward(images[:60]), targets[:60]))
        descent.step(gradients, 0.1)
    predicted = loss.predictions(network.forward(images[60:])) > 0.5
    assert (predicted == targets[60:]).all()
