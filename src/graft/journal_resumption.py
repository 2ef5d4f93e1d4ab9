"""What an interrupted training left of its journal, and what the next attempt at the same tells of it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.journal_records import HEADER_KEYS, SCHEMA, JournalRecord, parse_journal
from graft.storage import ArtifactError, read_json

LONGEST = 100  # characters of a value that a message shows


@dataclass(frozen=True)
class Left:
    """A journal to go on with.

    Attributes:
        journal: without its end, which is written again.
        size: of it in bytes; what follows in the file is its end or a torn line.
    """

    journal: JournalRecord
    size: int


def differing(left: Path, machine: Mapping[str, str]) -> str:
    """How the machine that a file names differs from this one; empty where it does not.

    Args:
        left: written by the attempt that was interrupted; another machine's where it is missing or damaged.
        machine: this one.
    """
    try:
        other = read_json(left)
    except ArtifactError as error:
        return f"nothing says on which machine it began: {error}"
    if not isinstance(other, dict):
        return f"nothing says on which machine it began: {left} must hold an object, received {type(other).__name__}"
    names = [name for name in sorted({*other, *machine}) if other.get(name) != machine.get(name)]
    told = [_compared(name, str(other.get(name)), str(machine.get(name))) for name in names]
    return f"it began on another machine: {'; '.join(told)}" if told else ""


def _compared(name: str, there: str, here: str) -> str:
    return f"{name} {there!r}, here {here!r}" if max(len(there), len(here)) <= LONGEST else f"another {name}"


def read_left(content: bytes, path: Path, header: Mapping[str, Any]) -> Left | None:
    """The journal to go on with; None where there is none.

    Args:
        content: of the file; a last line without its end was being written.
        path: of the file, for messages.
        header: of the run that begins.

    Raises:
        ArtifactError: it is damaged, or of another run; the message says how.
    """
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return None
    journal = parse_journal(whole, path)
    schema = json.loads(whole.splitlines()[0])["schema"]
    if schema != SCHEMA:
        raise ArtifactError(f"{path} is of schema {schema}, expected {SCHEMA}")
    for key in HEADER_KEYS:
        if journal.header[key] != _plain(header[key]):
            raise ArtifactError(f"{path} is of another run: its {key} is not the same")
    kept = whole.splitlines(keepends=True)
    return Left(journal, sum(map(len, kept[:-1] if journal.complete else kept)))


class Recorded:
    """What a journal holds; a training that resumes tells parts of it again, and they must be the same.

    Args:
        journal: that goes on; None for a new one.
        path: of its file, for messages.
    """

    def __init__(self, journal: JournalRecord | None, path: Path) -> None:
        self._path = path
        self._held: dict[str, Any] = {}
        self._said: set[str] = set()
        self._last_epoch = 0
        if journal is not None:
            epochs = {f"epoch {record['epoch']}": record for record in journal.epochs}
            self._held = {name: {"phase": each["phase"], "metrics": each["metrics"]} for name, each in epochs.items()}
            self._held |= {each["name"]: {"candidate": each} for each in journal.candidates}
            self._held |= {each["name"]: {"repeat": each} for each in journal.repeats}
            self._last_epoch = max((record["epoch"] for record in journal.epochs), default=0)

    def lacks_epoch(self, epoch: int, told: Mapping[str, Any]) -> bool:
        """Whether an epoch is to be written.

        Raises:
            ArtifactError: it is held with other values, or a later one is held and it is not.
        """
        lacks = self._lacks(f"epoch {epoch}", told)
        if lacks and epoch <= self._last_epoch:
            raise ArtifactError(f"{self._path}: epochs must ascend, received {epoch} after {self._last_epoch}")
        return lacks

    def lacks(self, name: str, told: Mapping[str, Any]) -> bool:
        """Whether a candidate or repeat is to be written.

        Raises:
            ArtifactError: it is held with other values, or was told by this very attempt.
        """
        if name in self._said:
            raise ArtifactError(f"names of candidates and repeats must differ, received {name!r} again")
        return self._lacks(name, told)

    def add(self, name: str, told: Mapping[str, Any]) -> None:
        """Take note of what was written."""
        self._held[name] = _plain(told)
        self._said.add(name)

    def add_epoch(self, epoch: int, told: Mapping[str, Any]) -> None:
        """Take note of an epoch that was written."""
        self.add(f"epoch {epoch}", told)
        self._last_epoch = epoch

    def check_all_told(self) -> None:
        """Nothing may be held that the training, come to its end, did not tell.

        Raises:
            ArtifactError: something is.
        """
        if untold := [name for name in self._held if name not in self._said]:
            raise ArtifactError(
                f"{self._path} holds {', '.join(untold)} of the attempt that was interrupted, which this one did not "
                f"come to; delete {self._path.parent} and train it from the start"
            )

    def _lacks(self, name: str, told: Mapping[str, Any]) -> bool:
        if name not in self._held:
            return True
        held, again = self._held[name], _plain(told)
        if held != again:
            raise ArtifactError(
                f"{self._path}: {name} must be what it was before the interruption, {json.dumps(held)}, received "
                f"{json.dumps(again)}: the training is not repeatable on this machine, or a file it reads has changed; "
                f"delete {self._path.parent} and train it from the start"
            )
        self._said.add(name)
        return False


def _plain(value: Any) -> Any:
    """As it is read back from JSON."""
    return json.loads(json.dumps(value))
