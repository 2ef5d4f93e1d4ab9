"""Arrays of rows in `.npy` pieces: written in batches and read row by row, so no reader holds more than it asked for.

Pieces are read, not mapped: mapped pages would count as the memory of the process, and grow with the data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft.storage import ArtifactError, read_json, write_json

SHARD_BYTES = 64 * 2**20  # large enough for few files, small enough to copy and hash piecewise


class ShardWriter:
    """Appends batches of rows of one shape to `<folder>/<name>-*.npy`; use as a context manager."""

    def __init__(self, folder: Path, name: str, row_shape: Sequence[int], dtype: Any) -> None:
        self._folder, self._name = folder, name
        self._row_shape, self._dtype = tuple(row_shape), np.dtype(dtype)
        row_bytes = max(1, int(np.prod(self._row_shape)) * self._dtype.itemsize)
        self._shard_rows = max(1, SHARD_BYTES // row_bytes)
        self._pending: list[np.ndarray] = []
        self._pending_rows = self._shards = self._rows = 0

    def __enter__(self) -> ShardWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def append(self, rows: np.ndarray) -> None:
        """Append rows of shape (n, *row_shape), which must not change afterwards."""
        if rows.shape[1:] != self._row_shape:
            raise ArtifactError(f"{self._name} rows must have shape {self._row_shape}, received {rows.shape[1:]}")
        self._pending.append(rows.astype(self._dtype, copy=False))
        self._pending_rows += len(rows)
        while self._pending_rows >= self._shard_rows:
            self._flush(self._shard_rows)

    def _flush(self, count: int) -> None:
        rows = np.concatenate(self._pending) if self._pending else np.empty((0, *self._row_shape), self._dtype)
        np.save(self._folder / f"{self._name}-{self._shards:05d}.npy", rows[:count], allow_pickle=False)
        self._shards += 1
        self._rows += min(count, len(rows))
        self._pending = [rows[count:].copy()] if len(rows) > count else []  # a view would keep all of the rows
        self._pending_rows = max(0, len(rows) - count)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return  # no header: what was written does not look whole
        if self._pending_rows:
            self._flush(self._pending_rows)
        header = {
            "rows": self._rows,
            "row_shape": list(self._row_shape),
            "dtype": self._dtype.name,
            "shard_rows": self._shard_rows,
        }
        write_json(self._folder / f"{self._name}.json", header)


class Shards:
    """A sharded array of shape (n, *row_shape), read by slice or by an array of row numbers.

    Raises:
        ArtifactError: a shard is missing, truncated, or not what the header says.
    """

    def __init__(self, folder: Path, name: str) -> None:
        header = read_json(folder / f"{name}.json")
        self.row_shape = tuple(header["row_shape"])
        self.dtype = np.dtype(header["dtype"])
        self._rows, self._shard_rows = int(header["rows"]), int(header["shard_rows"])
        shards = -(-self._rows // self._shard_rows)
        self._pieces = [self._piece(folder / f"{name}-{index:05d}.npy", index) for index in range(shards)]

    def _piece(self, path: Path, index: int) -> tuple[Path, int]:
        """A shard and where its rows begin."""
        expected = (min(self._shard_rows, self._rows - index * self._shard_rows), *self.row_shape)
        try:
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
        except (OSError, EOFError, ValueError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from None
        if shard.shape != expected or shard.dtype != self.dtype:
            raise ArtifactError(f"{path} must hold {self.dtype} {expected}, received {shard.dtype} {shard.shape}")
        return path, shard.offset

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
        return result

    def _read(self, descriptor: int, index: int, first: int, target: np.ndarray) -> None:
        path, start = self._pieces[index]
        bytes_wanted, buffer = target.nbytes, memoryview(target.data).cast("B")
        start += first * (bytes_wanted // len(target))
        done = 0
        while done < bytes_wanted:
            count = os.preadv(descriptor, [buffer[done:]], start + done)
            if not count:
                raise ArtifactError(f"{path} is damaged: it ends before row {first + len(target)}")
            done += count
