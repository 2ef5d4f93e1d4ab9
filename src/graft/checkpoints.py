"""Checkpoints of a training: whole files, saved as seldom as is cheap, loaded only where they are right to the bit."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from graft.storage import ArtifactError, new_file

SCHEMA = 1
SHARE = 0.02  # of the time since training began that saving may take
FIRST_COST = 0.02  # s that a save is taken to cost before one has been measured: a synchronised small file
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        arrays: numbers, in an order that who saves them knows; of a loaded one NumPy's, before that all that NumPy
            makes an array of, which happens one by one as they are written.
        facts: all else, as JSON.
    """

    arrays: Sequence[Any]
    facts: dict[str, Any]


class _Budget:
    """What saving has cost of a training so far, seconds."""

    def __init__(self, spent: float = 0.0) -> None:
        self.started, self.spent, self.latest = time.perf_counter(), spent, FIRST_COST


class Stopwatch:
    """Wall time of a phase in this process, and in those before it that were interrupted, up to their checkpoints."""

    def __init__(self) -> None:
        self._started, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """The time so far."""
        return self._before + time.perf_counter() - self._started

    def resume(self, seconds: float) -> None:
        """Count what a checkpoint says had passed; of several the latest counts, since each says all of it."""
        self._before = max(self._before, seconds)


class Checkpoints:
    """A place for one checkpoint, and for others below it.

    Args:
        folder: where they lie; None keeps nothing, as for a training that nobody would resume.
        machine: runtime.machine(): what, beside code and inputs, decides the bits of a training. A checkpoint of
            another one is not loaded.
        content: of which training, as JSON; a checkpoint of another one is not loaded.
    """

    def __init__(
        self, folder: Path | None, machine: Mapping[str, str], content: Mapping[str, Any] | None = None
    ) -> None:
        self._folder, self._origin = folder, {"machine": dict(machine), "content": dict(content or {})}
        self._budget, self._stopwatch = _Budget(), Stopwatch()

    def at(self, name: str, content: Mapping[str, Any] | None = None) -> Checkpoints:
        """The place of a name below this one, such as frozen or unfrozen/tail-01; it counts time together with this.

        Args:
            name: of letters, digits and dashes, with a slash between levels.
            content: what else says of which training it is.
        """
        machine, inherited = self._origin["machine"], self._origin["content"]
        place = Checkpoints(self._folder and self._folder / name, machine, {**inherited, **(content or {})})
        place._budget, place._stopwatch = self._budget, self._stopwatch
        return place

    def phase(self, name: str, content: Mapping[str, Any] | None = None) -> Checkpoints:
        """As `at`, with a time of its own, which begins now."""
        place = self.at(name, content)
        place._stopwatch = Stopwatch()
        return place

    @property
    def seconds(self) -> float:
        """Wall time of the phase, that before an interruption included as far as a loaded checkpoint knows it."""
        return self._stopwatch.seconds

    @contextmanager
    def lasting(self) -> Iterator[Checkpoints]:
        """This place, or where nothing is kept a temporary one: for what the same process reads again."""
        if self._folder is not None:
            yield self
            return
        with TemporaryDirectory() as folder:
            place = Checkpoints(Path(folder) / "temporary", **self._origin)
            place._budget, place._stopwatch = _Budget(spent=math.inf), self._stopwatch  # only what ends a phase
            yield place

    def due(self) -> bool:
        """Whether one more checkpoint, and that which ends the phase, stay within SHARE of the time so far."""
        if self._folder is None:
            return False
        elapsed = time.perf_counter() - self._budget.started
        return self._budget.spent + 2 * self._budget.latest <= SHARE * elapsed

    def save(self, saved: Saved) -> None:
        """Put a checkpoint here in place of the one before, whole and durable when this returns.

        Raises:
            DiskFullError: there is no room for it; the one before is still there.
        """
        if self._folder is None:
            return
        started = time.perf_counter()
        with new_file(self._path) as partial, partial.open("wb") as file:
            _write(file, saved, {**self._origin, "seconds": self.seconds})
        self._budget.latest = time.perf_counter() - started
        self._budget.spent += self._budget.latest

    def load(self) -> Saved | None:
        """The checkpoint that lies here; None where there is none that can be gone on from, which one line says."""
        if self._folder is None or not self._path.exists():
            return None
        try:
            header, arrays = _read(self._path)
            for name, expected in self._origin.items():
                _check_same(f"{self._path} is of another {name}", header[name], expected)
        except ArtifactError as error:
            print(f"{error}; this part of the training starts over", flush=True)
            return None
        self._stopwatch.resume(header["seconds"])
        return Saved(arrays, header["facts"])

    def clear(self) -> None:
        """Remove the checkpoint that lies here and all below it."""
        if self._folder is not None:
            self._path.unlink(missing_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder.with_name(f"{self._folder.name}.checkpoint")


NOTHING_KEPT = Checkpoints(None, {})


class _Hashed:
    """A file whose bytes are hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _check_same(refusal: str, received: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*received, *expected} if received.get(name) != expected.get(name))
    if names:
        raise ArtifactError(f"{refusal}: {', '.join(names)} differ")


def _write(file: BinaryIO, saved: Saved, header: Mapping[str, Any]) -> None:
    """A line of JSON, the arrays one after the other as .npy, and a digest of all that."""
    described = {"schema": SCHEMA, **header, "facts": saved.facts, "arrays": len(saved.arrays)}
    hashed = _Hashed(file)
    hashed.write(json.dumps(described, allow_nan=False).encode() + b"\n")
    for array in saved.arrays:
        np.lib.format.write_array(hashed, np.asarray(array), allow_pickle=False)
    file.write(hashed.digest.digest())


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays; nothing is parsed before the digest has been found right.

    Raises:
        ArtifactError: the file is damaged or of another schema.
    """
    with path.open("rb") as file:
        left = path.stat().st_size - DIGEST_BYTES
        digest = hashlib.sha256()
        while left > 0 and (data := file.read(min(left, 2**20))):
            digest.update(data)
            left -= len(data)
        if file.read() != digest.digest():
            raise ArtifactError(f"{path} is damaged: its checksum is wrong")
        file.seek(0)
        header = json.loads(file.readline())
        if header["schema"] != SCHEMA:
            raise ArtifactError(f"{path} must have schema {SCHEMA}, received {header['schema']}")
        return header, [np.lib.format.read_array(file, allow_pickle=False) for _ in range(header["arrays"])]
