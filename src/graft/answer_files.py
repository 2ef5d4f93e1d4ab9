"""Answers as a table for people, as CSV or as JSON: line by line, to the terminal or into a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from graft.artifacts import PROBABILITY
from graft.errors import GraftError
from graft.predicting import Answer
from graft.records import plain_text
from graft.serving import BATCH
from graft.storage import new_file

COLUMNS = ("path", "class", "probability", "abstain", "reason")  # of CSV, before one for each class
FORMULA = ("=", "+", "-", "@")  # a spreadsheet would compute what begins so


class FormatError(GraftError):
    """The format of the answers is unknown, or two are asked for."""


@dataclass(frozen=True)
class Written:
    """How many images there were, and how many of them could not be read."""

    images: int
    unread: int

    def summary(self) -> str:
        """One line."""
        return f"{self.images:,} image{'s' * (self.images != 1)}, {self.unread:,} could not be read"


def table_lines(answers: Iterable[Answer], classes: Sequence[str]) -> Iterator[str]:
    """Path, class or `abstains`, probability, and what else there is to say, in columns for a terminal.

    The columns are as wide as the first BATCH answers need; a longer value later moves the rest of its own row.
    """
    rows = (_cells(answer) for answer in answers)
    first = [("path", "class", "probability", ""), *islice(rows, BATCH)]
    path, label, number, _ = (max(len(row[place]) for row in first) for place in range(4))
    for a, b, c, d in chain(first, rows):
        yield f"{a:<{path}}  {b:<{label}}  {c:>{number}}  {d}".rstrip()


def _cells(answer: Answer) -> tuple[str, str, str, str]:
    if answer.predicted is None:
        return _shown(answer.path), "-", "-", answer.reason
    name, probability = answer.predicted
    said = ("abstains", f"most probable: {name}") if answer.abstains else (name, "")
    return _shown(answer.path), said[0], f"{100 * probability:.1f} %", said[1]


def _shown(path: Path) -> str:
    r"""A path as text; a backslash becomes two, since a line break becomes `\n`."""
    return plain_text(str(path).replace("\\", r"\\"))


def csv_lines(answers: Iterable[Answer], classes: Sequence[str]) -> Iterator[str]:
    """COLUMNS and one of probabilities for each class; all but path and reason are empty where there is no answer."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="")
    rows = (_row(answer, classes) for answer in answers)
    for row in chain([(*COLUMNS, *(f"{PROBABILITY}{name}" for name in classes))], rows):
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _row(answer: Answer, classes: Sequence[str]) -> tuple[object, ...]:
    path = _shown(answer.path)
    if path.startswith(FORMULA):
        path = f"./{path}"
    if answer.probabilities is None or answer.predicted is None:
        return path, "", "", "", answer.reason, *[""] * len(classes)
    return path, *answer.predicted, json.dumps(answer.abstains), "", *answer.probabilities.values()


def json_lines(answers: Iterable[Answer], classes: Sequence[str]) -> Iterator[str]:
    """An array of records, in the terms of the served model, that `json.dumps` would write with an indent of two."""
    yield "["
    last = None
    for answer in answers:
        if last is not None:
            yield f"{last},"
        last = "  " + json.dumps(_record(answer), indent=2, ensure_ascii=False).replace("\n", "\n  ")
    if last is not None:
        yield last
    yield "]"


def _record(answer: Answer) -> dict[str, object]:
    path = _shown(answer.path)
    if answer.predicted is None:
        return {"path": path, "reason": answer.reason}
    name, probability = answer.predicted
    record = {"path": path, "class": name, "probability": probability, "abstain": answer.abstains}
    return record | {"probabilities": answer.probabilities}


FORMATS: dict[str, Callable[[Iterable[Answer], Sequence[str]], Iterator[str]]] = {
    "table": table_lines,
    "csv": csv_lines,
    "json": json_lines,
}
SUFFIXES = {".txt": "table", ".csv": "csv", ".json": "json"}


def choose_format(asked: str | None, out: Path | None) -> str:
    """The format that is asked for, or that the file's name says; a table where neither does.

    Raises:
        FormatError: it is unknown, the two differ, or the file is a folder.
    """
    if asked is not None and asked not in FORMATS:
        raise FormatError(f"the format must be one of {', '.join(FORMATS)}, received {asked}")
    if out is None:
        return asked or "table"
    if out.is_dir():
        raise FormatError(f"the answers must go to a file, received the folder {out}")
    named = SUFFIXES.get(out.suffix.lower())
    if named is None:
        raise FormatError(f"the name of the file of answers must end with {', '.join(SUFFIXES)}, received {out}")
    if asked not in (None, named):
        raise FormatError(f"{out} is the name of a {named} file, but {asked} is asked for")
    return named


def write_answers(
    answers: Iterable[Answer], total: int, classes: Sequence[str], form: str, out: Path | None
) -> Written:
    """Write answers as they come: to standard output, or to a file that is whole or absent.

    Where standard error is a terminal, a bar there shows how far it is.

    Args:
        answers: any number.
        total: how many there will be.
        classes: of every answer's probabilities, in their order.
        form: one of FORMATS.
        out: the file; None: standard output.
    """
    images = unread = 0

    def counted() -> Iterator[Answer]:
        nonlocal images, unread
        for answer in tqdm(answers, total=total, unit=" images", disable=None, leave=False):
            images += 1
            unread += bool(answer.reason)
            yield answer

    lines = FORMATS[form](counted(), classes)
    if out is None:
        for line in lines:
            tqdm.write(line, file=sys.stdout)  # which keeps the bar out of the rows
    else:
        with new_file(out) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            file.writelines(f"{line}\n" for line in lines)
    return Written(images, unread)
