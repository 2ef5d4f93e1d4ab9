"""A source's images, each looked at once: a table of all that was found, beside the arrays of what could be read."""

from __future__ import annotations

import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from graft import sources
from graft.attributes import AttributeColumns
from graft.duplicates import THUMBNAIL_SIDE
from graft.inspection import COLUMNS, Inspected, inspect
from graft.pieces import Piece, Pieces
from graft.records import Record, Reject, SourceError
from graft.sections import Data

ROWS = 4096  # made into a piece of the table at once
QUARANTINE_COLUMNS = ("source", "label", "reason", "detail")
ARRAYS = ("pixels", "thumbnails", "hashes")


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
def collect(data: Data, seed: int, folder: Path, work: Path | None = None) -> Iterator[Collection]:
    """Read, check and resize every image of the source.

    What can be known from the listing is refused before an image is read. Images that an interrupted run looked at are
    taken from the work folder as far as their files are unchanged by size and time of change.

    Args:
        data: the section of params.yaml.
        seed: of images that are rendered.
        folder: below which an archive is unpacked, and without a work folder the arrays lie, until the block ends.
        work: of the unfinished run, as unfinished.unfinished; where it stands the key vouches for source and settings.

    Raises:
        SourceError: the source as a whole cannot be used.
        GraftError: the disk is full.
    """
    rejects: list[Reject] = []
    attributes = AttributeColumns()
    with tempfile.TemporaryDirectory(dir=folder) as below:
        arrays, scratch = (work or Path(below)) / "arrays", Path(below) / "source"
        scratch.mkdir()
        sources.check_source(data, scratch, data.split, data.test != "none")
        records = _without_attributes(sources.records(data, seed, rejects, scratch), attributes)
        look = partial(
            inspect,
            image_size=data.image_size,
            how=data.resize,
            min_side=data.min_side,
            max_pixels=data.max_pixels,
        )
        stamp = partial(_stamp, dated=data.source != "archive")
        with Pieces(arrays, ARRAYS) as pieces:
            rows = _table(tqdm(_rows(records, look, stamp, pieces), "prepare", unit="image", disable=None))
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


def _rows(
    records: Iterator[Record],
    look: Callable[[Iterable[Record]], Generator[Inspected]],
    stamp: Callable[[Record], str],
    pieces: Pieces,
) -> Iterator[dict[str, Any]]:
    """The row of each record, with its position in the arrays; looked at now, or by the run that left the pieces.

    A copy of the same bytes is not stored again.
    """
    seen: dict[str, int] = {}
    while (piece := pieces.next()) is not None:
        drawn = list(islice(records, len(piece.rows)))
        if not _is_of(piece, drawn, stamp):
            records = chain(drawn, records)
            break
        pieces.accept(piece)
        seen.update({row["image_id"]: row["position"] for row in piece.rows if row["position"] >= 0})
        yield from piece.rows
    stamps: deque[str] = deque()
    with closing(look(_stamped(records, stamp, stamps))) as inspected:
        for item in inspected:
            arrays: dict[str, bytes] = {}
            if item.image is not None and item.row["image_id"] not in seen:
                seen[item.row["image_id"]] = len(seen)
                arrays = _arrays(item)
            row = item.row | {"position": -1 if item.image is None else seen[item.row["image_id"]]}
            pieces.add(row, stamps.popleft(), arrays)
            yield row


def _is_of(piece: Piece, records: Sequence[Record], stamp: Callable[[Record], str]) -> bool:
    """Whether a piece is what becomes of these records, as far as that shows without reading their files."""
    if len(records) < len(piece.rows):
        return False
    return all(
        (row["source"], row["label"], row["split"], row["group"], made_from)
        == (record.source, record.label, record.split, record.group, stamp(record))
        for row, made_from, record in zip(piece.rows, piece.stamps, records, strict=True)
    )


def _stamped(records: Iterable[Record], stamp: Callable[[Record], str], stamps: deque[str]) -> Iterator[Record]:
    """The records, of each its stamp first: a file that is changed while it is read then differs the next time."""
    for record in records:
        stamps.append(stamp(record))
        yield record


def _stamp(record: Record, *, dated: bool) -> str:
    """What tells an unchanged record; dated: also its file's time of change, which an unpacked one has of today."""
    if isinstance(record.content, bytes):
        return f"{len(record.content)} bytes, {zlib.crc32(record.content):08x}"
    try:
        status = record.content.stat()
    except OSError as error:
        return str(error.strerror)
    return f"{status.st_size} bytes, {status.st_mtime_ns if dated else 'unpacked'}"


def _arrays(item: Inspected) -> dict[str, bytes]:
    parts = zip(ARRAYS, (item.image, item.thumbnail, item.hash), strict=True)
    return {name: part.tobytes() for name, part in parts if part is not None}


def _table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table, piece by piece: as dictionaries all of them would take ten times the memory."""
    columns = [*COLUMNS, "position"]
    pieces = [pd.DataFrame([], columns=columns, dtype=object)]
    remaining = iter(rows)
    while piece := list(islice(remaining, ROWS)):
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
