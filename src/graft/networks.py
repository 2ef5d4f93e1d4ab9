"""Heads on a base, the full classifier around them, and networks from scratch described as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graft import backbones
from graft.errors import GraftError
from graft.params import Baseline

if TYPE_CHECKING:
    import keras


class NetworkError(GraftError):
    """A row of `baselines` describes layers that Keras cannot build."""


def resized(images: Any, image_size: int, input_size: int) -> Any:
    """Images at the size a network wants; the layer travels with the saved model."""
    import keras

    if image_size == input_size:
        return images
    return keras.layers.Resizing(input_size, input_size, name="resize")(images)


def pool(maps: Any, pooling: str) -> Any:
    """Maps (n, h, w, c) to vectors: (n, h*w*c) for flatten, (n, c) for avg and max."""
    import keras

    layer = {
        "flatten": keras.layers.Flatten,
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }[pooling]
    return layer(name="pool")(maps)


def image_input(image_size: int) -> Any:
    """Symbolic RGB images 0..255 of shape (n, image_size, image_size, 3)."""
    import keras

    return keras.Input((image_size, image_size, 3), name="image")


def base_input(images: Any, application: str, input_size: int) -> Any:
    """RGB 0..255 as the base was trained to see it: resized and preprocessed, both inside the model."""
    size = images.shape[1]
    return backbones.preprocess(application, resized(images, size, input_size))


def build_head(
    features: int, classes: int, dropout: float, scale: tuple[np.ndarray, np.ndarray] | None = None
) -> keras.Model:
    """Vectors (n, features) to class probabilities (n, classes).

    Args:
        features: length of a vector.
        classes: number of classes.
        dropout: fraction of the features left out in training.
        scale: mean and variance, each of shape (features,), by which vectors are standardised first; without it a
            learning rate that suits one base stalls on another, whose activations are ten times larger.
    """
    import keras

    vectors = keras.Input((features,), name="features")
    x = vectors
    if scale is not None:
        mean, variance = (values.astype("float32") for values in scale)
        x = keras.layers.Normalization(mean=mean, variance=variance, name="standardize")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(vectors, keras.layers.Dense(classes, activation="softmax", name="classes")(x), name="head")


def build_classifier(
    base: keras.Model, head: keras.Model, *, application: str, input_size: int, image_size: int, pooling: str
) -> keras.Model:
    """The whole classifier: RGB 0..255 (n, image_size, image_size, 3) in, probabilities (n, classes) out."""
    import keras

    images = image_input(image_size)
    maps = base(base_input(images, application, input_size))
    return keras.Model(images, head(pool(maps, pooling)), name="classifier")


def build_cnn(baseline: Baseline, image_size: int, classes: int) -> keras.Model:
    """A network from a row's list of layers, with a softmax over the classes added at its end.

    Raises:
        NetworkError: a layer is not in keras.layers or refuses its arguments or its input; the item is named.
    """
    import keras

    images = image_input(image_size)
    x = resized(images, image_size, baseline.input_size)
    if baseline.channels == 1:
        x = keras.ops.image.rgb_to_grayscale(x)
    for index, item in enumerate(baseline.layers):
        ((name, arguments),) = item.items()
        layer = getattr(keras.layers, name, None)
        if name == "Lambda" or not (isinstance(layer, type) and issubclass(layer, keras.layers.Layer)):
            raise NetworkError(f"layers[{index}] must name a class of keras.layers, received {name!r}")
        try:
            x = layer(**arguments)(x)
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise NetworkError(f"layers[{index}] {name} {arguments} cannot be built: {reason}") from error
    if len(x.shape) != 2:
        raise NetworkError(f"layers must end in a vector per image (add Flatten), received shape {tuple(x.shape)}")
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax", name="classes")(x), name="classifier")
