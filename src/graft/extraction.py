"""Passes through a frozen base: from the images, or from activations that are there already, to later ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import backbones, networks, runtime
from graft.feature_sets import IMAGE, SVM, TOP, FeatureSet
from graft.inference import apply_compiled, apply_model, compiled
from graft.sections import Backbone
from graft.storage import ArtifactError
from graft.svm_layers import Tap, point_of, starts, taps_of
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

    inputs, rows = _entry(base, application, input_size, image_size, start)
    at = None if start == IMAGE else start
    outputs = []
    for end in ends:
        until = None if end == TOP else end
        rows = backbones.part(base, at, until, f"to_{end}")(rows, training=False)
        outputs.append(networks.pool(rows, pooling) if end == TOP else rows)
        at = until
    return keras.Model(inputs, outputs, name="frozen_pass")


def svm_pass(
    base: keras.Model, taps: Sequence[Tap], *, application: str, input_size: int, image_size: int, start: str
) -> keras.Model:
    """As frozen_pass, to the vectors (n, features) of a support vector machine.

    The maps at each tap are pooled, and the vectors concatenated in the taps' order.
    """
    import keras

    inputs, rows = _entry(base, application, input_size, image_size, start)
    begin = base.input if start == IMAGE else base.get_layer(start).output
    ends = [base.output if tap.layer == TOP else base.get_layer(tap.layer).output for tap in taps]
    maps = {id(begin): rows}
    if ahead := {id(end): end for end in ends if end is not begin}:  # Keras takes each once, and no input
        reached = keras.Model(begin, list(ahead.values()), name=f"to_{SVM}")(rows, training=False)
        maps |= dict(zip(ahead, reached, strict=True))
    pooled = enumerate(zip(taps, ends, strict=True))
    vectors = [networks.pool(maps[id(end)], tap.pooling, f"pool_{place}") for place, (tap, end) in pooled]
    joined = keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
    return keras.Model(inputs, [joined], name="frozen_pass")


def _entry(base: keras.Model, application: str, input_size: int, image_size: int, start: str) -> tuple[Any, Any]:
    """What a pass takes in at a point, and how the base sees it."""
    import keras

    if start == IMAGE:
        inputs = networks.image_input(image_size)
        return inputs, networks.base_input(inputs, application, input_size)
    inputs = keras.Input(base.get_layer(start).output.shape[1:], name="activations")
    return inputs, inputs


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
    return _computed(model, features, rows, row, start, TOP)


def svm_vectors(features: FeatureSet, rows: np.ndarray, source: Path, row: Backbone, seed: int) -> np.ndarray:
    """What a backbone's support vector machine stands on, of shape (n, features); as top_activations.

    Where it stands on other layers than the top alone, these are the vectors that the features stage kept; where it
    kept none, they are computed from the nearest stored point before the first of the layers.
    """
    point = point_of(row.features)
    if point == TOP:
        return top_activations(features, rows, source, row, seed)
    if point in features.stored:
        return features.stored[point][rows]
    runtime.configure(seed)
    model = load_base(source)
    start = features.nearest(starts(model, row.features.cuts, taps_of(row.features)))
    return _computed(model, features, rows, row, start, point)


def _computed(
    model: keras.Model, features: FeatureSet, rows: np.ndarray, row: Backbone, start: str, end: str
) -> np.ndarray:
    """Vectors (n, features) of some rows at a point, from those stored at another."""
    extractor = row_pass(model, row, features.stored[IMAGE].row_shape[0], start, [end])
    batches = apply_model(extractor, features.stored[start], rows, row.features.batch_size)
    return np.concatenate([vectors for (vectors,) in batches])


def row_pass(base: keras.Model, row: Backbone, image_size: int, start: str, ends: Sequence[str]) -> keras.Model:
    """frozen_pass of a base as its row of params.yaml describes it; with `svm`, as the only end, svm_pass."""
    settings: dict[str, Any] = {
        "application": row.base.application,
        "input_size": row.base.input_size,
        "image_size": image_size,
        "start": start,
    }
    if list(ends) == [SVM]:
        return svm_pass(base, taps_of(row.features), **settings)
    return frozen_pass(base, **settings, pooling=row.features.pooling, ends=ends)


def described_pass(base: keras.Model, description: dict[str, Any]) -> keras.Model:
    """The frozen pass from images to the vectors that a support vector machine stands on.

    Args:
        base: of the machine.
        description: base.json of the machine's model folder.

    Raises:
        ArtifactError: it does not say on which layers the machine stands, as before there was a choice.
    """
    settings = {name: description[name] for name in ("application", "input_size", "image_size")}
    try:
        taps = [Tap(**tap) for tap in description["svm_layers"]]
    except (KeyError, TypeError):
        raise ArtifactError(
            f"base.json must list the layers that its SVM stands on, each with its pooling, as svm_layers, received "
            f"{description.get('svm_layers', 'none')}; `dvc repro` makes it anew"
        ) from None
    if [tap.layer for tap in taps] == [TOP]:
        return frozen_pass(base, **settings, pooling=taps[0].pooling, start=IMAGE, ends=[TOP])
    return svm_pass(base, taps, **settings, start=IMAGE)


def load_extractor(description: dict[str, Any], source: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen base that an SVM stands on, as a function of images.

    Args:
        description: base.json of the SVM's model folder.
        source: folder of the base's weights (models/source/<backbone>).

    Returns:
        RGB 0..255 (n, image_size, image_size, 3) to the machine's vectors (n, features), rounded to the storage of
        training; several images are padded to the batch of training.

    Raises:
        ArtifactError: the folder holds other weights than those the SVM was trained on; or as described_pass.
    """
    base = load_base(source, expected_sha256=description["weights_sha256"])
    call = compiled(described_pass(base, description))  # once: tracing takes up to a second

    def extract(images: np.ndarray) -> np.ndarray:
        size = 1 if len(images) == 1 else description["batch_size"]  # who asks for one image waits for one
        batches = apply_compiled(call, images, np.arange(len(images)), size)
        return np.concatenate([vectors for (vectors,) in batches]).astype(description["storage"])

    return extract
