"""A whole network in NumPy: its loss, its gradients and its steps are those of TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy_layers import differences, spread

from graft.numpy_cnn.activations import ReLU, Tanh
from graft.numpy_cnn.convolution import Convolution
from graft.numpy_cnn.dense import Dense, Flatten
from graft.numpy_cnn.layers import LayerError
from graft.numpy_cnn.losses import SigmoidCrossEntropy, SoftmaxCrossEntropy
from graft.numpy_cnn.memory import training_memory
from graft.numpy_cnn.network import Network
from graft.numpy_cnn.normalization import BatchNormalization
from graft.numpy_cnn.optimizers import SGD
from graft.numpy_cnn.pooling import AveragePooling, MaxPooling
from graft.training_memory import FLOAT_BYTES, PASSING, PROCESS_BYTES, SAFETY, weights_bytes

INPUTS = spread((4, 9, 8, 2))
TARGETS = np.eye(3)[[0, 2, 1, 2]]
WEIGHTS = np.array([0.5, 1.0, 2.0, 1.0])
LOSS = SoftmaxCrossEntropy(label_smoothing=0.1)


def network(dtype: Any = np.float64) -> Network:
    layers = [
        *(Convolution(4, (3, 3), padding="same", strides=(2, 2)), BatchNormalization(0.9), ReLU(), MaxPooling((2, 2))),
        *(Convolution(3, (2, 2)), Tanh(), AveragePooling((2, 2), strides=(1, 1), padding="same")),
        *(Flatten(), Dense(5), ReLU(), Dense(3)),
    ]
    made = Network(layers, (9, 8, 2), random=np.random.default_rng(2), dtype=dtype)
    for number, weight in enumerate(made.weights):
        weight += np.random.default_rng([3, number]).uniform(0.0, 0.3, weight.shape)
    return made


def keras_network() -> Any:
    import keras

    kinds = keras.layers
    layers = [
        *(kinds.Conv2D(4, 3, padding="same", strides=2, dtype="float64"), kinds.BatchNormalization(
            momentum=0.9, dtype="float64"), kinds.ReLU(dtype="float64"), kinds.MaxPooling2D(dtype="float64")),
        *(kinds.Conv2D(3, 2, activation="tanh", dtype="float64"), kinds.AveragePooling2D(
            2, strides=1, padding="same", dtype="float64"), kinds.Flatten(dtype="float64")),
        *(kinds.Dense(5, activation="relu", dtype="float64"), kinds.Dense(3, dtype="float64")),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((9, 8, 2), dtype="float64"), *layers])


def own_gradients(made: Network) -> list[np.ndarray]:
    scores = made.forward(INPUTS, np.random.default_rng(0))
    return made.backward(LOSS.gradient(scores, TARGETS, WEIGHTS))


def test_loss_and_every_gradient_are_those_of_keras_and_tensorflow() -> None:
    import keras
    import tensorflow as tf

    made, model = network(), keras_network()
    model.set_weights(made.get_weights())
    crossentropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, dtype="float64")
    with tf.GradientTape() as tape:
        loss = crossentropy(TARGETS, model(tf.constant(INPUTS), training=True), sample_weight=WEIGHTS)
    value = LOSS.value(made.forward(INPUTS, np.random.default_rng(0)), TARGETS, WEIGHTS)
    assert value == pytest.approx(float(loss), rel=1e-9)
    expected = tape.gradient(loss, model.trainable_variables)
    for received, gradient in zip(own_gradients(made), expected, strict=True):
        np.testing.assert_allclose(received, gradient, rtol=1e-6, atol=1e-9)


def test_every_gradient_is_that_of_differences() -> None:
    made = network()

    def loss() -> float:
        return LOSS.value(made.forward(INPUTS, np.random.default_rng(0)), TARGETS, WEIGHTS)

    for weight, received in zip(made.weights, own_gradients(made), strict=True):
        np.testing.assert_allclose(received, differences(loss, weight), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_of_gradient_descent_are_those_of_keras(nesterov: bool) -> None:
    import keras

    weights = [spread((3, 2)), spread((2,), seed=1)]
    variables = [keras.Variable(weight, name=name) for weight, name in zip(weights, ("kernel", "bias"), strict=True)]
    theirs = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    theirs.exclude_from_weight_decay(var_names=["bias"])
    own = SGD(weights, momentum=0.9, nesterov=nesterov, weight_decay=0.05, decayed=[True, False])
    for step in range(4):
        gradients = [spread((3, 2), seed=10 + step), spread((2,), seed=20 + step)]
        theirs.apply([keras.ops.convert_to_tensor(gradient.astype("float32")) for gradient in gradients], variables)
        own.step(gradients, 0.1)
    for weight, variable in zip(weights, variables, strict=True):
        np.testing.assert_allclose(weight, variable, rtol=1e-5, atol=1e-6)
    assert own.steps == 4


def test_without_momentum_a_step_goes_down_the_gradient() -> None:
    weight = np.array([1.0, 2.0])
    SGD([weight], momentum=0.0, nesterov=False).step([np.array([10.0, -10.0])], 0.1)
    assert weight.tolist() == [0, 3]


def test_losses_by_hand() -> None:
    scores = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    targets = np.eye(3)[[0, 1]]
    softmax = SoftmaxCrossEntropy()
    assert softmax.value(scores, targets) == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)
    np.testing.assert_allclose(
        softmax.gradient(scores, targets), [[-0.15, 0.1, 0.05], [0.125, -0.375, 0.25]], atol=1e-12
    )
    assert SigmoidCrossEntropy().value(np.array([[0.0]]), np.array([[1.0]])) == pytest.approx(np.log(2))
    large = np.array([[1e4, -1e4]])
    assert SoftmaxCrossEntropy().value(large, np.array([[1.0, 0.0]])) == 0
    assert SigmoidCrossEntropy().value(large, np.array([[1.0, 0.0]])) == 0


def test_sigmoid_losses_with_weights_and_several_outputs_have_the_gradient_of_differences() -> None:
    scores, loss = spread((4, 3)) * 3, SigmoidCrossEntropy()
    expected = differences(lambda: loss.value(scores, TARGETS, WEIGHTS), scores)
    np.testing.assert_allclose(loss.gradient(scores, TARGETS, WEIGHTS), expected, rtol=1e-6, atol=1e-9)


def test_first_weights_are_glorot_uniform_and_follow_from_the_seed() -> None:
    def made(seed: int) -> Network:
        layers = [Convolution(32, (3, 3)), Flatten(), Dense(50)]
        return Network(layers, (10, 10, 8), random=np.random.default_rng(seed))

    kernel, bias, dense, _ = made(1).weights
    assert kernel.dtype == np.float32
    # fans of the convolution 9 * 8 and 9 * 32, of the dense layer 8 * 8 * 32 and 50
    for weight, limit in [(kernel, np.sqrt(6 / 360)), (dense, np.sqrt(6 / 2098))]:
        assert 0.99 * limit < np.abs(weight).max() <= limit
        assert weight.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    assert not bias.any()
    np.testing.assert_array_equal(made(1).weights[0], kernel)
    assert (made(2).weights[0] != kernel).any()


def test_weights_go_out_and_in_as_copies() -> None:
    one, other = network(), network()
    arrays = one.get_weights()
    arrays[0] += 1
    np.testing.assert_array_equal(one.weights[0], other.weights[0])
    other.set_weights(arrays)
    np.testing.assert_array_equal(other.weights[0], one.weights[0] + 1)
    with pytest.raises(LayerError, match=r"weights must have shapes \[\(3, 3, 2, 4\)"):
        other.set_weights(arrays[1:])


def test_a_layer_that_does_not_suit_is_named() -> None:
    with pytest.raises(LayerError, match=r"layer 1 \(Dense\): a dense layer needs a vector per image"):
        Network([ReLU(), Dense(2)], (4, 4, 1), random=np.random.default_rng(0))


def test_memory_counts_inputs_columns_and_the_largest_in_passing() -> None:
    made = Network([Convolution(2, (3, 3)), Flatten(), Dense(3)], (6, 6, 1), random=np.random.default_rng(0))
    estimate = training_memory(made, images=10)
    values = 36 + 4 * 4 * 2 + 32 + 3 + 16 * 9  # inputs, outputs, and a column for each of 16 windows
    assert estimate.per_row == FLOAT_BYTES * (values + PASSING * 144)
    assert estimate.fixed == weights_bytes(9 * 2 + 2 + 32 * 3 + 3, "sgd") + 2 * 10 * 36
    assert estimate.bytes(2) == round(SAFETY * (PROCESS_BYTES + estimate.fixed + 2 * estimate.per_row))
