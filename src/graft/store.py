"""A store of activations that outlives the stages' outputs: kept by content, bounded, safe to delete at any time.

    <root>/<space>/description.json   what all rows of a space have in common; the folder is named by its hash
    <root>/<space>/<unique>.npy       a segment: rows, and in <unique>.keys.npy the key and checksum of each
    <root>/locks/                     empty files

A space in use is locked by each process that uses it, so that no other process evicts what it is about to read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graft import locks
from graft.feature_sets import Rows
from graft.spaces import DESCRIPTION, LOCKS, Space, use_lock
from graft.storage import ArtifactError, read_json
from graft.store_segments import KEY_BYTES, keys_path, listing, remove_segment, row_count, segment_paths, sweep

SPACE = re.compile("[0-9a-f]{64}")  # nothing else under the root is the store's to delete


def view_keys(rows: Rows, batch: int) -> np.ndarray:
    """Key of each row by its pixels: BLAKE2b of their shape, dtype and bytes, of shape (n, 16) and dtype uint8.

    It stands for image, view, size and augmentation together, since the same pixels have the same activations.

    Args:
        rows: images of shape (n, height, width, channels), or any other rows.
        batch: rows held in memory at a time.
    """
    keys = np.empty((len(rows), KEY_BYTES), np.uint8)
    kind = hashlib.blake2b(f"{np.dtype(rows.dtype).str}{tuple(rows.row_shape)}".encode(), digest_size=KEY_BYTES)
    for start in range(0, len(rows), batch):
        for number, row in enumerate(np.ascontiguousarray(rows[start : start + batch]), start):
            digest = kind.copy()
            digest.update(row.data)
            keys[number] = np.frombuffer(digest.digest(), np.uint8)
    return keys


@dataclass(frozen=True)
class SpaceSummary:
    """What a space holds.

    Attributes:
        description: of its rows; empty, as are row_shape and dtype, where description.json is damaged.
        row_shape: of one row.
        dtype: of the rows, as NumPy writes it.
        rows: number of rows; one that was written twice counts twice.
        bytes: size of all its files.
        last_used: when rows were last written or asked for; None where there are none.
    """

    description: Mapping[str, Any]
    row_shape: tuple[int, ...]
    dtype: str
    rows: int
    bytes: int
    last_used: datetime | None


class FeatureStore:
    """The spaces under a folder, together at most max_bytes large after each `evict`.

    The folder may be deleted at any time: rows are then absent and computed again. Only a reader that is in the middle
    of rows just deleted ends with an ArtifactError.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._spaces: dict[str, Space] = {}

    def space(self, description: Mapping[str, Any], row_shape: Sequence[int], dtype: Any) -> Space:
        """The rows of one description, shape and dtype; in use until both the store and the space are let go.

        Raises:
            ArtifactError: the description is not JSON, or the dtype is not of plain numbers.
        """
        kind = np.dtype(dtype)
        if kind.kind not in "biuf":
            raise ArtifactError(f"rows of a store must be plain numbers, received dtype {kind}")
        document = {"description": description, "row_shape": [int(size) for size in row_shape], "dtype": kind.str}
        try:
            canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the description of a space must be JSON, received {description}: {error}") from None
        name = hashlib.sha256(canonical.encode()).hexdigest()
        if name not in self._spaces:
            self._spaces[name] = Space(self._root, name, document)
        return self._spaces[name]

    def used_bytes(self) -> int:
        """Size of all files of the store."""
        return sum(_sizes(folder) for folder in self._folders())

    def spaces(self) -> list[SpaceSummary]:
        """What each space holds, the most recently used first."""
        summaries = [_summary(folder) for folder in self._folders()]
        oldest = datetime.fromtimestamp(0, UTC)
        return sorted(summaries, key=lambda summary: summary.last_used or oldest, reverse=True)

    def evict(self) -> int:
        """Delete whole segments, least recently used first, until the store is at most max_bytes; returns bytes freed.

        What dead processes left behind goes first. What this process used comes last, and goes, too, if even then the
        store is too large. Spaces that another process uses stay as they are, so the store can be larger until that
        process, at its own end, evicts.
        """
        if not self._root.is_dir():
            return 0
        with locks.locked(self._root / LOCKS / "store"):
            before = self.used_bytes()
            for folder in self._folders():
                with self._alone(folder) as alone:
                    if alone:
                        sweep(folder)
            self._shrink()
            for folder in self._folders():
                with self._alone(folder) as alone:
                    if alone and not segment_paths(folder):
                        _remove(folder)
            return before - self.used_bytes()

    def _shrink(self) -> None:
        used = self.used_bytes()
        segments = [(_Use.of(path), path) for folder in self._folders() for path in segment_paths(folder)]
        for use, path in sorted(segments):
            if used <= self._max_bytes:
                return
            with self._alone(path.parent) as alone:
                if alone:
                    remove_segment(path)
                    used -= use.size

    def clear(self) -> None:
        """Delete everything, also what other processes use."""
        if self._root.is_dir():
            with locks.locked(self._root / LOCKS / "store"):
                for folder in self._folders():
                    _remove(folder)

    def _folders(self) -> list[Path]:
        return [path for path in listing(self._root) if SPACE.fullmatch(path.name) and path.is_dir()]

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[bool]:
        """Whether no other process uses a space; none starts to before the block ends."""
        if folder.name in self._spaces:
            with self._spaces[folder.name].alone() as alone:
                yield alone
            return
        try:
            descriptor = locks.acquire(use_lock(folder), locks.ALONE | locks.AT_ONCE)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)


class _Use(NamedTuple):
    """When a segment was last used, in nanoseconds, its files' bytes and its rows; zeros for one that is gone."""

    time: int = 0
    size: int = 0
    rows: int = 0

    @classmethod
    def of(cls, path: Path) -> _Use:
        with suppress(FileNotFoundError):
            rows, keys = path.stat(), keys_path(path).stat()
            return cls(rows.st_mtime_ns, rows.st_size + keys.st_size, row_count(keys.st_size))
        return cls()


def _sizes(folder: Path) -> int:
    total = 0
    for path in listing(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _summary(folder: Path) -> SpaceSummary:
    try:
        document = read_json(folder / DESCRIPTION)
        kind = document["description"], tuple(document["row_shape"]), document["dtype"]
    except (ArtifactError, KeyError, TypeError):
        kind = {}, (), ""
    uses = [_Use.of(path) for path in segment_paths(folder)]
    return SpaceSummary(
        *kind,
        rows=sum(use.rows for use in uses),
        bytes=_sizes(folder),
        last_used=datetime.fromtimestamp(max(use.time for use in uses) / 1e9, UTC) if uses else None,
    )


def _remove(folder: Path) -> None:
    """Delete a space, but for what another process adds meanwhile."""
    for path in [*map(keys_path, segment_paths(folder)), *listing(folder)]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
