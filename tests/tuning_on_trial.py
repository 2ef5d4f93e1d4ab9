"""What the tests of fine-tuning share: coloured digits in two views, a base that has seen them, its rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from networks_on_trial import backbone, learnable_digits

from graft import backbones, extraction, runtime
from graft.artifacts import Manifest
from graft.feature_sets import IMAGE, FeatureSet, feature_index
from graft.finetuning import fine_tune
from graft.inference import apply_model
from graft.sections import Backbone
from graft.training import Trained

SIZE, VIEWS = 32, 2


class Memory:
    """Rows of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.row_shape, self.dtype = array, array.shape[1:], array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.array[rows].copy()


@dataclass(frozen=True)
class Digits:
    """Thirty training images in two views (the second darker), thirty for validation."""

    manifest: Manifest
    index: pd.DataFrame
    pixels: np.ndarray  # of each row of the index

    @property
    def train(self) -> list[np.ndarray]:
        """Pixels of each view of the training images."""
        chosen = [(self.index["split"] == "train") & (self.index["view"] == view) for view in range(VIEWS)]
        return [self.pixels[rows.to_numpy()] for rows in chosen]

    @property
    def validation(self) -> np.ndarray:
        return self.pixels[(self.index["split"] == "validation").to_numpy()]

    def one_hot(self, split: str) -> np.ndarray:
        return np.eye(len(self.manifest.classes), dtype="float32")[self.manifest.labels[self.manifest.positions(split)]]


def coloured_digits() -> tuple[np.ndarray, np.ndarray]:
    """Sixty images of three digits, each digit in a colour of its own, and their labels; every other one a copy.

    For validation, then: a random base generalises so badly that its validation loss would fall on nothing else.
    """
    pixels, labels = learnable_digits(SIZE)
    tint = np.where(np.arange(3) == labels[:, None], 1.0, 0.4)
    pixels = (pixels * tint[:, None, None]).round().astype(np.uint8)
    pixels[1::2] = pixels[::2]
    return pixels, labels


def digits() -> Digits:
    pixels, labels = coloured_digits()
    names = [f"{index:02d}" for index in range(60)]
    rows = pd.DataFrame(
        {
            "image_id": names, "label": [f"digit {label}" for label in labels], "split": ["train", "validation"] * 30,
            "group": names, "source": "", "width": 8, "height": 8,
        }
    )  # fmt: skip
    manifest = Manifest(rows, ("digit 0", "digit 1", "digit 2"))
    train = manifest.positions("train")
    views = pd.DataFrame(
        {"image_id": np.tile(rows["image_id"].to_numpy()[train], VIEWS), "view": np.repeat(np.arange(VIEWS), 30)}
    )
    return Digits(manifest, feature_index(manifest, views), np.concatenate([pixels, pixels[train] // 4 * 3]))


def calibrated(row: Backbone) -> Any:
    """A base whose BatchNormalization has seen images, as that of any pretrained base has."""
    import keras

    runtime.configure(1)
    base = backbones.build_base(row.base)
    pixels, _ = coloured_digits()
    images = keras.ops.image.resize(pixels.astype("float32"), (row.base.input_size, row.base.input_size))
    inputs = backbones.preprocess(row.base.application, images)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.3  # else twenty passes leave more of the initial variance than there is of the images'
    for _ in range(20):
        base(inputs, training=True)
    return base


def features(base: Any, row: Backbone, data: Digits, stored: Sequence[str] | None = None) -> FeatureSet:
    """The rows at some points, or at all of them."""
    known = extraction.points(base, row.features.cuts)
    frozen = extraction.frozen_pass(
        base, application=row.base.application, input_size=row.base.input_size, image_size=SIZE,
        pooling=row.features.pooling, start=IMAGE, ends=known[1:],
    )  # fmt: skip
    parts = zip(*apply_model(frozen, data.pixels, np.arange(len(data.pixels)), 16), strict=True)
    arrays = {IMAGE: data.pixels} | {name: np.concatenate(part) for name, part in zip(known[1:], parts, strict=True)}
    wanted = known if stored is None else (IMAGE, *stored)
    return FeatureSet(data.index, {name: Memory(arrays[name]) for name in wanted}, data.manifest.classes)


def tuned(base: Any, row: Backbone, data: Digits, rows: FeatureSet, published: list[Any] | None = None) -> Trained:
    """fine_tune on them with the seed 5."""
    return fine_tune(
        base, row, data.manifest, rows, image_size=SIZE, class_weights="none", seed=5,
        publish=lambda *record: None if published is None else published.append(record),
    )  # fmt: skip


def small(name: str = "mobilenet", **changes: object) -> Backbone:
    """A row of tiny_params whose `finetune` has these values, where nothing else is named."""
    return backbone(name, **{key if "__" in key else f"finetune__{key}": value for key, value in changes.items()})
