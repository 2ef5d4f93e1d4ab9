"""What a frozen base makes of every image and view, computed once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from graft import backbones, networks
from graft.artifacts import Manifest
from graft.inference import apply_model
from graft.shards import Shards, ShardWriter
from graft.storage import write_table
from graft.weights import load_base

if TYPE_CHECKING:
    import keras


def build_extractor(
    base: keras.Model, *, application: str, input_size: int, image_size: int, pooling: str, frozen_until: str
) -> keras.Model:
    """RGB 0..255 (n, image_size, image_size, 3) to [top] or, where the base is cut, [top, cut].

    top: pooled activations (n, features). cut: activations at frozen_until (n, h, w, c).
    BatchNormalization and dropout are in inference mode, so that every output depends on its own image alone.
    """
    import keras

    images = networks.image_input(image_size)
    pixels = networks.base_input(images, application, input_size)
    if frozen_until == "none":
        return keras.Model(images, [networks.pool(base(pixels, training=False), pooling)], name="extractor")
    trunk, tail = backbones.cut(base, frozen_until)
    at_cut = trunk(pixels, training=False)
    return keras.Model(images, [networks.pool(tail(at_cut, training=False), pooling), at_cut], name="extractor")


def feature_index(manifest: Manifest, views: pd.DataFrame) -> pd.DataFrame:
    """The order of a features folder: every image in manifest order, then the further views of the training images."""
    columns = ["image_id", "split", "label"]
    first = manifest.rows[columns].assign(view=0)
    further = views[views["view"] > 0].merge(manifest.rows[columns], on="image_id", how="left", validate="many_to_one")
    return pd.concat([first, further[[*columns, "view"]]], ignore_index=True)


def write_features(
    folder: Path,
    extractor: keras.Model,
    manifest: Manifest,
    images: Shards,
    views: pd.DataFrame,
    augmented: Shards,
    batch_size: int,
) -> int:
    """Extract every image and further view into a folder of shards; returns the number of rows.

    Memory holds one batch and one unwritten shard at a time, however many images there are.
    """
    names = ["top", "cut"][: len(extractor.outputs)]
    index = feature_index(manifest, views)
    parts = ((images, np.arange(len(images))), (augmented, np.flatnonzero((views["view"] > 0).to_numpy())))
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(index), desc="features", unit="image", disable=None))
        writers = [
            stack.enter_context(ShardWriter(folder, name, tuple(output.shape[1:]), np.float32))
            for name, output in zip(names, extractor.outputs, strict=True)
        ]
        for inputs, rows in parts:
            for outputs in apply_model(extractor, inputs, rows, batch_size):
                for writer, output in zip(writers, outputs, strict=True):
                    writer.append(output)
                bar.update(len(outputs[0]))
    write_table(folder / "index.parquet", index)
    return len(index)


def load_extractor(description: dict[str, Any], source: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen base that an SVM stands on, as a function of images.

    Args:
        description: base.json of the SVM's model folder.
        source: folder of the base's weights (models/source/<backbone>).

    Returns:
        RGB 0..255 (n, image_size, image_size, 3) to top activations (n, features), padded to the batch of training.

    Raises:
        ArtifactError: the folder holds other weights than those the SVM was trained on.
    """
    base = load_base(source, expected_sha256=description["weights_sha256"])
    settings = {name: description[name] for name in ("application", "input_size", "image_size", "pooling")}
    extractor = build_extractor(base, **settings, frozen_until="none")

    def extract(images: np.ndarray) -> np.ndarray:
        batches = apply_model(extractor, images, np.arange(len(images)), description["batch_size"])
        return np.concatenate([top for (top,) in batches])

    return extract
