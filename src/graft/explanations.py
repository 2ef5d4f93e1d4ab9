"""Which parts of an image a network's answer rests on: Grad-CAM, and occlusion where the last map is too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from graft import activations

if TYPE_CHECKING:
    import keras

LEAST_SIDE = 3  # of a map that can tell parts of an image apart
BATCH = 64  # images at a time
GRADIENTS = 8  # images whose activations are kept for their gradients at a time

Apply = Callable[[np.ndarray], np.ndarray]  # images (n, size, size, 3) to probabilities (n, classes)


def last_map(classifier: keras.Model) -> tuple[str, int, int] | None:
    """The layer before the pooling to a vector, and height and width of its map; None where there are no maps."""
    layers = activations.map_layers(classifier)
    if not layers:
        return None
    _, height, width, _ = activations.output_of(classifier, layers[-1]).shape
    return layers[-1], height, width


def grad_cam(classifier: keras.Model, images: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017): where a layer's maps speak for a class.

    The maps, weighted by the mean gradient of the class's score before the softmax, summed, negative sums set to zero.

    Args:
        classifier: RGB 0..255 to probabilities, with its base nested in it or without one.
        images: of shape (n, size, size, 3).
        classes: whose score is explained for each image, class numbers of shape (n,).
        layer: of the body; None: the one of last_map.

    Returns:
        Of shape (n, h, w), as large as the layer's maps, not negative, in units of the score; zero where nothing speaks
        for the class.

    Raises:
        ActivationError: there is no such layer, or no map at all.
    """
    if layer is None:
        found = last_map(classifier)
        if found is None:
            raise activations.ActivationError(f"{classifier.name} has no maps, which Grad-CAM is made from")
        layer = found[0]
    model = activations.probe(classifier, [activations.output_of(classifier, layer)])
    last = activations.score_layer(classifier)
    parts = range(0, len(images), GRADIENTS)
    return np.concatenate(
        [_grad_cam(model, last, images[i : i + GRADIENTS], classes[i : i + GRADIENTS]) for i in parts]
    )


def _grad_cam(model: keras.Model, last: keras.layers.Dense, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    pixels = tf.constant(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(pixels)  # frozen weights are not watched by themselves
        maps, vectors = model(pixels, training=False)
        scores = tf.matmul(vectors, last.kernel)
        if last.use_bias:
            scores += last.bias
        chosen = tf.gather(scores, tf.constant(classes, tf.int32), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    return np.asarray(tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)))


def upsampled(weights: np.ndarray, size: int) -> np.ndarray:
    """Maps (n, h, w) at the size of the images, (n, size, size), by bilinear interpolation."""
    enlarged = [
        Image.fromarray(np.asarray(one, np.float32)).resize((size, size), Image.Resampling.BILINEAR) for one in weights
    ]
    return np.stack([np.asarray(one) for one in enlarged])


def occlusion(apply: Apply, images: np.ndarray, classes: np.ndarray, stride: int) -> np.ndarray:
    """Occlusion (Zeiler & Fergus 2014): how much of a class's probability is lost where a patch hides the image.

    The patch has the mean colour of the image and is twice as wide as the stride by which it is moved; it also begins
    beyond the edges, so that every pixel is hidden equally often.

    Args:
        apply: gives the probabilities.
        images: RGB 0..255 of shape (n, size, size, 3).
        classes: whose probability is explained for each image, class numbers of shape (n,).
        stride: px.

    Returns:
        Of shape (n, size, size): the mean loss over the patches that hid a pixel, from -1 to 1; below zero, the image
        was for the class all the more without the pixel.
    """
    size = images.shape[1]
    starts = range(-stride, size, stride)
    windows = [
        (slice(max(0, top), top + 2 * stride), slice(max(0, left), left + 2 * stride))
        for top in starts
        for left in starts
    ]
    whole = in_batches(apply, images)[np.arange(len(images)), classes]
    lost = np.zeros((len(images), size, size))
    for number, image in enumerate(images):
        for first in range(0, len(windows), BATCH):
            patches = windows[first : first + BATCH]
            hidden = np.repeat(image[None], len(patches), axis=0)
            for copy, window in zip(hidden, patches, strict=True):
                copy[window] = np.round(image.mean(axis=(0, 1)))
            for window, probability in zip(patches, in_batches(apply, hidden)[:, classes[number]], strict=True):
                lost[number][window] += whole[number] - probability
    return lost / 4  # two patches in each direction hide a pixel


def in_batches(apply: Apply, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of images, in batches of one shape, for which the network is traced once."""
    return np.concatenate(list(_batches(apply, images)))


def _batches(apply: Apply, images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        yield apply(np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)]))[: len(batch)]
