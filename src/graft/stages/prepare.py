"""The source's images, each decoded and resized once, split and listed; what cannot be used is listed with a reason."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from graft import images, sources
from graft.artifacts import MANIFEST_COLUMNS, SPLITS, Manifest, write_manifest
from graft.params import load_params
from graft.sections import Data
from graft.shards import ShardWriter
from graft.sources import Record, Reject, SourceError
from graft.splits import assign_splits, resolve_copies
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder, write_table

BATCH = 64  # images held in memory at a time
QUARANTINE_COLUMNS = ["source", "label", "reason", "detail"]
ROW_COLUMNS = ["image_id", "label", "split", "source", "width", "height", "reason", "detail", "position"]


def run(data: Data, seed: int, out: Path, report: Path) -> None:
    """Write the prepared images and their manifest to out, counts.csv and quarantine.csv to report.

    Raises:
        SourceError: the source cannot be trained on.
        SplitError: a class is too small to be in every split.
    """
    with new_folder(out) as folder, tempfile.TemporaryFile(dir=folder) as pixels:
        rows, quarantined = _read_source(data, seed, pixels)
        write_table(report / "quarantine.csv", quarantined)  # also where the next step finds that nothing is left
        usable = rows.sort_values("image_id", ignore_index=True)  # an order that no renamed file changes
        classes = sorted({*rows["label"], *quarantined["label"]} - {""})
        _check_classes(classes, usable, quarantined, report)
        usable["split"] = assign_splits(
            usable["label"].tolist(),
            usable["split"].tolist(),
            validation=data.validation,
            test=data.test,
            train_per_class=data.train_per_class,
            seed=seed,
        )
        counts = _counts(usable, quarantined, classes)
        write_table(report / "counts.csv", counts)
        used = usable[usable["split"].notna()]
        write_manifest(folder, Manifest(used[list(MANIFEST_COLUMNS)], tuple(classes)))
        _write_images(folder, pixels, used["position"].to_numpy(), data.image_size)
    print(_summary(counts, len(usable), len(quarantined)))


def _read_source(data: Data, seed: int, pixels: IO[bytes]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the usable images, and the quarantined rest of the source; the images go to pixels."""
    total = sources.check_folder(data.path, data.test != "none").total() if data.source == "folder" else None
    rejects: list[Reject] = []
    records = tqdm(sources.records(data, seed, rejects), "prepare", total, unit="image", disable=None)
    rows = pd.DataFrame(_decode_all(iter(records), data, pixels), columns=ROW_COLUMNS)
    verdicts = resolve_copies(rows[rows["reason"].isna()])
    rows = rows.assign(**{column: rows[column].fillna(verdicts[column]) for column in ("reason", "detail")})
    bad = rows["reason"].notna()
    quarantined = pd.concat([pd.DataFrame(rejects, columns=QUARANTINE_COLUMNS), rows.loc[bad, QUARANTINE_COLUMNS]])
    return rows[~bad], quarantined.sort_values("source", kind="stable")


def _decode_all(records: Iterator[Record], data: Data, pixels: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Append each image to pixels; yield a row on each record, with the reason where there is no image."""
    load = partial(_load, size=data.image_size, how=data.resize)
    seen: dict[str, int] = {}  # a copy's pixels are not stored again
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(records, BATCH)):  # pool.map alone would read the whole source ahead
            for row, image in pool.map(load, batch):
                if image is not None and row["image_id"] not in seen:
                    pixels.write(image.tobytes())
                    seen[row["image_id"]] = len(seen)
                yield row | {"position": seen.get(row["image_id"], -1)}


def _load(record: Record, size: int, how: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    row = {
        "image_id": hashlib.sha256(record.content).hexdigest(),
        "label": record.label,
        "split": record.split,
        "source": record.source,
    }
    try:
        image = images.decode(record.content)
    except images.ImageError as error:
        return row | {"width": 0, "height": 0, "reason": error.reason, "detail": error.detail}, None
    row |= {"width": image.shape[1], "height": image.shape[0], "reason": None, "detail": None}
    return row, images.resize(image, size, how)


def _check_classes(classes: list[str], usable: pd.DataFrame, quarantined: pd.DataFrame, report: Path) -> None:
    emptied = sorted(set(classes) - set(usable["label"]))
    if emptied:
        reasons = quarantined.loc[quarantined["label"] == emptied[0], "reason"].value_counts()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise SourceError(f"class {emptied[0]!r} has no usable image: {listed}; see {report}/quarantine.csv")


def _counts(usable: pd.DataFrame, quarantined: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row per class: its images in each split, those not used, and those quarantined."""
    parts = pd.concat(
        [
            pd.DataFrame({"label": usable["label"], "part": usable["split"].fillna("unused")}),
            pd.DataFrame({"label": quarantined["label"], "part": "quarantined"}),
        ]
    )
    counts = pd.crosstab(parts["label"], parts["part"])
    return counts.reindex(index=classes, columns=[*SPLITS, "unused", "quarantined"], fill_value=0).reset_index()


def _write_images(folder: Path, pixels: IO[bytes], positions: np.ndarray, size: int) -> None:
    """Write the images at these positions of pixels, in this order."""
    shape = (size, size, 3)
    pixels.flush()
    decoded = np.memmap(pixels, np.uint8, "r").reshape(-1, *shape)
    with ShardWriter(folder, "images", shape, np.uint8) as writer:
        for first in range(0, len(positions), BATCH):
            writer.append(decoded[positions[first : first + BATCH]])


def _summary(counts: pd.DataFrame, images: int, quarantined: int) -> str:
    splits = ", ".join(f"{counts[split].sum():,} {split}" for split in SPLITS if counts[split].any())
    unused = counts["unused"].sum()
    return (
        f"prepare: {images:,} images of {len(counts)} classes: {splits}; {quarantined:,} quarantined, {unused:,} unused"
    )


def main(
    out: Annotated[Path, typer.Option()],
    report: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the prepare stage."""
    loaded = load_params(params)
    run(loaded.data, loaded.seed, out, report)


if __name__ == "__main__":
    start(main)
