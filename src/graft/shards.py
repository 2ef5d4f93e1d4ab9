"""Arrays of rows in `.npy` pieces: written in batches and read row by row, so no reader holds more than it asked for.

    <name>-00000.npy ...   the rows
    <name>.crc.npy         CRC-32 of each row, beginning with its number, so that rows cannot change places
    <name>.json            what they are, written last

Pieces are read, not mapped: mapped pages would count as the memory of the process, and grow with the data.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.faults import reached
from graft.shard_files import (
    RENEW,
    Header,
    index_digest,
    open_array,
    read_header,
    row_checksums,
    write_array,
    write_header,
)
from graft.storage import ArtifactError

SHARD_BYTES = 64 * 2**20  # large enough for few files, small enough to copy and hash piecewise


class ShardWriter:
    """Appends batches of rows of one shape to `<folder>/<name>-*.npy`; use as a context manager.

    Attributes:
        rows: how many are written; after entering with `resume`, those that were there.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        row_shape: Sequence[int],
        dtype: Any,
        ids: pd.DataFrame | None = None,
        *,
        resume: bool = False,
    ) -> None:
        """Prepare to write.

        Args:
            folder: to write into; made where it is missing.
            name: of the array, by which the files are called.
            row_shape: of each row.
            dtype: of the values; what is appended is cast to it.
            ids: index of the rows to be appended, with the column image_id and maybe view; readers refuse another.
            resume: go on after the whole pieces that an interrupted writer with `resume` left: append the rows from
                number `rows` on. The files end the same as without an interruption.
        """
        self._folder, self._name, self._ids, self._resume = folder, name, ids, resume
        self._row_shape, self._dtype = tuple(row_shape), np.dtype(dtype)
        row_bytes = max(1, int(np.prod(self._row_shape)) * self._dtype.itemsize)
        self._shard_rows = max(1, SHARD_BYTES // row_bytes)
        self._pending: list[np.ndarray] = []
        self._pending_rows = self.rows = 0
        self._checksums: list[np.ndarray] = []  # of each piece

    def __enter__(self) -> ShardWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in (self._header, self._checksums_path):
            path.unlink(missing_ok=True)
        while self._resume and (checksums := self._left()) is not None:
            self._checksums.append(checksums)
            self.rows += self._shard_rows
        return self

    @property
    def _header(self) -> Path:
        return self._folder / f"{self._name}.json"

    @property
    def _checksums_path(self) -> Path:
        return self._folder / f"{self._name}.crc.npy"

    def _piece(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:05d}.npy"

    def _record(self, number: int) -> Path:
        """Checksums of one piece, which a writer that goes on holds it against."""
        return self._folder / f"{self._name}-{number:05d}.crc.npy"

    def _left(self) -> np.ndarray | None:
        """Checksums of the next piece, where an interrupted writer left it whole."""
        number = len(self._checksums)
        try:
            rows = np.load(self._piece(number), allow_pickle=False)
            kept = np.load(self._record(number), allow_pickle=False)
        except (OSError, EOFError, ValueError):
            return None
        if rows.shape != (self._shard_rows, *self._row_shape) or rows.dtype != self._dtype:
            return None
        found = row_checksums(rows, range(self.rows, self.rows + len(rows)))
        return found if np.array_equal(found, kept) else None

    def append(self, rows: np.ndarray) -> None:
        """Append rows of shape (n, *row_shape), which must not change afterwards."""
        if rows.shape[1:] != self._row_shape:
            raise ArtifactError(f"{self._name} rows must have shape {self._row_shape}, received {rows.shape[1:]}")
        self._pending.append(rows.astype(self._dtype, copy=False))
        self._pending_rows += len(rows)
        while self._pending_rows >= self._shard_rows:
            self._flush(self._shard_rows)

    def _flush(self, count: int) -> None:
        rows = np.concatenate(self._pending)
        piece, number = rows[:count], len(self._checksums)
        self._checksums.append(row_checksums(piece, range(self.rows, self.rows + len(piece))))
        if self._resume:
            write_array(self._record(number), self._checksums[-1])
        write_array(self._piece(number), piece)
        reached(f"shard {self._name}")
        self.rows += len(piece)
        self._pending = [rows[count:].copy()] if len(rows) > count else []  # a view would keep all of the rows
        self._pending_rows = max(0, len(rows) - count)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return  # no header: what was written does not look whole
        if self._pending_rows:
            self._flush(self._pending_rows)
        if self._ids is not None and len(self._ids) != self.rows:
            raise ArtifactError(f"{self._name} must have {len(self._ids)} rows, as its index, received {self.rows}")
        checksums = np.concatenate([np.empty(0, np.uint32), *self._checksums])
        write_array(self._checksums_path, checksums)
        header = Header(
            rows=self.rows,
            row_shape=list(self._row_shape),
            dtype=self._dtype.name,
            shard_rows=self._shard_rows,
            checksums=zlib.crc32(checksums.data),
            index=None if self._ids is None else index_digest(self._ids),
        )
        write_header(self._header, header)
        for number in range(len(self._checksums)):
            self._record(number).unlink(missing_ok=True)


class Shards:
    """A sharded array of shape (n, *row_shape), read by slice or by an array of row numbers.

    Each row is held against its checksum when this object reads it for the first time.

    Raises:
        ArtifactError: a file is missing, truncated, damaged, or not what the header says.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.header_path = folder / f"{name}.json"
        self.header = read_header(self.header_path)
        self.row_shape, self.dtype = tuple(self.header.row_shape), np.dtype(self.header.dtype)
        self._rows, self._shard_rows = self.header.rows, self.header.shard_rows
        self._checksums = self._read_checksums(folder / f"{name}.crc.npy")
        self._verified = np.zeros(self._rows, bool)
        shards = -(-self._rows // self._shard_rows)
        self._pieces = [self._piece(folder / f"{name}-{index:05d}.npy", index) for index in range(shards)]

    def _read_checksums(self, path: Path) -> np.ndarray:
        checksums = np.array(open_array(path, (self._rows,), np.dtype(np.uint32)))
        if zlib.crc32(checksums.data) != self.header.checksums:
            raise ArtifactError(f"{path} does not belong to {self.header_path}, or is damaged; {RENEW}")
        return checksums

    def _piece(self, path: Path, index: int) -> tuple[Path, int]:
        """A shard and where its rows begin."""
        rows = min(self._shard_rows, self._rows - index * self._shard_rows)
        return path, open_array(path, (rows, *self.row_shape), self.dtype).offset

    def __len__(self) -> int:
        return self._rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *row_shape)."""
        return (self._rows, *self.row_shape)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of the asked rows, in the asked order."""
        wanted = np.arange(self._rows)[rows] if isinstance(rows, slice) else np.asarray(rows)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self._rows):
            raise IndexError(f"rows must be from 0 to {self._rows - 1}, received {wanted.min()} to {wanted.max()}")
        result = np.empty((len(wanted), *self.row_shape), self.dtype)
        pieces = wanted // self._shard_rows
        for index in np.unique(pieces):
            here = np.flatnonzero(pieces == index)
            apart = np.flatnonzero((np.diff(here) != 1) | (np.diff(wanted[here]) != 1)) + 1
            with open(self._pieces[index][0], "rb") as stream:
                for run in np.split(here, apart):  # rows that follow each other are read at once
                    first = wanted[run[0]] - index * self._shard_rows
                    self._read(stream.fileno(), int(index), int(first), result[run[0] : run[-1] + 1])
        self._verify(wanted, result)
        return result

    def _read(self, descriptor: int, index: int, first: int, target: np.ndarray) -> None:
        path, start = self._pieces[index]
        bytes_wanted, buffer = target.nbytes, memoryview(target.data).cast("B")
        start += first * (bytes_wanted // len(target))
        done = 0
        while done < bytes_wanted:
            count = os.preadv(descriptor, [buffer[done:]], start + done)
            if not count:
                raise ArtifactError(f"{path} is damaged: it ends before row {first + len(target)}; {RENEW}")
            done += count

    def _verify(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        fresh = np.flatnonzero(~self._verified[numbers])
        if not len(fresh):
            return
        numbers, rows = numbers[fresh], rows if len(fresh) == len(rows) else rows[fresh]
        wrong = np.flatnonzero(row_checksums(rows, numbers) != self._checksums[numbers])
        if len(wrong):
            number = int(numbers[wrong[0]])
            path = self._pieces[number // self._shard_rows][0]
            raise ArtifactError(
                f"{path} is damaged: row {number} (row {number % self._shard_rows} of this file) must have CRC-32 "
                f"{self._checksums[number]:08x}, received {row_checksums(rows[wrong[:1]], [number])[0]:08x}; {RENEW}"
            )
        self._verified[numbers] = True
