"""Pieces of a store: keyed rows in a pair of files that is whole and undamaged, or counts as absent."""

from __future__ import annotations

import io
import math
import os
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from graft.faults import reached
from graft.storage import ArtifactError

KEY_BYTES = 16
ENTRY = np.dtype([("key", np.uint8, (KEY_BYTES,)), ("checksum", "<u4")])
KEYS_SUFFIX = ".keys.npy"
PARTIAL = ".partial-"  # prefix of what is still being written, or was when its process died
CHUNK_BYTES = 16 * 2**20  # read at a time when rows are checked


class SegmentError(ArtifactError):
    """The files of a segment are not what was written."""


@dataclass(frozen=True)
class Segment:
    """Rows and the keys they are kept under.

    Attributes:
        path: `<unique>.npy`, the rows, as np.save writes them. `<unique>.keys.npy` beside it holds an ENTRY for each.
        keys: of shape (n,), dtype S16.
        checksums: of shape (n,): CRC-32 of a key followed by the bytes of its row.
        row_shape: of one row.
        dtype: of the rows.
        start: where in the file the rows start, in bytes.
        checked: of shape (n,), true for rows that this process wrote or has compared with their checksum.
    """

    path: Path
    keys: np.ndarray
    checksums: np.ndarray
    row_shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    checked: np.ndarray

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row_shape) * self.dtype.itemsize

    def read(self, rows: np.ndarray, target: np.ndarray) -> None:
        """Fill a C-contiguous array of shape (m, *row_shape) with the rows of these numbers (m,), in this order.

        The file is read, not mapped: pages of a mapping count as memory of the process.

        Raises:
            SegmentError: the file ends early, or a row is not the one that was written.
            FileNotFoundError: the segment was removed.
        """
        data, size = target.reshape(-1).view(np.uint8), self.row_bytes
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of each run of neighbours, read in one go
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for begin, end in pairwise([*first, len(rows)]):
                self._fill(descriptor, data[begin * size : end * size], self.start + int(rows[begin]) * size)
        finally:
            os.close(descriptor)
        damaged = rows[_checksums(self.keys[rows], target) != self.checksums[rows]]
        if len(damaged):
            raise SegmentError(f"{self.path}: row {damaged[0]} is damaged, its checksum differs")
        self.checked[rows] = True

    def _fill(self, descriptor: int, part: np.ndarray, offset: int) -> None:
        filled = 0
        while filled < len(part):
            count = os.preadv(descriptor, [part[filled:].data], offset + filled)
            if not count:
                raise SegmentError(f"{self.path} is damaged: it ends early")
            filled += count

    def check(self, rows: np.ndarray) -> None:
        """Compare those of the rows with their checksums that were not compared yet.

        Raises:
            SegmentError: one of them is not the row that was written.
            FileNotFoundError: the segment was removed.
        """
        unchecked = np.unique(rows[~self.checked[rows]])
        step = max(1, CHUNK_BYTES // max(1, self.row_bytes))
        for start in range(0, len(unchecked), step):
            chunk = unchecked[start : start + step]
            self.read(chunk, np.empty((len(chunk), *self.row_shape), self.dtype))


@dataclass(frozen=True)
class Index:
    """The keys of some segments, sorted; of each the segment that holds it and its row there."""

    segments: tuple[Segment, ...]
    keys: np.ndarray
    owner: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Index:
        """The index of segments, none included."""
        keys = np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *(segment.keys for segment in segments)])
        sizes = [len(segment.keys) for segment in segments]
        owner = np.repeat(np.arange(len(segments), dtype=np.int32), sizes)
        row = np.concatenate([np.empty(0, int), *(np.arange(size) for size in sizes)])
        order = np.argsort(keys, kind="stable")
        return cls(tuple(segments), keys[order], owner[order], row[order])

    def positions(self, wanted: np.ndarray) -> np.ndarray:
        """Where each wanted key (n,) stands, -1 for those that are absent."""
        if not len(self.keys):
            return np.full(len(wanted), -1)
        positions = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[positions] == wanted, positions, -1)


