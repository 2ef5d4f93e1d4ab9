"""What one training run logs, as append-only JSON lines that go on after an interruption."""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graft.candidate_records import checked_candidate, checked_repeat
from graft.faults import reached
from graft.finished_work import put_away, take_back
from graft.journal_records import HEADER_KEYS, SCHEMA, JournalRecord, read_journal
from graft.journal_resumption import Left, Recorded, differing, read_left
from graft.locks import holds
from graft.origin import code_origin
from graft.run_keys import lock_key, project_root, run_key, work_folder
from graft.storage import ArtifactError, new_file, write_json

__all__ = ["Journal", "JournalRecord", "lock_key", "project_root", "read_journal", "run_key", "work_folder"]

FILE_NAME = "journal.jsonl"
MACHINE_FILE = "machine.json"  # beside it: on which machine the attempt began


class Journal:
    """The record of a run while it happens; a line is on the disk before the call that wrote it returns.

    Several threads may write to it.
    """

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._recorded = Recorded(None, folder / FILE_NAME)
        self._turn, self._over, self._resumed = threading.Lock(), False, False

    @property
    def folder(self) -> Path:
        """The work folder, in which the journal is FILE_NAME until it is moved."""
        return self._folder

    @property
    def resumed(self) -> bool:
        """Whether it goes on with what an interrupted attempt at the same recorded."""
        return self._resumed

    @classmethod
    def start(cls, folder: Path, header: Mapping[str, Any], machine: Mapping[str, str] | None = None) -> Journal:
        """Go on with the journal that an interrupted attempt left in a work folder, or begin one.

        A journal that goes on is of the same attempt: it keeps the time of its start, and what the training tells again
        must be what it holds, which is not written twice. A last line that was being written is cut off. A journal that
        is damaged, or of another header or machine, is begun anew.

        Waits while another process writes to the same folder: a training that outlived its `dvc repro`, or a parallel
        experiment with the same key.

        Args:
            folder: of work_folder; made where it is missing.
            header: HEADER_KEYS; params is the nested section of this model alone.
            machine: what, beside code and inputs, the numbers depend on; only on the same can they go on.

        Raises:
            ArtifactError: the header has other keys, or a value that is not JSON.
        """
        if set(header) != set(HEADER_KEYS):
            raise ArtifactError(f"a journal's header must have {sorted(HEADER_KEYS)}, received {sorted(header)}")
        _line(header, folder / FILE_NAME)
        take_back(folder)
        journal = cls(folder, _open_alone(folder / FILE_NAME))
        try:
            if (left := journal._left(header, machine or {})) is None:
                journal._begin(header, machine or {})
            else:
                journal._go_on(left)
        except BaseException:
            journal.close()
            raise
        return journal

    def epoch(self, epoch: int, phase: str, metrics: Mapping[str, float]) -> None:
        """Record an epoch; they are numbered through all phases.

        Raises:
            ArtifactError: a metric is not a finite number, an epoch of a higher number is recorded, or this one was
                recorded with other values before an interruption.
        """
        told = {"phase": phase, "metrics": _finite(metrics, f"epoch {epoch} ({phase})")}
        if self._recorded.lacks_epoch(epoch, told):
            self._append({"record": "epoch", "epoch": epoch, **told, "time": _now()})
            self._recorded.add_epoch(epoch, told)

    def system(self, metrics: Mapping[str, float]) -> None:
        """Record what the machine is doing now.

        Raises:
            ArtifactError: a metric is not a finite number.
        """
        self._append({"record": "system", "metrics": _finite(metrics, "a sample of the system"), "time": _now()})

    def candidate(self, record: Mapping[str, Any]) -> None:
        """Record one candidate of a grid, with all of its epochs.

        Args:
            record: as in checked_candidate; the name is the run's own, such as head-01.

        Raises:
            ArtifactError: a key is missing or unknown, a value of a wrong type or not finite, the name is taken, or the
                candidate was recorded with other values before an interruption.
        """
        self._named("candidate", checked_candidate(record, f"candidate {record.get('name')!r}"))

    def repeat(self, record: Mapping[str, Any]) -> None:
        """Record one of the trainings after the first, with all of its epochs.

        Args:
            record: as in checked_repeat; the name is the run's own, such as repeat-02.

        Raises:
            ArtifactError: as of candidate.
        """
        self._named("repeat", checked_repeat(record, f"repeat {record.get('name')!r}"))

    def finish(self, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Record the end of the run.

        Raises:
            ArtifactError: a metric or timing is not a finite number.
        """
        numbers = {"metrics": _finite(metrics, "the end"), "timings": _finite(timings, "the end")}
        self._recorded.check_all_told()
        self._append({"record": "end", **numbers, "ended": _now()}, last=True)

    def write_to(self, destination: Path) -> None:
        """Put a copy among the outputs, whole or not at all; the work folder stays until `remove`."""
        with new_file(destination) as partial:
            # Through the descriptor: closing a second one of the same file would give up the lock.
            partial.write_bytes(self._content())

    def remove(self) -> None:
        """Put the work folder away and let the journal go."""
        put_away(self._folder)
        self.close()

    def move_to(self, destination: Path) -> None:
        """write_to and remove."""
        self.write_to(destination)
        self.remove()

    def close(self) -> None:
        """Let other processes have the work folder, as it is; a second call does nothing."""
        with self._turn:
            self._over = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _left(self, header: Mapping[str, Any], machine: Mapping[str, str]) -> Left | None:
        """What can be gone on with; says why, where something is there and cannot."""
        try:
            left = read_left(self._content(), self._folder / FILE_NAME, header)
            reason = differing(self._folder / MACHINE_FILE, machine) if left else ""
        except ArtifactError as error:
            left, reason = None, str(error)
        if reason:
            print(f"{self._folder}: an interrupted training is not gone on with: {reason}", flush=True)
            return None
        return left

    def _begin(self, header: Mapping[str, Any], machine: Mapping[str, str]) -> None:
        os.ftruncate(self._descriptor, 0)  # first: nothing may be gone on with on a machine that did not begin it
        os.fsync(self._descriptor)
        write_json(self._folder / MACHINE_FILE, dict(machine))
        self._append({"record": "start", "schema": SCHEMA, **header, **code_origin(), "started": _now()})

    def _go_on(self, left: Left) -> None:
        os.ftruncate(self._descriptor, left.size)
        self._recorded, self._resumed = Recorded(left.journal, self._folder / FILE_NAME), True
        epochs = f"{len(left.journal.epochs)} epochs recorded" if left.journal.epochs else "nothing recorded yet"
        print(f"going on with the training that began at {left.journal.header['started']}: {epochs}", flush=True)

    def _content(self) -> bytes:
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)

    def _named(self, kind: str, checked: dict[str, Any]) -> None:
        if self._recorded.lacks(checked["name"], {kind: checked}):
            self._append({"record": kind, kind: checked})
            self._recorded.add(checked["name"], {kind: checked})

    def _append(self, record: Mapping[str, Any], *, last: bool = False) -> None:
        path = self._folder / FILE_NAME
        line = _line(record, path)
        with self._turn:
            if self._over:  # its descriptor may be that of another file by now
                raise ArtifactError(f"{path} is finished, received one more record: {record['record']}")
            self._write(line)
            self._over = last
        reached(f"journal {record['record']}")

    def _write(self, line: bytes) -> None:
        """All of it or nothing, so that a full disk tears no line in the middle of the file."""
        before, written = os.fstat(self._descriptor).st_size, 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except BaseException:  # Ctrl-C, too, after which another thread may still write a line
            os.ftruncate(self._descriptor, before)
            raise


def _line(record: Mapping[str, Any], path: Path) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: a record must be JSON: {error}") from None


def _open_alone(path: Path) -> int:
    """A descriptor to append to a file that no other process appends to."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except (FileExistsError, FileNotFoundError):
            continue  # the folder was deleted in between
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process trains this model ({path.parent}); waiting for it to end", flush=True)
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        if holds(descriptor, path):
            return descriptor
        print(f"it has come to its end ({path.parent} is gone); this training has nothing to go on with", flush=True)
        os.close(descriptor)  # of the file that we waited for


def _finite(metrics: Mapping[str, float], where: str) -> dict[str, float]:
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ArtifactError(f"{name} must be a finite number, received {value} at {where}")
    return numbers


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
