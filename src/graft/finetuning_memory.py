"""The memory that fine-tuning a backbone takes at its peak, phase by phase, estimated as in training_memory.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graft import backbones
from graft.batch_sizes import settled
from graft.extraction import points
from graft.feature_sets import IMAGE, TOP, FeatureSet
from graft.sections import Backbone
from graft.training_memory import FLOAT_BYTES, TrainingMemory, applied, head, resident, trained
from graft.weights import load_base

if TYPE_CHECKING:
    import keras

    from graft.params import Params


def settled_finetuning(params: Params, name: str, source: Path, features: FeatureSet) -> Params:
    """The params with a number in place of a backbone's `finetune.batch_size: auto`, as batch_sizes.settled.

    Args:
        params: of the run.
        name: of the backbone.
        source: folder of the base's weights.
        features: what is stored of all images.
    """
    row = params.backbones[name]
    return settled(
        params,
        "finetune",
        name,
        images=len(features.positions("train")),
        estimates=lambda: finetuning_memory(
            load_base(source),
            row,
            image_size=params.data.image_size,
            classes=len(features.classes),
            rows=len(features.index),
            stored=tuple(features.stored),
            itemsize=np.dtype(params.features.storage).itemsize,
        ),
    )


def finetuning_memory(
    base: keras.Model, row: Backbone, *, image_size: int, classes: int, rows: int, stored: Sequence[str], itemsize: int
) -> list[TrainingMemory]:
    """Of the heads on the frozen base, and of each cut's second phase, which follow one another.

    Args:
        base: of the row.
        row: of params.yaml.
        image_size: px per side of the prepared images.
        classes: number of classes.
        rows: of images and views.
        stored: the points whose rows the features stage keeps.
        itemsize: bytes of a kept number.
    """
    cuts = row.features.cuts
    return [
        _phase(base, row, known, image_size=image_size, classes=classes, rows=rows, itemsize=itemsize)
        for known in _phases(points(base, cuts), stored, unfrozen=bool(row.finetune.unfrozen_epochs))
    ]


def _phases(known: Sequence[str], stored: Sequence[str], *, unfrozen: bool) -> Iterator[tuple[str, str]]:
    """Where each phase reads its rows, and after which point it trains."""

    def start(point: str) -> str:
        return next(p for p in reversed(known[: known.index(point) + 1]) if p == IMAGE or p in stored)

    yield start(TOP), TOP
    if unfrozen:
        for point in known[1:-1] or (IMAGE,):
            yield start(point), point


def _phase(
    base: keras.Model,
    row: Backbone,
    phase: tuple[str, str],
    *,
    image_size: int,
    classes: int,
    rows: int,
    itemsize: int,
) -> TrainingMemory:
    start, after = phase
    settings, features = row.finetune, _features(base, row.features.pooling)
    heads = len(settings.heads.learning_rate) * len(settings.heads.dropout) if settings.heads else 1
    widths = settings.heads.hidden_units if settings.heads else [settings.hidden_units]
    several = [head(features, classes, width, settings.optimizer) for width in widths for _ in range(heads)]
    total = TrainingMemory(3 * FLOAT_BYTES * base.count_params(), 0)  # the base, and its values before phase 2 twice
    for one in several if after == TOP else several[-1:]:
        total += one
    layers = {point: None if point in (IMAGE, TOP) else point for point in phase}
    if start != after:
        total += applied(backbones.part(base, layers[start], layers[after], "frozen"))
    if after != TOP:
        total += trained(backbones.part(base, layers[after], None, "tail"), settings.optimizer)
    shape = (image_size, image_size, 3) if start == IMAGE else _shape(base, start, features)
    bytes_of_row = prod(shape) * (1 if start == IMAGE else itemsize)
    return total + resident(rows, bytes_of_row) + TrainingMemory(0, FLOAT_BYTES * prod(shape))


def _features(base: keras.Model, pooling: str) -> int:
    """Length of a pooled vector."""
    shape = base.output_shape[1:]
    return prod(shape) if pooling == "flatten" else shape[-1]


def _shape(base: keras.Model, point: str, features: int) -> tuple[int, ...]:
    return (features,) if point == TOP else tuple(base.get_layer(point).output.shape[1:])