def listing(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing where somebody deleted it."""
    try:
        return sorted(folder / name for name in os.listdir(folder))
    except FileNotFoundError:
        return []


def segment_paths(folder: Path) -> list[Path]:
    """Paths of the segments of a folder, sorted: those whose keys are there."""
    names = (path.name for path in listing(folder) if not path.name.startswith(PARTIAL))
    return [folder / f"{name.removesuffix(KEYS_SUFFIX)}.npy" for name in names if name.endswith(KEYS_SUFFIX)]


def remove_segment(path: Path) -> None:
    """Delete a segment's files, the keys first: rows without keys count as absent."""
    keys_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what dead processes left in a folder: partial files, and halves of segments."""
    whole = {path for path in segment_paths(folder) if path.exists()}
    for path in listing(folder):
        half = path.suffix == ".npy" and path.with_name(f"{path.name.removesuffix(KEYS_SUFFIX)}.npy") not in whole
        if path.name.startswith(PARTIAL) or (half and path not in whole):
            path.unlink(missing_ok=True)


def keys_path(path: Path) -> Path:
    """Where the keys stand of the rows at a path."""
    return path.with_name(path.stem + KEYS_SUFFIX)


def row_count(size: int) -> int:
    """Number of rows of a segment by the size of its keys file in bytes."""
    return max(0, size - len(_header(ENTRY, (0,)))) // ENTRY.itemsize


def write_segment(folder: Path, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> Segment:
    """Write batches, at least one, of keys (n,) of dtype S16 and their rows, C-contiguous (n, *row_shape).

    Raises:
        FileNotFoundError: the folder was removed under way.
    """
    keys = np.concatenate([names for names, _ in batches])
    rows = [part for _, part in batches]
    row_shape, dtype = rows[0].shape[1:], rows[0].dtype
    entries = np.empty(len(keys), ENTRY)
    entries["key"] = keys.view(np.uint8).reshape(len(keys), KEY_BYTES)
    entries["checksum"] = np.concatenate([_checksums(names, part) for names, part in batches])
    path = folder / f"{uuid.uuid4().hex}.npy"
    rows_header = _header(dtype, (len(keys), *row_shape))
    partial = [write_partial(path, [rows_header, *(part.data for part in rows)])]
    try:
        partial.append(write_partial(keys_path(path), [_header(ENTRY, (len(keys),)), entries.data]))
        reached("write segment")
        os.replace(partial[0], path)
        reached("rename segment rows")
        os.replace(partial[1], keys_path(path))  # last: from here on the segment is there
    except BaseException:
        for leftover in (*partial, path):
            leftover.unlink(missing_ok=True)
        raise
    reached("rename segment keys")
    return Segment(path, keys, entries["checksum"].copy(), row_shape, dtype, len(rows_header), np.ones(len(keys), bool))


def read_segment(path: Path, row_shape: tuple[int, ...], dtype: np.dtype) -> Segment:
    """Read the keys of a segment; the rows stay on disk, only their number and kind are compared with the keys.

    Raises:
        SegmentError: the files are not what write_segment writes for such rows.
        FileNotFoundError: one of the files is absent.
    """
    data = keys_path(path).read_bytes()
    count = row_count(len(data))
    header = _header(ENTRY, (count,))
    if data[: len(header)] != header or len(data) != len(header) + count * ENTRY.itemsize:
        raise SegmentError(f"{keys_path(path)} is damaged: it does not hold keys")
    entries = np.frombuffer(data, ENTRY, offset=len(header))
    keys = np.ascontiguousarray(entries["key"]).view(f"S{KEY_BYTES}").reshape(-1)
    header = _header(dtype, (count, *row_shape))
    segment = Segment(path, keys, entries["checksum"].copy(), row_shape, dtype, len(header), np.zeros(count, bool))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(header)) != header or size != len(header) + count * segment.row_bytes:
            raise SegmentError(f"{path} is damaged: it must hold {dtype} {(count, *row_shape)}")
    return segment


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What np.save writes before the values; of the same length for any number of rows."""
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _checksums(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each key (n,) followed by its row, of shape (n,); rows are C-contiguous."""
    data, size = rows.reshape(-1).view(np.uint8).data, rows.nbytes // max(1, len(rows))
    names = (key.ljust(KEY_BYTES, b"\0") for key in keys.tolist())  # NumPy drops zeros at the end
    sums = [zlib.crc32(data[i * size : (i + 1) * size], zlib.crc32(name)) for i, name in enumerate(names)]
    return np.array(sums, np.uint32)


def write_partial(path: Path, parts: Sequence[bytes | memoryview]) -> Path:
    """Write a file under the name that it has while its process may still die; returns that name.

    It is not forced to the disk, which would halve the rate: what a power failure leaves behind fails its checksum.
    """
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        with partial.open("xb") as file:
            for part in parts:
                file.write(part)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise
    return partial
