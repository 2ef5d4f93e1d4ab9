"""What a layer of the network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import DTypeLike

from graft.errors import GraftError

Shape = tuple[int, ...]  # of one image's values, without the images of the batch


class LayerError(GraftError):
    """A layer cannot be built as asked; the message says what it takes."""


class Layer(ABC):
    """A function of a batch with its derivative.

    A layer is built once, for inputs of one shape. `gradients` and `backward` speak of the latest call of `forward`.

    Attributes:
        weights: what training moves against their gradients, named and ordered as in the Keras layer; none before
            build. They are changed in place.
        statistics: what a forward pass in training moves, ordered as in the Keras layer, after the weights.
    """

    def __init__(self) -> None:
        self.weights: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}

    def build(self, shape: Shape, random: np.random.Generator, dtype: DTypeLike) -> Shape:
        """Make the weights for inputs of a shape, and return that of the outputs.

        Args:
            shape: of one image's inputs.
            random: what first weights are drawn from.
            dtype: of all numbers.

        Raises:
            LayerError: inputs of this shape do not suit the layer.
        """
        return shape

    def kept(self, shape: Shape) -> int:
        """How many numbers of one image, its inputs having this shape, forward keeps for backward beside them."""
        return 0

    @abstractmethod
    def forward(self, inputs: np.ndarray, random: np.random.Generator | None = None) -> np.ndarray:
        """The outputs of a batch, (n, ...).

        Args:
            inputs: (n, *shape).
            random: in training what masks are drawn from; None in inference.
        """

    @abstractmethod
    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """The loss's gradient to the inputs, from that to the outputs, each of the shape of what it is the gradient to.

        This is the chain rule: dL/dx = dL/dy * dy/dx.
        """

    def gradients(self, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """The loss's gradient to each of the weights, from that to the outputs."""
        return {}


def glorot_uniform(shape: Shape, fans: tuple[int, int], random: np.random.Generator, dtype: DTypeLike) -> np.ndarray:
    """First weights, uniform within sqrt(6 / (fan in + fan out)) of zero (Glorot and Bengio 2010), as in Keras.

    Args:
        shape: of the weights.
        fans: how many inputs an output has, and how many outputs an input has.
        random: what they are drawn from.
        dtype: of the weights.
    """
    limit = float(np.sqrt(6 / sum(fans)))
    return random.uniform(-limit, limit, shape).astype(dtype)


def column_sums(rows: np.ndarray) -> np.ndarray:
    """Of numbers (n, c), (c): by a product with ones, faster than adding row after row and more exact in float32."""
    return np.ones(len(rows), rows.dtype) @ rows
