"""The source's images, each decoded and resized once, split and listed; what cannot be used is listed with a reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from graft.artifacts import MANIFEST_COLUMNS, SPLITS, Manifest, write_manifest
from graft.attributes import FILE as ATTRIBUTES
from graft.attributes import write_attributes
from graft.collection import Collection, check_invalid, collect
from graft.curation import Curated, Reordered, count, divide, find_copies
from graft.full_disk import room_for
from graft.params import load_params
from graft.records import SourceError
from graft.reporting.data.page import write_data_report
from graft.reporting.data.tables import PreparedData
from graft.run_keys import run_key
from graft.sections import Data
from graft.shards import ShardWriter
from graft.splits import SplitError, check_classes
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder, write_table
from graft.unfinished import unfinished

BATCH = 64  # images held in memory at a time
REPORTS = ("index.html", "counts.csv", "statistics.csv", "duplicates.csv", "quarantine.csv", ATTRIBUTES)


def run(data: Data, seed: int, out: Path, report: Path, work: Path | None = None) -> None:
    """Write the prepared images and their manifest to out, and to report what people should know of them.

    Images that an interrupted run left in the work folder, as unfinished.unfinished gives it, are not read again.

    Raises:
        SourceError: the source cannot be trained on.
        SplitError: a class is too small to be in every split.
        DiskFullError: the disk is full; what was looked at stays in the work folder.
    """
    for name in REPORTS:  # of another run, beside which this one's would look like its own
        (report / name).unlink(missing_ok=True)
    with new_folder(out) as folder, collect(data, seed, folder, work) as collection:
        found, quarantine = find_copies(collection, data)
        write_table(report / "quarantine.csv", quarantine)  # also where a next step finds that too little is left
        check_invalid(collection, data.max_invalid_fraction, data.path, report)
        _check_classes(collection.classes, found, quarantine, report)
        curated, quarantine = _divide(found, quarantine, data, seed, report)
        counts = count(curated, quarantine, collection.classes)
        write_table(report / "counts.csv", counts)
        _write_prepared(folder, report, collection, curated, data.image_size)
        _write_report(report, collection, curated, quarantine, counts, data)
    print(_summary(counts, len(quarantine)))


def _divide(
    found: Curated, quarantine: pd.DataFrame, data: Data, seed: int, report: Path
) -> tuple[Curated, pd.DataFrame]:
    """The images in their splits, and the quarantine with what had to be dropped for them, which is written at once."""
    try:
        curated, dropped = divide(found, data, seed)
        quarantine = pd.concat([quarantine, dropped]).sort_values("source", kind="stable", ignore_index=True)
        write_table(report / "quarantine.csv", quarantine)
        check_classes(curated.rows["label"].to_numpy(object), curated.splits, data)
    except SplitError as error:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in quarantine["reason"].value_counts().sort_index().items())
        raise SplitError(
            f"{error}. There are {len(found.usable):,} usable images in {found.usable_groups:,} groups that stay "
            f"together (copies, or what the source groups); quarantined: {reasons or 'nothing'}, "
            f"see {report}/quarantine.csv"
        ) from None
    return curated, quarantine


def _check_classes(classes: list[str], found: Curated, quarantine: pd.DataFrame, report: Path) -> None:
    usable = found.usable
    emptied = sorted(set(classes) - set(usable["label"]))
    if emptied:
        reasons = quarantine.loc[quarantine["label"] == emptied[0], "reason"].value_counts().sort_index()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise SourceError(f"class {emptied[0]!r} has no usable image: {listed}; see {report}/quarantine.csv")


def _write_prepared(folder: Path, report: Path, collection: Collection, curated: Curated, size: int) -> None:
    """Write the manifest of the images that are in a split, and in its order the images and, to report, attributes.

    Attributes describe results and train nothing, so a changed column of a table must not rerun what reads the images.
    """
    used = pd.notna(curated.splits)
    rows = curated.rows.assign(split=curated.splits, group=curated.groups)[used]
    write_manifest(folder, Manifest(rows[list(MANIFEST_COLUMNS)], tuple(collection.classes)))
    write_attributes(report, rows["image_id"], rows["brightness"], collection.attributes.iloc[rows["record"]])
    positions = rows["position"].to_numpy(int)
    with (
        room_for("the prepared images", folder, 3 * size**2 * len(rows)),
        ShardWriter(folder, "images", (size, size, 3), np.uint8, ids=rows) as writer,
    ):
        for first in range(0, len(positions), BATCH):
            writer.append(collection.pixels[positions[first : first + BATCH]])


def _write_report(
    report: Path,
    collection: Collection,
    curated: Curated,
    quarantine: pd.DataFrame,
    counts: pd.DataFrame,
    data: Data,
) -> None:
    prepared = PreparedData(
        settings=data,
        images=curated.rows.assign(split=curated.splits),
        pictures=Reordered(collection.pixels, curated.rows["position"].to_numpy(int)),
        quarantine=quarantine,
        counts=counts,
        leader=curated.duplicates.leader,
        bridges=curated.duplicates.bridges,
    )
    write_data_report(report, prepared)


def _summary(counts: pd.DataFrame, quarantined: int) -> str:
    splits = ", ".join(f"{counts[split].sum():,} {split}" for split in SPLITS if counts[split].any())
    unused = counts["unused"].sum()
    images = counts[[*SPLITS, "unused"]].to_numpy().sum()
    return (
        f"prepare: {images:,} images of {len(counts)} classes: {splits}; {quarantined:,} quarantined, {unused:,} unused"
    )


def main(
    out: Annotated[Path, typer.Option()],
    report: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the prepare stage."""
    from graft.resource_checks import check_disk

    loaded = load_params(params)
    check_disk(loaded)
    with unfinished(run_key(os.environ.get("DVC_STAGE", "prepare"), Path.cwd())) as work:
        run(loaded.data, loaded.seed, out, report, work)


if __name__ == "__main__":
    start(main)
