"""Heads on a base, and the full classifier around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graft import backbones

if TYPE_CHECKING:
    import keras


def resized(images: Any, image_size: int, input_size: int) -> Any:
    """Images at the size a network wants; the layer travels with the saved model."""
    import keras

    if image_size == input_size:
        return images
    return keras.layers.Resizing(input_size, input_size, antialias=input_size < image_size, name="resize")(images)


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
