"""Rows and their arrays kept piece by piece, so that who is interrupted, in whatever way, goes on after whole pieces.

The arrays are plain files that grow. After each piece they are forced to the disk, and then a record of it takes its
name: the piece's rows, how far the arrays reach, and checksums. What stands behind the last good record is of a piece
that was never finished, and is written over.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graft.errors import GraftError
from graft.full_disk import room_for
from graft.storage import new_file

MOST_ROWS, MOST_BYTES, MOST_SECONDS = 4096, 64 * 2**20, 30.0  # of a piece, whichever is reached first
CHUNK_BYTES = 16 * 2**20  # read at a time when an array is checked


@dataclass(frozen=True)
class Piece:
    """Some rows that follow each other.

    Attributes:
        rows: as they were given.
        stamps: what each row was made from, as it was given.
        ends: of each array, how many bytes it has up to the end of this piece.
    """

    rows: list[dict[str, Any]]
    stamps: list[str]
    ends: Mapping[str, int]


class _Row(NamedTuple):
    """A row that is in no piece yet; ends and checksums (since the last piece) of the arrays with it."""

    row: Mapping[str, Any]
    stamp: str
    ends: dict[str, int]
    sums: dict[str, int]


class _State(NamedTuple):
    """How many pieces are whole, where the arrays end with them, what follows, and when that began.

    It is replaced in one step, so that an interrupt finds it as it was before a change or as it is after it.
    """

    pieces: int
    ends: dict[str, int]
    rows: list[_Row]
    began: float


class Pieces:
    """Rows with their arrays in a folder, which one process at a time may use; a context manager.

    At the end of the block, also where that is an error or an interrupt, what was added becomes the last piece.
    """

    def __init__(self, folder: Path, arrays: Sequence[str]) -> None:
        self._folder = folder
        self._state = _State(0, dict.fromkeys(arrays, 0), [], 0.0)
        self._files: dict[str, int] = {}

    def __enter__(self) -> Pieces:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            with suppress(*(() if kind is None else (OSError, GraftError))):  # the first error is the one to tell
                self._finish()
        finally:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files = {}

    def next(self) -> Piece | None:
        """The whole piece that lies in the folder after those that were accepted; None where there is none."""
        path = self._record(self._state.pieces)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body, _, checksum = content.rpartition(b"\n")
        if checksum != _checksum(body):
            print(f"{path} is damaged; what it stood for is done again", flush=True)
            return None
        head, *lines = map(json.loads, body.split(b"\n"))
        for name, end in head["ends"].items():
            if self._sum(name, self._state.ends[name], end) != head["sums"][name]:
                print(f"{self._folder / name} is damaged; what {path.name} stood for is done again", flush=True)
                return None
        rows = [dict(zip(head["columns"], values, strict=True)) for _, values in lines]
        return Piece(rows, [stamp for stamp, _ in lines], head["ends"])

    def accept(self, piece: Piece) -> None:
        """Keep a piece of `next`; whatever lies behind the last accepted one is gone as soon as a row is added."""
        self._state = _State(self._state.pieces + 1, dict(piece.ends), [], 0.0)

    def add(self, row: Mapping[str, Any], stamp: str, arrays: Mapping[str, bytes]) -> None:
        """Append a row, and to some arrays what it has there.

        Args:
            row: JSON values; every row has the same keys.
            stamp: what the row was made from, to compare before the row is used again.
            arrays: bytes by name; an array without a part of this row stays as it is.

        Raises:
            GraftError: the disk is full.
        """
        if not self._files:
            self._open()
        state = self._state
        last = state.rows[-1] if state.rows else _Row({}, "", state.ends, dict.fromkeys(state.ends, 0))
        ends, sums = dict(last.ends), dict(last.sums)
        for name, content in arrays.items():
            self._write(name, content, ends[name])
            ends[name] += len(content)
            sums[name] = zlib.crc32(content, sums[name])
        if not state.rows:
            self._state = state = state._replace(began=time.monotonic())
        state.rows.append(_Row(row, stamp, ends, sums))
        size = sum(ends.values()) - sum(state.ends.values())
        if len(state.rows) >= MOST_ROWS or size >= MOST_BYTES or time.monotonic() - state.began >= MOST_SECONDS:
            self._finish()

    def _open(self) -> None:
        number = self._state.pieces
        while (path := self._record(number)).exists():
            path.unlink()
            number += 1
        for name in self._state.ends:
            self._files[name] = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _write(self, name: str, content: bytes, offset: int) -> None:
        with room_for(name, self._folder, len(content)):
            written = 0
            while written < len(content):
                part = memoryview(content)[written:]
                written += os.pwrite(self._files[name], part, offset + written)

    def _finish(self) -> None:
        """Make a piece of what was added since the last one."""
        state = self._state
        if not state.rows:
            return
        last = state.rows[-1]
        size = sum(last.ends.values()) - sum(state.ends.values())
        head = {"columns": list(last.row), "ends": last.ends, "sums": last.sums}
        lines = [json.dumps(value) for value in (head, *((row.stamp, list(row.row.values())) for row in state.rows))]
        body = "\n".join(lines).encode()
        with room_for(f"piece {state.pieces} of {', '.join(last.ends)}", self._folder, size + len(body)):
            for descriptor in self._files.values():
                os.fsync(descriptor)
            with new_file(self._record(state.pieces)) as partial:
                partial.write_bytes(body + b"\n" + _checksum(body))
        self._state = _State(state.pieces + 1, last.ends, [], 0.0)

    def _record(self, number: int) -> Path:
        return self._folder / f"piece-{number:05d}.json"

    def _sum(self, name: str, start: int, end: int) -> int | None:
        """The checksum of some bytes of an array; None where it ends before them."""
        total = 0
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(start)
                while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
                    total = zlib.crc32(chunk, total)
                    start += len(chunk)
        except FileNotFoundError:
            return None
        return total if start == end else None


def _checksum(body: bytes) -> bytes:
    return f"{zlib.crc32(body):08x}".encode()
