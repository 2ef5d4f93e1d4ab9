"""Rows of one kind in a store, found by key; written once by one process, read by any."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from graft import locks
from graft.full_disk import room_for
from graft.storage import ArtifactError
from graft.store_segments import (
    KEY_BYTES,
    Index,
    Segment,
    SegmentError,
    read_segment,
    remove_segment,
    segment_paths,
    write_partial,
    write_segment,
)

DESCRIPTION = "description.json"
LOCKS = "locks"
SEGMENT_BYTES = 64 * 2**20  # large enough for few files, small enough that an interruption loses little,
SEGMENT_SECONDS = 30.0  # as is this, where rows are small and come slowly
ATTEMPTS = 3  # to write a segment while somebody deletes the folder

log = logging.getLogger(__name__)


class StoredRows:
    """Rows of a space in the order that they were asked for, read from disk by slice or by array of row numbers.

    Raises:
        ArtifactError: on reading, a row was deleted or damaged since it was found.
    """

    def __init__(self, space: Space, segments: Sequence[Segment], owner: np.ndarray, row: np.ndarray) -> None:
        self.row_shape, self.dtype = space.row_shape, space.dtype
        self._space = space  # keeps the space in use
        self._segments, self._owner, self._row = segments, owner, row

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of the asked rows, in the asked order."""
        owner, row = self._owner[rows], self._row[rows]
        result = np.empty((len(row), *self.row_shape), self.dtype)
        first = np.flatnonzero(np.diff(owner, prepend=-1))  # of each run in one segment
        for begin, end in pairwise([*first, len(owner)]):
            segment = self._segments[owner[begin]]
            try:
                segment.read(row[begin:end], result[begin:end])
            except (SegmentError, FileNotFoundError) as error:
                problem = f"{segment.path} was deleted" if isinstance(error, FileNotFoundError) else error
                raise ArtifactError(f"{problem} while its rows were in use; run again to compute them anew") from None
        return result


