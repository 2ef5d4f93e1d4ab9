"""Files, folders and patterns, as a person names them, to the paths of files, without opening any."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graft.errors import GraftError
from graft.folders import hidden
from graft.records import plain_text

DIGITS = re.compile(r"(\d+)")


class NoFileError(GraftError):
    """A path or pattern stands for no file."""


def find_files(names: Sequence[str], without: Path | None = None) -> list[str]:
    """The files that names stand for, each once, in the order of the names.

    A folder stands for the files in it at any depth, in natural order (2.png before 10.png) with the files of a folder
    before its subfolders; hidden ones, links to folders and what is no regular file are left out. A pattern may have
    `**` for folders at any depth; what exists under a name is never taken as a pattern. A file that is named itself is
    kept whatever it is.

    Args:
        names: as given on a command line.
        without: a file that does not count, such as the answers of last time.

    Raises:
        NoFileError: a name stands for nothing; all such names are listed.
    """
    found: dict[str, str] = {}  # by absolute path, what it was called first
    empty, left_out = [], without and os.path.abspath(without)
    for name in names:
        paths = [path for path in _expand(name) if os.path.abspath(path) != left_out]
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
        if not paths:
            empty.append(_reason(name))
    if empty:
        raise NoFileError("; ".join(empty))
    return list(found.values())


def _expand(name: str) -> Iterator[str]:
    if os.path.lexists(name):
        matches, named = [name], True
    else:
        matches, named = sorted(_matches(name), key=natural), False
    for path in matches:
        if os.path.isdir(path):
            yield from _below(path)
        elif named or _counts(path):
            yield path


def _matches(pattern: str) -> Iterator[str]:
    """As glob's, but `**` follows no link to a folder, since links that lead back would never end."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    head, tail = os.sep.join([*parts[:place], ""]), os.sep.join(parts[place + 1 :])
    for top in glob.iglob(head) if head else [""]:
        if not tail:
            yield top or os.curdir  # a folder stands for all that is below it
            continue
        for parent, folders, _ in os.walk(top or os.curdir):
            folders[:] = [name for name in folders if not hidden(name)]
            below = os.path.relpath(parent, top or os.curdir)
            inside = top if below == os.curdir else os.path.join(top, below, "")
            yield from _matches(glob.escape(inside) + tail)


def _counts(path: str) -> bool:
    """Whether a file that nobody named is one of the images."""
    return not hidden(os.path.basename(path)) and os.path.isfile(path)


def _below(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise NoFileError(f"{plain_text(error.filename)} cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted((name for name in folders if not hidden(name)), key=natural)
        paths = (os.path.join(parent, name) for name in sorted(files, key=natural))
        yield from filter(_counts, paths)


def natural(path: str) -> tuple[list[list[Any]], str]:
    """A sort key by which digits in names count as numbers; folders decide before the names in them."""
    parts = [DIGITS.split(part.casefold()) for part in path.split(os.sep)]
    return [[int(text) if number % 2 else text for number, text in enumerate(part)] for part in parts], path


def _reason(name: str) -> str:
    shown = plain_text(name)
    if os.path.isdir(name):
        return f"{shown} has no files in it"
    return f"{shown} matches no file" if glob.has_magic(name) else f"{shown} does not exist"
