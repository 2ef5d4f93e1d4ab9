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


def pool(maps: Any, pooling: str, name: str = "pool") -> Any:
    """Maps (n, h, w, c) to vectors: (n, h*w*c) for flatten, (n, c) for avg, max and min."""
    import keras

    if pooling == "min":  # of which Keras has an operation alone
        return keras.ops.min(maps, axis=(1, 2))
    layer = {
        "flatten": keras.layers.Flatten,
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }[pooling]
    return layer(name=name)(maps)


def image_input(image_size: int) -> Any:
    """Symbolic RGB images 0..255 of shape (n, image_size, image_size, 3)."""
    import keras

    return keras.Input((image_size, image_size, 3), name="image")


def base_input(images: Any, application: str, input_size: int) -> Any:
    """RGB 0..255 as the base was trained to see it: resized and preprocessed, both inside the model."""
    size = images.shape[1]
    return backbones.preprocess(application, resized(images, size, input_size))


def build_head(
    features: int,
    classes: int,
    dropout: float,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    hidden_units: int = 0,
    seed: int | None = None,
) -> keras.Model:
    """Vectors (n, features) to class probabilities (n, classes).

    Dropout stands before every dense layer, as in AlexNet's head (Krizhevsky et al. 2012).

    Args:
        features: length of a vector.
        classes: number of classes.
        dropout: fraction of the features, and of the hidden units, left out in training.
        scale: mean and variance, each of shape (features,), by which vectors are standardised first; without it a
            learning rate that suits one base stalls on another, whose activations are ten times larger.
        hidden_units: of a ReLU layer before the classes; 0: none.
        seed: of the first weights and of the masks of dropout, which then depend on nothing that was built or drawn
            before, the mask of a step on the number of steps before it alone. None: drawn from Keras' global one.
    """
    import keras

    def seeded(number: int) -> int | None:
        return None if seed is None else seed + number

    def dense(units: int, number: int, **arguments: Any) -> Any:
        return keras.layers.Dense(
            units, kernel_initializer=keras.initializers.GlorotUniform(seed=seeded(number)), **arguments
        )

    vectors = keras.Input((features,), name="features")
    x = vectors
    if scale is not None:
        mean, variance = (values.astype("float32") for values in scale)
        x = keras.layers.Normalization(mean=mean, variance=variance, name="standardize")(x)
    x = keras.layers.Dropout(dropout, seed=seeded(0), name="dropout")(x)
    if hidden_units:
        x = dense(hidden_units, 1, activation="relu", name="hidden")(x)
        x = keras.layers.Dropout(dropout, seed=seeded(1), name="hidden_dropout")(x)
    return keras.Model(vectors, dense(classes, 0, activation="softmax", name="classes")(x), name="head")


def seed_dropout(model: keras.Model, seed: int) -> None:
    """Start the random layers of a model anew, the i-th from (seed + i), so that their masks follow from that alone."""
    random = [layer.seed_generator for layer in model.layers if hasattr(layer, "seed_generator")]
    for number, generator in enumerate(random):
        generator.state.assign([seed + number, 0])


def build_classifier(
    base: keras.Model, head: keras.Model, *, application: str, input_size: int, image_size: int, pooling: str
) -> keras.Model:
    """The whole classifier: RGB 0..255 (n, image_size, image_size, 3) in, probabilities (n, classes) out."""
    import keras

    images = image_input(image_size)
    maps = base(base_input(images, application, input_size))
    return keras.Model(images, head(pool(maps, pooling)), name="classifier")
