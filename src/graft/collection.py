"""A source's images, each looked at once: a table of all that was found, beside the arrays of what could be read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from graft import sources
from graft.attributes import AttributeColumns
from graft.duplicates import THUMBNAIL_SIDE
from graft.inspection import COLUMNS, Inspected, inspect
from graft.records import Record, Reject, SourceError
from graft.sections import Data

ROWS = 4096  # made into a piece of the table at once
QUARANTINE_COLUMNS = ("source", "label", "reason", "detail")


@dataclass(frozen=True)
class Stored:
    """An array in a file of its own, of which no more is in memory than was asked for."""

    path: Path
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of the asked rows, in the asked order."""
        if not len(self):
            return np.empty(self.shape, np.uint8)[rows]
        return np.array(np.memmap(self.path, np.uint8, "r", shape=self.shape)[rows])


@dataclass(frozen=True)
class Collection:
    """What a source holds.

    Attributes:
        rows: one row per record, in the source's order: inspection's columns; `position` in the arrays, which copies
            of the same bytes share, -1 where the record could not be read, and reason and detail say why; and `record`,
            its number, for the row in attributes whatever becomes of the order.
        rejects: what the source holds beside its records, with QUARANTINE_COLUMNS.
        pixels: uint8 RGB at image_size, of shape (m, size, size, 3).
        thumbnails: the whole pictures, small, of shape (m, 32, 32, 3).
        hashes: packed perceptual hashes, of shape (m, 8).
        attributes: what a table's further columns say of each record; without columns for other sources.
    """

    rows: pd.DataFrame
    rejects: pd.DataFrame
    pixels: Stored
    thumbnails: Stored
    hashes: Stored
    attributes: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """The classes' names, sorted; also of classes that nothing readable is left of."""
        return sorted({*self.rows["label"], *self.rejects["label"]} - {""})


@contextmanager
def collect(data: Data, seed: int, folder: Path) -> Iterator[Collection]:
    """Read, check and resize every image of the source; its arrays lie below folder until the block ends.

    What can be known from the listing is refused before an image is read.

    Raises:
        SourceError: the source as a whole cannot be used.
    """
    rejects: list[Reject] = []
    attributes = AttributeColumns()
    with tempfile.TemporaryDirectory(dir=folder) as below:
        arrays, scratch = (Path(below) / name for name in ("arrays", "source"))
        arrays.mkdir()
        scratch.mkdir()
        sources.check_source(data, scratch, data.split, data.test != "none")
        inspected = inspect(
            _without_attributes(sources.records(data, seed, rejects, scratch), attributes),
            image_size=data.image_size,
            how=data.resize,
            min_side=data.min_side,
            max_pixels=data.max_pixels,
        )
        rows = _table(_store(tqdm(inspected, "prepare", unit="image", disable=None), arrays))
        stored = int(rows["position"].max() + 1) if len(rows) else 0
        yield Collection(
            rows,
            pd.DataFrame(rejects, columns=list(QUARANTINE_COLUMNS)),
            Stored(arrays / "pixels", (stored, data.image_size, data.image_size, 3)),
            Stored(arrays / "thumbnails", (stored, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)),
            Stored(arrays / "hashes", (stored, 8)),
            attributes.frame(),
        )


def _without_attributes(records: Iterable[Record], attributes: AttributeColumns) -> Iterator[Record]:
    """The records, whose attributes are put aside: the processes that look at images need none."""
    for record in records:
        attributes.add(record.attributes)
        yield record if record.attributes is None else replace(record, attributes=None)


def _store(inspected: Iterable[Inspected], arrays: Path) -> Iterator[dict[str, Any]]:
    """Append each image's arrays to the files; yield its row. A copy of the same bytes is not stored again."""
    seen: dict[str, int] = {}
    with (
        open(arrays / "pixels", "wb") as pixels,
        open(arrays / "thumbnails", "wb") as thumbnails,
        open(arrays / "hashes", "wb") as hashes,
    ):
        for item in inspected:
            image_id = item.row["image_id"]
            if item.image is not None and image_id not in seen:
                assert item.thumbnail is not None
                assert item.hash is not None
                seen[image_id] = len(seen)
                pixels.write(item.image.tobytes())
                thumbnails.write(item.thumbnail.tobytes())
                hashes.write(item.hash.tobytes())
            yield item.row | {"position": -1 if item.image is None else seen[image_id]}


def _table(rows: Iterator[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table, piece by piece: as dictionaries all of them would take ten times the memory."""
    columns = [*COLUMNS, "position"]
    pieces = [pd.DataFrame([], columns=columns, dtype=object)]
    while piece := list(islice(rows, ROWS)):
        pieces.append(pd.DataFrame(piece, columns=columns))
    table = pd.concat(pieces[1:] or pieces, ignore_index=True)
    return table.assign(record=np.arange(len(table)))


def check_invalid(collection: Collection, most: float, where: Path, report: Path) -> None:
    """Stop where too many of the source's files are no usable image; copies are not counted here.

    Raises:
        SourceError: gives the fraction, what was allowed, and how many files there are for each reason.
    """
    bad = pd.concat([collection.rejects["reason"], collection.rows["reason"].dropna()])
    total = len(collection.rejects) + len(collection.rows)
    if total and len(bad) / total > most:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in bad.value_counts().sort_index().items())
        raise SourceError(
            f"{where}: {len(bad):,} of {total:,} files cannot be used ({len(bad) / total:.1%}), and "
            f"data.max_invalid_fraction allows {most:.1%}: {listed}; each is listed in {report}/quarantine.csv"
        )
