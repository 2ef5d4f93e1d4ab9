"""What one training run logs, as append-only JSON lines, and the key by which the run is known before it starts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graft.candidate_records import checked_candidate, checked_repeat
from graft.journal_records import HEADER_KEYS, SCHEMA, JournalRecord, read_journal
from graft.locks import holds
from graft.origin import code_origin
from graft.storage import ArtifactError, new_file

__all__ = ["Journal", "JournalRecord", "lock_key", "project_root", "read_journal", "run_key", "work_folder"]

FILE_NAME = "journal.jsonl"


def run_key(stage: str, root: Path) -> str:
    """The identity of the run that a stage of dvc.yaml would be now: a hash of its command, parameters and inputs.

    It is the same before the stage starts, while it runs and, by lock_key, afterwards. Inputs are hashed through DVC's
    own cache of hashes; nothing is written and no lock is taken, so it may be called from inside `dvc repro`.

    Args:
        stage: as in the environment's DVC_STAGE, such as finetune@vgg16.
        root: the folder of dvc.yaml; in `dvc exp run --temp` the working directory, not DVC_ROOT.
    """
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    with Repo(str(root)) as repo:
        loaded = repo.stage.load_one(str(root / "dvc.yaml"), stage)
        loaded.save_deps()  # in memory: hashes the inputs and reads the parameters
        return lock_key(to_single_stage_lockfile(loaded))


def lock_key(entry: Mapping[str, Any]) -> str:
    """run_key of a stage's entry in dvc.lock."""
    identity = {
        "cmd": entry["cmd"],
        "deps": {dep["path"]: dep["md5"] for dep in entry.get("deps", [])},
        "params": entry.get("params", {}),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def project_root() -> Path:
    """Where stores and unfinished work lie: the original repository, also for an experiment that runs in a copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def work_folder(key: str) -> Path:
    """The folder of an unfinished run; outside the outputs, which DVC deletes before a rerun."""
    return project_root() / ".work" / key


class Journal:
    """The record of a run while it happens; a line is on the disk before the call that wrote it returns.

    Several threads may write to it.
    """

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._names: set[str] = set()
        self._turn, self._over = threading.Lock(), False

    @property
    def folder(self) -> Path:
        """The work folder, in which the journal is FILE_NAME until it is moved."""
        return self._folder

    @classmethod
    def start(cls, folder: Path, header: Mapping[str, Any]) -> Journal:
        """Begin a journal in a work folder, in place of one that an interrupted run left there.

        Waits while another process writes to the same folder: a training that outlived its `dvc repro`, or a parallel
        experiment with the same key.

        Args:
            folder: of work_folder; made where it is missing.
            header: HEADER_KEYS; params is the nested section of this model alone.

        Raises:
            ArtifactError: the header has other keys, or a value that is not JSON.
        """
        if set(header) != set(HEADER_KEYS):
            raise ArtifactError(f"a journal's header must have {sorted(HEADER_KEYS)}, received {sorted(header)}")
        journal = cls(folder, _open_alone(folder / FILE_NAME))
        os.ftruncate(journal._descriptor, 0)
        journal._append({"record": "start", "schema": SCHEMA, **header, **code_origin(), "started": _now()})
        return journal

    def epoch(self, epoch: int, phase: str, metrics: Mapping[str, float]) -> None:
        """Record an epoch; they are numbered through all phases.

        Raises:
            ArtifactError: a metric is not a finite number.
        """
        metrics = _finite(metrics, f"epoch {epoch} ({phase})")
        self._append({"record": "epoch", "epoch": epoch, "phase": phase, "metrics": metrics, "time": _now()})

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
            ArtifactError: a key is missing or unknown, a value of a wrong type or not finite, or the name is taken.
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
        self._append({"record": "end", **numbers, "ended": _now()}, last=True)

    def move_to(self, destination: Path) -> None:
        """Put the journal among the outputs, whole or not at all, and remove the work folder."""
        with new_file(destination) as partial:
            # Through the descriptor: closing a second one of the same file would give up the lock.
            partial.write_bytes(os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0))
        shutil.rmtree(self._folder, ignore_errors=True)  # another training of the same may begin there just now
        with self._turn:
            os.close(self._descriptor)
            self._over = True

    def _named(self, kind: str, checked: dict[str, Any]) -> None:
        if checked["name"] in self._names:
            raise ArtifactError(f"names of candidates and repeats must differ, received {checked['name']!r} again")
        self._append({"record": kind, kind: checked})
        self._names.add(checked["name"])

    def _append(self, record: Mapping[str, Any], *, last: bool = False) -> None:
        path = self._folder / FILE_NAME
        try:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: a record must be JSON: {error}") from None
        with self._turn:
            if self._over:  # its descriptor may be that of another file by now
                raise ArtifactError(f"{path} is finished, received one more record: {record['record']}")
            self._over = last
            self._write(line.encode())

    def _write(self, line: bytes) -> None:
        """All of it or nothing, so that a full disk tears no line in the middle of the file."""
        before, written = os.fstat(self._descriptor).st_size, 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise


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
        os.close(descriptor)  # the other process finished and removed the file that we waited for


def _finite(metrics: Mapping[str, float], where: str) -> dict[str, float]:
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ArtifactError(f"{name} must be a finite number, received {value} at {where}")
    return numbers


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
