"""The source task: a base trained from scratch on a labelled data set that has labels to spare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from graft import networks
from graft.embedded import glyphs
from graft.folders import folder
from graft.images import ImageError, decode, resize
from graft.records import Record
from graft.sections import Backbone, Pretrain
from graft.shards import Shards, ShardWriter
from graft.splits import stratified_split
from graft.training import Phase, Rows, fit_phase

if TYPE_CHECKING:
    import keras


def source_records(settings: Pretrain, seed: int) -> Iterator[Record]:
    """The source data set's labelled images in its order, at most images_per_class of each class, drawn by the seed."""
    if settings.source == "glyphs":
        yield from glyphs(settings.images_per_class, seed)
        return
    records = list(folder(settings.path, []))
    members = defaultdict(list)
    for place, record in enumerate(records):
        members[record.label].append(place)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(members[label])[: settings.images_per_class] for label in sorted(members)]
    for place in np.sort(np.concatenate(drawn)):
        yield records[place]


def write_source(folder: Path, settings: Pretrain, seed: int) -> tuple[np.ndarray, int]:
    """Decode the source images into shards; returns their labels (n,) and how many files were unreadable."""
    shape = (settings.image_size, settings.image_size, 3)
    labels, unreadable = [], 0
    with ShardWriter(folder, "images", shape, np.uint8) as writer:
        for record in tqdm(source_records(settings, seed), desc="source images", unit="image", disable=None):
            try:
                image = resize(decode(record.read()), settings.image_size, "stretch")
            except (ImageError, OSError):
                unreadable += 1
                continue
            writer.append(image[None])
            labels.append(record.label)
    return np.array(labels), unreadable


def train_on_source(model: keras.Model, row: Backbone, settings: Pretrain, seed: int, work: Path) -> dict[str, Any]:
    """Train the base under a softmax over the source classes; the base keeps its best weights, the softmax is dropped.

    Args:
        model: the randomly initialised base; trained in place.
        row: its row.
        settings: the source data set.
        seed: of rendering, split and batches.
        work: an empty folder for the decoded images.

    Returns:
        What the weights card says of the source: classes, images, and the accuracy on its n validation images.
    """
    labels, unreadable = write_source(work, settings, seed)
    classes, numbers = np.unique(labels, return_inverse=True)
    splits = stratified_split(labels, settings.validation, seed)
    train, validation = (np.flatnonzero(splits == name) for name in ("train", "validation"))
    images = Shards(work, "images")
    outcome = fit_phase(
        _classifier(model, row, settings.image_size, len(classes)),
        Rows(images, [train], numbers[train]),
        Rows(images, [validation], numbers[validation]),
        classes=len(classes),
        settings=row.pretrain,
        phase=Phase("source", row.pretrain.epochs, row.pretrain.learning_rate),
        first_epoch=1,
        seed=seed,
        publish=lambda epoch, phase, metrics: None,  # the card tells how it ended
    )
    best = min(outcome.history, key=lambda record: record["val_loss"])
    return {
        "source": settings.source,
        "source_classes": classes.tolist(),
        "source_images": len(labels),
        "source_unreadable": unreadable,
        "source_val_accuracy": best["val_accuracy"],
        "source_val_n": len(validation),
    }


def _classifier(model: keras.Model, row: Backbone, image_size: int, classes: int) -> keras.Model:
    """The base under a softmax over the source classes."""
    return networks.build_classifier(
        model,
        networks.build_head(model.output_shape[-1], classes, dropout=0.0),
        application=row.base.application,
        input_size=row.base.input_size,
        image_size=image_size,
        pooling="avg",
    )
