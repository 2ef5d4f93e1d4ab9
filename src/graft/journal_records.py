"""Journals, read back: whole ones, and those of trainings that still run or broke off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.candidate_records import checked_candidate, checked_repeat
from graft.storage import ArtifactError

SCHEMA = 2  # that is written; of 1, epochs have no time, and there are neither samples of the system nor repeats
HEADER_KEYS = ("key", "model", "kind", "backbone", "stage", "params")
FIELDS = {
    "start": {"schema", *HEADER_KEYS, "commit", "dirty", "experiment", "started"},
    "epoch": {"epoch", "phase", "metrics", "time"},
    "system": {"metrics", "time"},
    "candidate": {"candidate"},
    "repeat": {"repeat"},
    "end": {"metrics", "timings", "ended"},
}
FIELDS_BEFORE = {name: FIELDS[name] - {"time"} for name in ("start", "epoch", "candidate", "end")}  # of schema 1


@dataclass(frozen=True)
class JournalRecord:
    """A journal, read.

    Attributes:
        header: HEADER_KEYS; of when the run started the git `commit` (None outside git), whether the working tree was
            `dirty` (but for what `dvc repro` rewrites), the DVC `experiment` (or None); `started` (ISO 8601, UTC).
        epochs: records with epoch (ascending), phase, metrics and time (ISO 8601, UTC; where none was written, that of
            the run's end, else of its start).
        system: samples of what the machine did: records with time and metrics, in the order in which they were taken.
        candidates: of its grids, as in checked_candidate, in the order in which they were recorded.
        repeats: its further trainings, as in checked_repeat, in the order in which they were recorded.
        metrics: of the finished run; empty while it is not.
        timings: seconds by name; empty while it is not finished.
        ended: ISO 8601, UTC; empty while it is not finished.
    """

    header: dict[str, Any]
    epochs: list[dict[str, Any]]
    system: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    repeats: list[dict[str, Any]]
    metrics: dict[str, float]
    timings: dict[str, float]
    ended: str

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.ended)


def read_journal(path: Path) -> JournalRecord:
    """Read and check a journal, finished or not; a last line without its end, torn by a crash, is left out.

    Raises:
        ArtifactError: the file is missing or damaged; the message names the line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    return parse_journal(content, path)


def parse_journal(content: bytes, path: Path) -> JournalRecord:
    """As read_journal, of what was read of the file at path."""
    lines = content.decode(errors="replace").split("\n")[:-1]
    records = [_record(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    kinds = [record["record"] for record in records]
    has_end = kinds[-1:] == ["end"]
    if kinds[:1] != ["start"] or not {"start", "end"}.isdisjoint(kinds[1 : len(kinds) - has_end]):
        raise ArtifactError(
            f"{path} must hold one start, then epochs, samples, candidates and repeats, then at most one end, "
            f"received {kinds}"
        )
    fields = FIELDS if records[0]["schema"] == SCHEMA else FIELDS_BEFORE
    for number, record in enumerate(records, start=1):
        _check_fields(record, fields, f"{path}:{number}")
    _check_order(records, path)
    end: dict[str, Any] = records[-1] if has_end else {"metrics": {}, "timings": {}, "ended": ""}
    untimed = {"time": end["ended"] or records[0]["started"]}
    return JournalRecord(
        header=_without(records[0], "schema"),
        epochs=[untimed | _without(record) for record in records if record["record"] == "epoch"],
        system=[_without(record) for record in records if record["record"] == "system"],
        candidates=[record["candidate"] for record in records if record["record"] == "candidate"],
        repeats=[record["repeat"] for record in records if record["record"] == "repeat"],
        metrics=end["metrics"],
        timings=end["timings"],
        ended=end["ended"],
    )


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(line)
        is_start = record["record"] == "start"
    except (ValueError, TypeError, KeyError):
        raise ArtifactError(f"{where} is damaged: expected a record of a journal, received {line[:80]!r}") from None
    if is_start and (schema := record.get("schema")) not in (1, SCHEMA):
        raise ArtifactError(f"{where}: journals of schema 1 and {SCHEMA} can be read, received {schema!r}")
    return record


def _check_fields(record: dict[str, Any], fields: Mapping[str, set[str]], where: str) -> None:
    if record["record"] not in fields:
        raise ArtifactError(f"{where} is damaged: expected one of {', '.join(fields)}, received {record['record']!r}")
    expected = fields[record["record"]]
    if set(record) - {"record"} != expected:
        raise ArtifactError(f"{where} is damaged: expected {sorted(expected)}, received {sorted(record)}")
    for kind, checked in (("candidate", checked_candidate), ("repeat", checked_repeat)):
        if record["record"] == kind:
            record[kind] = checked(record[kind], f"{where} is damaged")


def _check_order(records: list[dict[str, Any]], path: Path) -> None:
    epochs = {number: record for number, record in enumerate(records, start=1) if record["record"] == "epoch"}
    for (_, before), (number, after) in itertools.pairwise(epochs.items()):
        if after["epoch"] <= before["epoch"]:
            raise ArtifactError(
                f"{path}:{number}: epochs must ascend, received {after['epoch']} after {before['epoch']}"
            )


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in {"record", *names}}
