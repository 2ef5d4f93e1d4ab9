"""Layers one after the other, with all their weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from graft.numpy_cnn.layers import Layer, LayerError, Shape


class Network:
    """From a batch of images to scores, and from the loss's gradient to these to that of every weight.

    Attributes:
        layers: in the order in which they are applied.
        shapes: of one image before each layer, and last of its scores.

    Args:
        layers: not yet built.
        shape: of one image.
        random: what first weights are drawn from.
        dtype: of all numbers.

    Raises:
        LayerError: a layer does not suit what comes before it; the message says which.
    """

    def __init__(
        self, layers: Sequence[Layer], shape: Shape, *, random: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> None:
        self.layers, self._dtype = list(layers), dtype
        self.shapes = [shape]
        for number, layer in enumerate(self.layers):
            try:
                self.shapes.append(layer.build(self.shapes[-1], random, dtype))
            except LayerError as error:
                raise LayerError(f"layer {number} ({type(layer).__name__}): {error}") from None

    @property
    def weights(self) -> list[np.ndarray]:
        """The arrays that training moves, layer by layer; themselves, not copies."""
        return [weight for layer in self.layers for weight in layer.weights.values()]

    @property
    def weight_names(self) -> list[str]:
        """Of each array of `weights`: kernel, bias, gamma or beta."""
        return [name for layer in self.layers for name in layer.weights]

    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The scores (n, outputs) of a batch (n, *shape); `random` in training, as of Layer.forward."""
        values = np.asarray(inputs, self._dtype)
        for layer in self.layers:
            values = layer.forward(values, random)
        return values

    def backward(self, gradient: np.ndarray) -> list[np.ndarray]:
        """The gradients to `weights`, in their order, from that to the scores of the latest forward.

        It goes from the last layer to the first that has weights; what is before it has no use for a gradient.
        """
        first = next((number for number, layer in enumerate(self.layers) if layer.weights), len(self.layers))
        found: list[np.ndarray] = []
        for number in reversed(range(first, len(self.layers))):
            layer = self.layers[number]
            of_layer = layer.gradients(gradient)
            found = [of_layer[name] for name in layer.weights] + found
            if number > first:
                gradient = layer.backward(gradient)
        return found

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all arrays, moving statistics among them, in the order of the Keras model's get_weights."""
        return [array.copy() for array in self._arrays]

    def set_weights(self, arrays: Sequence[np.ndarray]) -> None:
        """Take over what get_weights, or the Keras model's, has given.

        Raises:
            LayerError: these are not as many arrays of the same shapes.
        """
        expected, received = [array.shape for array in self._arrays], [array.shape for array in arrays]
        if expected != received:
            raise LayerError(f"weights must have shapes {expected}, received {received}")
        for array, values in zip(self._arrays, arrays, strict=True):
            array[...] = values

    @property
    def _arrays(self) -> list[np.ndarray]:
        return [array for layer in self.layers for array in (*layer.weights.values(), *layer.statistics.values())]
