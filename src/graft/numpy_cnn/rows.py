"""Networks from rows of `baselines`, whose layers are named as in keras.layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graft.errors import GraftError
from graft.numpy_cnn.activations import Activation, ReLU, Sigmoid, Tanh
from graft.numpy_cnn.convolution import Convolution
from graft.numpy_cnn.dense import Dense, Flatten
from graft.numpy_cnn.dropout import Dropout
from graft.numpy_cnn.layers import Layer
from graft.numpy_cnn.network import Network
from graft.numpy_cnn.normalization import BatchNormalization
from graft.numpy_cnn.pooling import AveragePooling, MaxPooling, Pooling
from graft.numpy_cnn.preprocessing import Grayscale, Rescaling, Resizing
from graft.numpy_cnn.windows import Pair
from graft.sections import Baseline

ACTIVATIONS: Mapping[str, type[Activation]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}
FIRST_WEIGHTS = 1  # beside a seed and 0: a stream of random numbers of their own

Sides = int | Sequence[int]  # both alike, or height and width


class EngineError(GraftError):
    """A row with `engine: numpy` asks for what the package's own layers do not have."""


def network_of(baseline: Baseline, image_size: int, classes: int, seed: int) -> Network:
    """A row's network from RGB 0..255 (n, image_size, image_size, 3) to the scores of the classes (n, classes).

    Its weights are those of the Keras network of the same row, in number, shape and order.

    Args:
        baseline: the row, which Keras can build.
        image_size: of the images, px.
        classes: number of classes.
        seed: of the first weights.

    Raises:
        EngineError: the row asks for what there is not; the item is named.
        LayerError: a layer does not suit what comes before it.
    """
    if baseline.train.optimizer != "sgd":
        raise EngineError(f"train.optimizer must be sgd with engine numpy, received {baseline.train.optimizer}")
    layers: list[Layer] = [] if image_size == baseline.input_size else [Resizing(baseline.input_size)]
    if baseline.channels == 1:
        layers.append(Grayscale())
    for index, item in enumerate(baseline.layers):
        ((name, arguments),) = item.items()
        try:
            layers.extend(_layers(name, arguments))
        except GraftError as error:
            raise EngineError(f"layers[{index}] {name}: {error}") from None
    layers.append(Dense(classes))
    random = np.random.default_rng([seed, 0, FIRST_WEIGHTS])
    return Network(layers, (image_size, image_size, 3), random=random)


def _layers(name: str, arguments: Mapping[str, Any]) -> list[Layer]:
    """What an item of the row consists of; a layer with an activation is two."""
    if name not in LAYERS:
        raise EngineError(f"engine numpy has {', '.join(sorted(LAYERS))} alone; use these, or engine keras")
    known = list(inspect.signature(LAYERS[name]).parameters)
    unknown = sorted(set(arguments) - {*known, "name"})
    if unknown:
        has = f"the arguments {', '.join(known)} alone" if known else "no arguments"
        raise EngineError(f"engine numpy has {has}, received {', '.join(unknown)}")
    return LAYERS[name](**{key: value for key, value in arguments.items() if key != "name"})


def _conv2d(
    filters: int,
    kernel_size: Sides,
    strides: Sides = 1,
    padding: str = "valid",
    activation: str | None = None,
    use_bias: bool = True,
) -> list[Layer]:
    convolution = Convolution(filters, _pair(kernel_size), strides=_pair(strides), padding=padding, use_bias=use_bias)
    return [convolution, *_activation(activation)]


def _pooling(kind: type[Pooling]) -> Callable[..., list[Layer]]:
    def build(pool_size: Sides = 2, strides: Sides | None = None, padding: str = "valid") -> list[Layer]:
        return [kind(_pair(pool_size), strides=None if strides is None else _pair(strides), padding=padding)]

    return build


def _dense(units: int, activation: str | None = None, use_bias: bool = True) -> list[Layer]:
    return [Dense(units, use_bias=use_bias), *_activation(activation)]


def _activation(activation: str | None) -> list[Layer]:
    if activation in (None, "linear"):
        return []
    if activation not in ACTIVATIONS:
        raise EngineError(f"activation must be one of linear, {', '.join(ACTIVATIONS)}, received {activation!r}")
    return [ACTIVATIONS[activation]()]


def _batch_normalization(momentum: float = 0.99, epsilon: float = 1e-3) -> list[Layer]:
    return [BatchNormalization(momentum, epsilon)]


def _rescaling(scale: float, offset: float = 0.0) -> list[Layer]:
    return [Rescaling(scale, offset)]


def _pair(sides: Sides) -> Pair:
    height, width = (sides, sides) if isinstance(sides, int) else sides
    return height, width


# By Keras' names; their parameters are what a row may say, with Keras' defaults.
LAYERS: Mapping[str, Callable[..., list[Layer]]] = {
    "Activation": lambda activation: _activation(activation),
    "AveragePooling2D": _pooling(AveragePooling),
    "BatchNormalization": _batch_normalization,
    "Conv2D": _conv2d,
    "Dense": _dense,
    "Dropout": lambda rate: [Dropout(rate)],
    "Flatten": lambda: [Flatten()],
    "MaxPooling2D": _pooling(MaxPooling),
    "ReLU": lambda: [ReLU()],
    "Rescaling": _rescaling,
    "SpatialDropout2D": lambda rate: [Dropout(rate, whole_maps=True)],
}