class Space:
    """The rows of one description, shape and dtype, each under the key of what it was computed from.

    Keys are uint8 of shape (n, 16), as `view_keys` makes them. A segment that is damaged is deleted with a warning as
    soon as that shows, and its rows are absent: `find` and `rows` compare each row with its checksum the first time
    that this process asks for it, and reading compares it again.

    Attributes:
        folder: where the segments are.
        row_shape: of one row.
        dtype: of the rows.
    """

    def __init__(self, root: Path, name: str, document: Mapping[str, Any]) -> None:
        self.folder = root / name
        self.row_shape: tuple[int, ...] = tuple(document["row_shape"])
        self.dtype = np.dtype(document["dtype"])
        self._document = document
        self._locks = root / LOCKS
        self._segments: dict[Path, Segment] = {}
        self._index: Index | None = None
        self._held: tuple[int, Callable[[], object]] | None = None  # a lock and how to give it up
        self._hold()

    def locked(self) -> AbstractContextManager[None]:
        """A block in which one process at a time computes rows; look again for what is missing once inside.

        Who needs several spaces at once enters them in the order of their folders' names, or two could wait for each
        other. Reading needs no lock.
        """
        waiting = f"another process computes rows of {self.folder}; waiting for it to end"
        return locks.locked(self._locks / f"{self.folder.name}.compute", waiting)

    def find(self, keys: np.ndarray, *, check: bool = True) -> np.ndarray:
        """Which keys (n, 16) are present, of shape (n,); unchecked, for an estimate, rows are not read for damage."""
        return self._locate(_strings(keys), check)[1] >= 0

    def rows(self, keys: np.ndarray) -> StoredRows:
        """The rows of keys (n, 16), row i of keys[i]; their segments count as used now.

        Raises:
            ArtifactError: a row is absent.
        """
        index, positions = self._locate(_strings(keys))
        if (absent := np.count_nonzero(positions < 0)) > 0:
            raise ArtifactError(
                f"{self.folder} must hold the {len(keys)} rows asked for, {absent} are absent; run again"
            )
        owner = index.owner[positions]
        for number in np.unique(owner):
            with suppress(FileNotFoundError):
                os.utime(index.segments[number].path)
        return StoredRows(self, index.segments, owner, index.row[positions])

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """A writer of rows, which can be found as soon as 64 MiB are there, after half a minute or after the block.

        What was appended is kept also when the block ends with an error or an interrupt.
        """
        writer = Writer(self)
        try:
            yield writer
        finally:
            writer.publish()

    def publish(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add a segment of batches of keys (n,) of dtype S16 and their rows.

        Raises:
            DiskFullError: there is no room for it.
        """
        size = sum(rows.nbytes for _, rows in batches)
        for _ in range(ATTEMPTS):
            self._hold()
            # The folder may be deleted at any time.
            with suppress(FileNotFoundError), room_for("activations", self.folder, size):
                self._describe()
                segment = write_segment(self.folder, batches)
                self._segments[segment.path] = segment
                self._index = None
                return
        raise ArtifactError(f"{self.folder} was deleted each of the {ATTEMPTS} times that rows were written to it")

    def alone(self) -> AbstractContextManager[bool]:
        """Whether no other process uses the space; none starts to before the block ends."""
        return locks.raised(self._hold())

    def _hold(self) -> int:
        """Keep other processes from evicting the space, also after somebody deleted the store with its locks."""
        path = use_lock(self.folder)
        if self._held is None or not locks.holds(self._held[0], path):
            if self._held is not None:
                self._held[1]()
            descriptor = locks.acquire(path, locks.SHARED)
            self._held = descriptor, weakref.finalize(self, os.close, descriptor)
        return self._held[0]

    def _describe(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / DESCRIPTION
        text = (json.dumps(self._document, indent=2, ensure_ascii=False) + "\n").encode()
        if not path.exists() or path.read_bytes() != text:
            os.replace(write_partial(path.with_name(f"{uuid.uuid4().hex}.json"), [text]), path)

    def _locate(self, wanted: np.ndarray, check: bool = True) -> tuple[Index, np.ndarray]:
        """An index, and where the wanted keys stand in it: -1 for the absent; checked, the others are undamaged."""
        self._hold()
        self._refresh()
        while True:
            index = self._index = self._index or Index.of(list(self._segments.values()))
            positions = index.positions(wanted)
            found = positions[positions >= 0] if check else positions[:0]
            for number in np.unique(index.owner[found]):
                segment = index.segments[number]
                try:
                    segment.check(index.row[found[index.owner[found] == number]])
                except (SegmentError, FileNotFoundError) as error:
                    self._drop(segment.path, error)
            if self._index is index:
                return index, positions

    def _refresh(self) -> None:
        """Learn of the segments that were written or deleted since, by whatever process."""
        there = set(segment_paths(self.folder))
        for path in self._segments.keys() - there:
            self._forget(path)
        for path in sorted(there - self._segments.keys()):
            try:
                self._segments[path] = read_segment(path, self.row_shape, self.dtype)
                self._index = None
            except (SegmentError, FileNotFoundError) as error:
                self._drop(path, error)

    def _drop(self, path: Path, error: Exception) -> None:
        if isinstance(error, SegmentError):
            log.warning("%s; it is deleted and its rows are computed again", error)
        remove_segment(path)
        self._forget(path)

    def _forget(self, path: Path) -> None:
        self._segments.pop(path, None)
        self._index = None


class Writer:
    """Collects batches of rows into segments; made by `Space.writer`."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._row_bytes = max(1, int(np.prod(space.row_shape)) * space.dtype.itemsize)
        self._began = 0.0  # when the first pending row came

    def append(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Append rows of shape (n, *row_shape), cast to the dtype of the space, under keys (n, 16)."""
        if rows.shape != (len(keys), *self._space.row_shape):
            expected = (len(keys), *self._space.row_shape)
            raise ArtifactError(f"rows of {len(keys)} keys must have shape {expected}, received {rows.shape}")
        names = _strings(keys).copy()  # callers fill their arrays anew
        step = max(1, SEGMENT_BYTES // self._row_bytes)
        for start in range(0, len(rows), step):
            part = np.array(rows[start : start + step], self._space.dtype, order="C")
            if not self._pending:
                self._began = time.monotonic()
            self._pending.append((names[start : start + step], part))
            size = sum(len(pending) for pending, _ in self._pending) * self._row_bytes
            if size >= SEGMENT_BYTES or time.monotonic() - self._began >= SEGMENT_SECONDS:
                self.publish()

    def publish(self) -> None:
        """Write what is pending, as one segment."""
        pending, self._pending = self._pending, []  # first, so that rows that cannot be written are not tried again
        if pending:
            self._space.publish(pending)


def use_lock(folder: Path) -> Path:
    """The file that every process locks that uses the space of a folder."""
    return folder.parent / LOCKS / f"{folder.name}.use"


def _strings(keys: np.ndarray) -> np.ndarray:
    if keys.dtype != np.uint8 or keys.shape[1:] != (KEY_BYTES,):
        raise ArtifactError(f"keys must be uint8 of shape (n, {KEY_BYTES}), received {keys.dtype} {keys.shape}")
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)
