"""Passes through a frozen base: from the images, or from activations that are there already, to later ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import backbones, networks, runtime
from graft.feature_sets import IMAGE, TOP, FeatureSet
from graft.inference import apply_compiled, apply_model, compiled
from graft.sections import Backbone
from graft.weights import load_base

if TYPE_CHECKING:
    import keras


def points(base: keras.Model, cuts: Sequence[str]) -> tuple[str, ...]:
    """Where rows can stand, from the images to the top: image, the cuts by depth, top.

    Raises:
        BackboneError: the base cannot be cut at one of them.
    """
    for layer in cuts:
        backbones.check_cut(base, layer)
    names = [layer.name for layer in base.layers]
    return (IMAGE, *sorted(cuts, key=names.index), TOP)


def frozen_pass(
    base: keras.Model,
    *,
    application: str,
    input_size: int,
    image_size: int,
    pooling: str,
    start: str,
    ends: Sequence[str],
) -> keras.Model:
    """A model from the rows at one point to the rows at each of some later ones, listed by depth.

    RGB 0..255 (n, image_size, image_size, 3) at `image`, activations (n, h, w, c) at a layer, pooled activations
    (n, features) at `top`. BatchNormalization and dropout are in inference mode, so that every row depends on its own
    image alone.
    """
    import keras

    if start == IMAGE:
        inputs = networks.image_input(image_size)
        rows, at = networks.base_input(inputs, application, input_size), None
    else:
        inputs = keras.Input(base.get_layer(start).output.shape[1:], name="activations")
        rows, at = inputs, start
    outputs = []
    for end in ends:
        until = None if end == TOP else end
        rows = backbones.part(base, at, until, f"to_{end}")(rows, training=False)
        outputs.append(networks.pool(rows, pooling) if end == TOP else rows)
        at = until
    return keras.Model(inputs, outputs, name="frozen_pass")


def top_activations(features: FeatureSet, rows: np.ndarray, source: Path, row: Backbone, seed: int) -> np.ndarray:
    """Pooled activations (n, features) of some rows; only where the plan stored none does this need TensorFlow.

    Args:
        features: with its pixels.
        rows: row numbers in the index.
        source: folder of the base's weights.
        row: the base's row of params.yaml.
        seed: to configure TensorFlow with, where it is needed.
    """
    if TOP in features.stored:
        return features.stored[TOP][rows]
    runtime.configure(seed)
    return top_rows(features, rows, source, row)


def top_rows(features: FeatureSet, rows: np.ndarray, source: Path, row: Backbone) -> np.ndarray:
    """As top_activations, computed from the nearest point that is stored."""
    model = load_base(source)
    start = features.nearest(points(model, row.features.cuts))
    size = features.stored[IMAGE].row_shape[0]
    extractor = row_pass(model, row, size, start, [TOP])
    batches = apply_model(extractor, features.stored[start], rows, row.features.batch_size)
    return np.concatenate([top for (top,) in batches])


def row_pass(base: keras.Model, row: Backbone, image_size: int, start: str, ends: Sequence[str]) -> keras.Model:
    """frozen_pass of a base as its row of params.yaml describes it."""
    return frozen_pass(
        base,
        application=row.base.application,
        input_size=row.base.input_size,
        image_size=image_size,
        pooling=row.features.pooling,
        start=start,
        ends=ends,
    )


def load_extractor(description: dict[str, Any], source: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen base that an SVM stands on, as a function of images.

    Args:
        description: base.json of the SVM's model folder.
        source: folder of the base's weights (models/source/<backbone>).

    Returns:
        RGB 0..255 (n, image_size, image_size, 3) to top activations (n, features), rounded to the storage of training;
        several images are padded to the batch of training.

    Raises:
        ArtifactError: the folder holds other weights than those the SVM was trained on.
    """
    base = load_base(source, expected_sha256=description["weights_sha256"])
    settings = {name: description[name] for name in ("application", "input_size", "image_size", "pooling")}
    call = compiled(frozen_pass(base, **settings, start=IMAGE, ends=[TOP]))  # once: tracing takes up to a second

    def extract(images: np.ndarray) -> np.ndarray:
        size = 1 if len(images) == 1 else description["batch_size"]  # who asks for one image waits for one
        batches = apply_compiled(call, images, np.arange(len(images)), size)
        return np.concatenate([top for (top,) in batches]).astype(description["storage"])

    return extract
