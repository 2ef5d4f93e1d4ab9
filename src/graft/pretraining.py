"""The source task: a base trained from scratch on a labelled data set that has labels to spare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from graft import networks
from graft.checkpoints import Checkpoints
from graft.embedded import glyphs
from graft.folders import folder
from graft.images import ImageError, decode, resize
from graft.records import Record
from graft.sections import Backbone, Pretrain
from graft.shards import Shards, ShardWriter
from graft.splits import stratified_split
from graft.storage import ArtifactError, new_folder, read_json, read_table, write_json, write_table
from graft.training import Phase, Rows, fit_phase

if TYPE_CHECKING:
    import keras

BATCH = 256  # rows read at a time


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


@dataclass(frozen=True)
class Source:
    """The source images, decoded.

    Attributes:
        images: pixels, of shape (n, image_size, image_size, 3).
        labels: of shape (n,).
        unreadable: how many files were not images.
    """

    images: Shards
    labels: np.ndarray
    unreadable: int


def source_images(settings: Pretrain, seed: int, work: Path) -> Source:
    """The source images, decoded into `work/source`, or found there as an interrupted run left them."""
    folder = work / "source"
    if folder.is_dir():
        try:
            return _read_source(folder)
        except ArtifactError as error:
            print(f"{error}; the source images are made once more", flush=True)
    with new_folder(folder) as partial:
        labels, unreadable = write_source(partial, settings, seed)
        write_table(partial / "labels.parquet", pd.DataFrame({"label": labels}))
        write_json(partial / "source.json", {"unreadable": unreadable})
    return _read_source(folder)


def _read_source(folder: Path) -> Source:
    labels = read_table(folder / "labels.parquet", ["label"])["label"].to_numpy(str)
    images = Shards(folder, "images")
    for first in range(0, len(images), BATCH):  # each row is compared with its checksum, now that it can be made again
        images[first : first + BATCH]
    return Source(images, labels, read_json(folder / "source.json")["unreadable"])


def train_on_source(
    model: keras.Model, row: Backbone, settings: Pretrain, seed: int, work: Path, machine: Mapping[str, str]
) -> dict[str, Any]:
    """Train the base under a softmax over the source classes; the base keeps its best weights, the softmax is dropped.

    Args:
        model: the randomly initialised base; trained in place.
        row: its row.
        settings: the source data set.
        seed: of rendering, split and batches.
        work: keeps decoded images and checkpoints, from which another call goes on after an interruption.
        machine: as of Checkpoints.

    Returns:
        What the weights card says of the source: classes, images, and the accuracy on its n validation images.
    """
    source = source_images(settings, seed, work)
    classes, numbers = np.unique(source.labels, return_inverse=True)
    splits = stratified_split(source.labels, settings.validation, seed)
    train, validation = (np.flatnonzero(splits == name) for name in ("train", "validation"))
    outcome = fit_phase(
        _classifier(model, row, settings.image_size, len(classes)),
        Rows(source.images, [train], numbers[train]),
        Rows(source.images, [validation], numbers[validation]),
        classes=len(classes),
        settings=row.pretrain,
        phase=Phase("source", row.pretrain.epochs, row.pretrain.learning_rate),
        first_epoch=1,
        seed=seed,
        publish=lambda epoch, phase, metrics: None,  # the card tells how it ended
        checkpoints=Checkpoints(work / "checkpoints", machine, {"base": row.base.model_dump(mode="json")}),
    )
    return _card(settings, source, outcome.history, len(validation))


def _card(settings: Pretrain, source: Source, history: Sequence[Mapping[str, Any]], held_out: int) -> dict[str, Any]:
    best = min(history, key=lambda record: record["val_loss"])
    return {
        "source": settings.source,
        "source_classes": np.unique(source.labels).tolist(),
        "source_images": len(source.labels),
        "source_unreadable": source.unreadable,
        "source_val_accuracy": best["val_accuracy"],
        "source_val_n": held_out,
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
