"""Layers of the NumPy network on trial, in float64: their gradients by differences, and by TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graft.numpy_cnn.layers import Layer

STEP = 1e-6  # of a central difference


@dataclass(frozen=True)
class Gradients:
    """Of one number: to the inputs, and to each of the weights."""

    inputs: np.ndarray
    weights: list[np.ndarray]


def spread(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Numbers from -1 to 1 in a random order, no two of them near each other, none near zero.

    There a maximum or a ReLU has a bend, where no difference tells the gradient.
    """
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation((np.arange(count) + 0.5) / count * 2 - 1).reshape(shape)


def built(layer: Layer, shape: Sequence[int], seed: int = 1) -> Layer:
    """The layer in float64 with weights and statistics that are nowhere zero or one."""
    layer.build(tuple(shape), np.random.default_rng(seed), np.float64)
    for number, array in enumerate([*layer.weights.values(), *layer.statistics.values()]):
        array[...] = np.random.default_rng([seed, number]).uniform(0.2, 1.0, array.shape) - 0.6 * (array.ndim > 1)
    return layer


def differences(function: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """The gradient of a function to an array that it reads: (f(x + h) - f(x - h)) / 2h for each of its numbers."""
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        value = array[place]
        array[place] = value + STEP
        above = function()
        array[place] = value - STEP
        found[place] = (above - function()) / (2 * STEP)
        array[place] = value
    return found


def own_gradients(layer: Layer, inputs: np.ndarray, upstream: np.ndarray, seed: int | None) -> Gradients:
    """By the layer's formulas, of sum(upstream * outputs); a seed of masks: in training."""
    layer.forward(inputs, None if seed is None else np.random.default_rng(seed))
    found = layer.gradients(upstream)
    return Gradients(layer.backward(upstream), [found[name] for name in layer.weights])


def gradients_by_differences(layer: Layer, inputs: np.ndarray, upstream: np.ndarray, seed: int | None) -> Gradients:
    """Of the same, by small changes of every number."""
    statistics = {name: array.copy() for name, array in layer.statistics.items()}

    def total() -> float:
        for name, array in statistics.items():
            layer.statistics[name][...] = array
        return float((upstream * layer.forward(inputs, None if seed is None else np.random.default_rng(seed))).sum())

    weights = [differences(total, array) for array in layer.weights.values()]
    return Gradients(differences(total, inputs), weights)


def gradients_of_tensorflow(
    function: Callable[[Any], Any], variables: Sequence[Any], inputs: np.ndarray, upstream: np.ndarray
) -> tuple[np.ndarray, Gradients]:
    """The outputs of a function of tensors, and the gradients of sum(upstream * outputs)."""
    import tensorflow as tf

    tensor = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        outputs = function(tensor)
        total = tf.reduce_sum(outputs * upstream)
    to_inputs, *to_weights = tape.gradient(total, [tensor, *variables])
    return outputs.numpy(), Gradients(to_inputs.numpy(), [np.asarray(gradient) for gradient in to_weights])


def assert_near(received: Gradients, expected: Gradients, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(received.inputs, expected.inputs, rtol=tolerance, atol=tolerance)
    assert len(received.weights) == len(expected.weights)
    for one, other in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
