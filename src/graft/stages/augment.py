"""Seeded views of every training image, the original first, and a picture of some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from tqdm import tqdm

from graft.artifacts import Manifest, read_images, read_manifest
from graft.augmentation import views
from graft.params import load_params
from graft.sections import Augment
from graft.shards import ShardWriter
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_file, new_folder, write_table

BATCH = 64  # images held in memory at a time
PREVIEW_IMAGES, PREVIEW_VIEWS = 6, 8


def run(augment: Augment, seed: int, prepared: Path, out: Path, preview: Path) -> None:
    """Write the views of prepared's training images to out, view after view, and some of them to preview (PNG)."""
    manifest = read_manifest(prepared)
    originals = read_images(prepared, len(manifest.rows))
    train = manifest.positions("train")
    image_ids = manifest.rows["image_id"].to_numpy()[train]
    with new_folder(out) as folder:
        with (
            ShardWriter(folder, "images", originals.row_shape, originals.dtype) as writer,
            tqdm(total=augment.views * len(train), desc="augment", unit="image", disable=None) as progress,
        ):
            for view in range(augment.views):
                for first in range(0, len(train), BATCH):
                    batch = slice(first, first + BATCH)
                    writer.append(views(originals[train[batch]], image_ids[batch], augment, seed, view))
                    progress.update(len(train[batch]))
        index = {"image_id": np.tile(image_ids, augment.views), "view": np.repeat(range(augment.views), len(train))}
        write_table(folder / "views.parquet", pd.DataFrame(index))
        _draw_preview(folder, manifest, augment.views, preview)
    print(f"augment: {len(train):,} training images x {augment.views} views = {len(train) * augment.views:,} images")


def _draw_preview(folder: Path, manifest: Manifest, count: int, path: Path) -> None:
    """A grid of training images, one class after the other, by views."""
    labels = manifest.rows["label"].to_numpy()[manifest.positions("train")]
    turn = pd.Series(labels).groupby(labels).cumcount()  # the first image of every class, then the second
    chosen = turn.sort_values(kind="stable").index[:PREVIEW_IMAGES].to_numpy()
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    shown = range(min(count, PREVIEW_VIEWS))
    stored = read_images(folder, count * len(labels))
    names, width, height = 0.1 * max(map(len, labels[chosen])) + 0.2, 1.3 * len(shown), 1.3 * len(chosen)  # inches
    figure = Figure(figsize=(names + width, height + 0.4))  # margins by hand: to find them takes longer than to draw
    figure.subplots_adjust(names / (names + width), 0.05 / (height + 0.4), 0.995, height / (height + 0.4), 0.04, 0.04)
    axes = figure.subplots(len(chosen), len(shown), squeeze=False)
    for row, position in enumerate(chosen):
        for view, image in enumerate(stored[position + len(labels) * np.array(shown)]):
            axes[row, view].imshow(image, interpolation="nearest" if len(image) < 100 else "antialiased")
            axes[row, view].set(xticks=[], yticks=[])
            axes[row, view].spines[:].set_visible(False)
        axes[row, 0].set_ylabel(labels[position], rotation=0, ha="right", va="center", fontsize=11)
    for view in shown:
        axes[0, view].set_title(f"view {view}" if view else "original", fontsize=11)
    with new_file(path) as partial:
        figure.savefig(partial, dpi=80)


def main(
    prepared: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    preview: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the augment stage."""
    loaded = load_params(params)
    run(loaded.augment, loaded.seed, prepared, out, preview)


if __name__ == "__main__":
    start(main)
