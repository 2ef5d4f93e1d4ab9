"""Classifiers whose evidence lies in a known corner: a bright patch in one of two colours."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE, PATCH, BLOCK = 32, 8, 4  # px; the last map has SIZE / BLOCK places per side
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
RED, BLUE = 0, 1  # the classes


def in_corner(array: np.ndarray, corner: str, side: int) -> np.ndarray:
    """The square of so many rows and columns in a corner of (h, w, ...), as a view."""
    vertical, horizontal = (slice(-side, None) if far else slice(0, side) for far in CORNERS[corner])
    return array[vertical, horizontal]


def two_patches(red: str, blue: str, purer: int | None = None) -> np.ndarray:
    """A grey image with a red patch in one corner and a blue one in another, one of which may be purer."""
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    in_corner(image, red, PATCH)[:] = (255, 60, 60) if purer != RED else (255, 0, 0)
    in_corner(image, blue, PATCH)[:] = (60, 60, 255) if purer != BLUE else (0, 0, 255)
    return image


def colour_base() -> Any:
    """Maps of redness and blueness, by convolutions with set weights: two means of 2 x 2, then colour differences."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = inputs
    for number in range(2):
        layer = keras.layers.Conv2D(3, 2, strides=2, use_bias=False, name=f"mean{number}")
        x = layer(x)
        layer.set_weights([np.tile(np.eye(3) / 4, (2, 2, 1, 1)).astype(np.float32)])
    layer = keras.layers.Conv2D(2, 1, activation="relu", name="colours")
    x = layer(x)
    weights = np.array([[1, -0.5, -0.5], [-0.5, -0.5, 1]], np.float32).T.reshape(1, 1, 3, 2) / 255
    layer.set_weights([weights, np.zeros(2, np.float32)])
    return keras.Model(inputs, x, name="colour_base")


def cornered_classifier(*, nested: bool) -> Any:
    """RGB 0..255 to the probabilities of red and blue: surer than float32 can tell from one."""
    import keras

    base = colour_base()
    images = keras.Input((SIZE, SIZE, 3), name="image")
    if nested:
        head_inputs = keras.Input((2,))
        outputs = keras.layers.Dense(2, activation="softmax", name="classes")(head_inputs)
        head = keras.Model(head_inputs, outputs, name="head")
        maps = base(images)
        pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
        classifier = keras.Model(images, head(pooled), name="classifier")
    else:
        x = images
        for layer in base.layers[1:]:
            x = layer(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        head = keras.layers.Dense(2, activation="softmax", name="classes")
        classifier = keras.models.clone_model(keras.Model(images, head(x), name="classifier"))
        classifier.set_weights([*base.get_weights(), *head.get_weights()])
        head = classifier.layers[-1]
    head.set_weights([np.array([[4000, -4000], [-4000, 4000]], np.float32), np.zeros(2, np.float32)])
    return classifier
