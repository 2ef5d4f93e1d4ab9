"""The filters that a network learned for its first layer, beside what they make of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from graft import activations, networks
from graft.learned_filters import FirstLayer, LearnedFilter
from graft.storage import read_json
from graft.tiles import signed_png
from graft.weights import load_base

if TYPE_CHECKING:
    import keras

MOST_SIDE = 128  # px of a map
NEARLY_ALL = 0.995  # of the places of a map, which the padding at its border shall not make pale


def first_layer(network: keras.Model, image: np.ndarray, most: int) -> FirstLayer | None:
    """Filters of a network's first convolution, evenly from the one whose map of an image varies most to the least.

    Args:
        network: takes RGB 0..255; a classifier, or a base as of base_on_images.
        image: RGB 0..255 (size, size, 3). Where it is grey, so are the filters: their weights for the three colours add
            up.
        most: so many filters at most.

    Returns:
        None where the network has no convolution.
    """
    filters, found = activations.first_filters(network), activations.first_maps(network, image)
    if filters is None or found is None:
        return None
    kernels = filters.kernels
    summed = bool((image == image[..., :1]).all()) and kernels.shape[-1] == 3
    if summed:
        kernels = kernels.sum(axis=-1, keepdims=True)
    ranked = np.argsort(-found.maps.std(axis=(0, 1)), kind="stable")
    places = np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int)
    chosen = [
        LearnedFilter(int(number), kernels[number].astype(float), signed_png(_scaled(found.maps[..., number])))
        for number in ranked[places]
    ]
    height, width, count = found.maps.shape
    return FirstLayer(filters.layer, count, (height, width), summed, chosen)


def _scaled(values: np.ndarray) -> np.ndarray:
    """A map (h, w), shrunk where it is large, in units of nearly its largest value."""
    factor = MOST_SIDE / max(values.shape)
    if factor < 1:
        size = round(factor * values.shape[1]), round(factor * values.shape[0])
        picture = Image.fromarray(np.asarray(values, np.float32))
        values = np.asarray(picture.resize(size, Image.Resampling.BOX))
    most = np.quantile(np.abs(values), NEARLY_ALL) or np.abs(values).max()
    return values / most if most > 0 else values


def base_on_images(folder: Path, source: Path) -> keras.Model:
    """The frozen base that an SVM stands on, from RGB 0..255 to its maps.

    Args:
        folder: models/<backbone>-svm.
        source: models/source/<backbone>.

    Raises:
        ArtifactError: a file is missing, damaged or of another base.
    """
    import keras

    description = read_json(folder / "base.json")
    base = load_base(source, expected_sha256=description["weights_sha256"])
    images = networks.image_input(description["image_size"])
    inputs = networks.base_input(images, description["application"], description["input_size"])
    return keras.Model(images, base(inputs, training=False), name="base_on_images")
