"""Seeded views of every training image, the original first, and a picture of some of them."""

from __future__ import annotations

import errno
import math
import os
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from tqdm import tqdm

from graft.artifacts import Manifest, read_images, read_manifest
from graft.augmentation import views
from graft.full_disk import room_for
from graft.params import load_params
from graft.run_keys import run_key
from graft.sections import Augment
from graft.shards import Shards, ShardWriter
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import ArtifactError, new_file, new_folder, write_table
from graft.unfinished import unfinished

BATCH = 64  # images held in memory at a time
PREVIEW_IMAGES, PREVIEW_VIEWS = 6, 8
RECORDS = "images-*.crc.npy"  # of a ShardWriter that was killed before it removed them
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


def run(augment: Augment, seed: int, prepared: Path, out: Path, preview: Path, work: Path | None = None) -> None:
    """Write the views of prepared's training images to out, view after view, and some of them to preview (PNG).

    What an interrupted run left in the work folder, as unfinished.unfinished gives it, is not drawn again.

    Raises:
        ArtifactError: the prepared images are damaged.
        DiskFullError: the disk is full; whole shards stay in the work folder.
    """
    manifest = read_manifest(prepared)
    originals = read_images(prepared, manifest.rows)
    train = manifest.positions("train")
    image_ids = manifest.rows["image_id"].to_numpy()[train]
    index = pd.DataFrame(
        {"image_id": np.tile(image_ids, augment.views), "view": np.repeat(range(augment.views), len(train))}
    )
    with new_folder(out) as folder:
        kept = work / "views" if work else folder
        if not work or not _is_whole(kept, index):
            _write_views(kept, originals, train, index, augment, seed)
        if work:
            _link(kept, folder)
        write_table(folder / "views.parquet", index)
        _draw_preview(folder, manifest, index, preview)
    print(f"augment: {len(train):,} training images x {augment.views} views = {len(index):,} images")


def _is_whole(folder: Path, index: pd.DataFrame) -> bool:
    """Whether an interrupted run had drawn all views; each is compared with its checksum."""
    try:
        stored = read_images(folder, index)
        for first in range(0, len(stored), BATCH):
            stored[first : first + BATCH]
    except ArtifactError:
        return False
    return True


def _write_views(
    folder: Path, originals: Shards, train: np.ndarray, index: pd.DataFrame, augment: Augment, seed: int
) -> None:
    """Write the views that the index lists, from the first on that is in no whole shard yet."""
    image_ids = index["image_id"].head(len(train)).tolist()
    with (
        room_for("the views", folder, len(index) * math.prod(originals.row_shape)),
        ShardWriter(folder, "images", originals.row_shape, originals.dtype, ids=index, resume=True) as writer,
        tqdm(total=len(index), desc="augment", unit="image", disable=None, initial=writer.rows) as progress,
    ):
        begun, done = divmod(writer.rows, len(train))
        for view in range(begun, augment.views):
            for first in range(done if view == begun else 0, len(train), BATCH):
                batch = slice(first, first + BATCH)
                writer.append(views(originals[train[batch]], image_ids[batch], augment, seed, view))
                progress.update(len(train[batch]))


def _link(kept: Path, folder: Path) -> None:
    """Give the views' files a second name in a folder, for those in the work folder must stay until the stage is done.

    They are copied where the file system has no links.
    """
    for path in sorted(kept.iterdir()):
        if path.match(RECORDS):
            continue
        try:
            os.link(path, folder / path.name)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with room_for(path.name, folder, path.stat().st_size):
                shutil.copyfile(path, folder / path.name)


def _draw_preview(folder: Path, manifest: Manifest, index: pd.DataFrame, path: Path) -> None:
    """A grid of training images, one class after the other, by views."""
    labels = manifest.rows["label"].to_numpy()[manifest.positions("train")]
    turn = pd.Series(labels).groupby(labels).cumcount()  # the first image of every class, then the second
    chosen = turn.sort_values(kind="stable").index[:PREVIEW_IMAGES].to_numpy()
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    shown = range(min(len(index) // len(labels), PREVIEW_VIEWS))
    stored = read_images(folder, index)
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
    from graft.resource_checks import check_disk

    loaded = load_params(params)
    check_disk(loaded)
    with unfinished(run_key(os.environ.get("DVC_STAGE", "augment"), Path.cwd())) as work:
        run(loaded.augment, loaded.seed, prepared, out, preview, work)


if __name__ == "__main__":
    start(main)
