"""The folder source: one folder of images per class, side by side or below train/, val/ and test/."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from graft.records import (
    SPLIT_NAMES,
    SUFFIXES,
    Record,
    RecordError,
    Reject,
    SourceError,
    check_suffix,
    plain_text,
    real_path,
)


class _Folder(NamedTuple):
    """A folder on the way down from the root."""

    path: str
    source: str  # the path below the root, as text
    line: tuple[str, ...]  # real paths from the root down to this folder: a link to one of them is a loop


class _Class(NamedTuple):
    """A class's folder in the folder that stands for a split, or in the root."""

    split: str | None
    top: _Folder
    entry: os.DirEntry[str]


def hidden(name: str) -> bool:
    """Whether a file or folder of this name does not count: dot files, and what systems leave in folders."""
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini")


def folder(path: Path, rejects: list[Reject], where: str | None = None) -> Iterator[Record]:
    """The images at any depth below `<class>/`, or below `<class>/` in train/, val/ and test/, by path.

    Files are listed, never opened. Links are followed within the folder.

    Args:
        path: the folder.
        rejects: receives what is no image file or leads out of the folder.
        where: what messages call the folder.

    Raises:
        SourceError: there is no such folder, it has no class folders, or splits and classes stand side by side.
    """
    for found in _classes(path, where or str(path), rejects):
        yield from _images(found, rejects)


def tally_folder(path: Path, where: str | None = None) -> Counter[tuple[str | None, str]]:
    """The number of image files by split and class, from the listing alone; a class folder without images has 0.

    Raises:
        SourceError: as of folder.
    """
    counts: Counter[tuple[str | None, str]] = Counter()
    for found in _classes(path, where or str(path), []):
        counts[found.split, plain_text(found.entry.name)] += sum(1 for _ in _images(found, []))
    return counts


def split_folders(path: Path, where: str | None = None) -> dict[str | None, str]:
    """The folder in which the classes of each split stand; None is the key where there are no splits.

    Raises:
        SourceError: as of folder.
    """
    where = where or str(path)
    classes = _classes(path, where, [])
    return {split: f"{where}/{top.source}" if top.source else where for split, top, _ in classes}


def _classes(path: Path, where: str, rejects: list[Reject]) -> list[_Class]:
    """The class folders, by path; what stands beside them is rejected."""
    root = _root(path, where)
    entries = _subfolders(root, rejects)
    splits = [entry for entry in entries if entry.name.lower() in SPLIT_NAMES]
    example = f"{where}/<class>/"
    if splits and len(splits) == len(entries):
        tops = [(SPLIT_NAMES[entry.name.lower()], _split_folder(entry, root, where)) for entry in splits]
        found = [_Class(split, top, entry) for split, top in tops for entry in _subfolders(top, rejects)]
        example = f"{where}/{tops[0][1].source}/<class>/"
    else:
        if any(_has_folders(entry) for entry in splits):  # else a class happens to be called "test"
            others = ", ".join(plain_text(entry.name) for entry in entries if entry not in splits)
            raise SourceError(f"{where} has {splits[0].name}/ with folders in it beside {others}: splits or classes?")
        found = [_Class(None, root, entry) for entry in entries]
    if not found:
        raise SourceError(f"{where} has no class folders; images belong into {example}")
    return found


def _root(path: Path, where: str) -> _Folder:
    if not path.exists():
        raise SourceError(f"{where} does not exist; it must be a folder with one folder of images per class")
    if not path.is_dir():
        raise SourceError(f"{where} must be a folder with one folder of images per class, received a file")
    try:
        _listing(str(path))
    except RecordError as error:
        raise SourceError(f"{where} cannot be read: {error.detail}") from None
    return _Folder(str(path), "", (os.path.realpath(path),))


def _split_folder(entry: os.DirEntry[str], root: _Folder, where: str) -> _Folder:
    """A split's folder; one that cannot be used stops the run, for otherwise its split would silently be drawn."""
    try:
        found = _descend(entry, root)
        assert found is not None  # it is a folder
        _listing(found.path)
    except RecordError as error:
        raise SourceError(f"{where}/{entry.name} cannot be used: {error.detail}") from None
    return found


def _subfolders(top: _Folder, rejects: list[Reject]) -> list[os.DirEntry[str]]:
    """The folders in a folder of splits or classes; image files beside them are rejected."""
    found = []
    for entry in _listing(top.path):
        if _is_folder(entry):
            found.append(entry)
            continue
        try:
            _descend(entry, top)
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                raise RecordError("outside-class-folder", "no folder says its class")
        except RecordError as error:
            rejects.append(Reject(_below(top, entry), "", error.reason, error.detail))
    return found


def _has_folders(entry: os.DirEntry[str]) -> bool:
    try:
        return any(_is_folder(child) for child in _listing(entry.path))
    except RecordError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _images(found: _Class, rejects: list[Reject]) -> Iterator[Record]:
    """Everything below a class folder, in the order of the paths' parts; without recursion, however deep it is."""
    label = plain_text(found.entry.name)
    followed: set[str] = set()
    pending = [(found.entry, found.top)]
    while pending:
        entry, parent = pending.pop()
        source = _below(parent, entry)
        try:
            if below := _descend(entry, parent):
                if entry.is_symlink():
                    _follow_once(below.line[-1], followed)
                pending.extend((child, below) for child in reversed(_listing(below.path)))
            else:
                check_suffix(entry.name)
                yield Record(Path(entry.path), label, found.split, None, source)
        except RecordError as error:
            rejects.append(Reject(source, label, error.reason, error.detail))


def _follow_once(real: str, followed: set[str]) -> None:
    """Links that fan out at every level would otherwise multiply a few folders into billions of paths."""
    if real in followed:
        raise RecordError("link-loop", f"another link of this class leads to {plain_text(real)} already")
    followed.add(real)


def _descend(entry: os.DirEntry[str], parent: _Folder) -> _Folder | None:
    """The folder that an entry is or leads to; None for a file.

    Raises:
        RecordError: it is neither, or leads out of the root or back to a folder above it.
    """
    try:
        link = entry.is_symlink()
        real = real_path(entry.path, parent.line[0]) if link else os.path.join(parent.line[-1], entry.name)
        if entry.is_file():
            return None
        if not entry.is_dir():
            raise RecordError("unreadable-file", "neither a file nor a folder")
    except OSError as error:
        raise RecordError("unreadable-file", error.strerror or str(error)) from None
    if real in parent.line:
        raise RecordError("link-loop", "the link leads to a folder that it stands in")
    return _Folder(entry.path, _below(parent, entry), (*parent.line, real))


def _listing(path: str) -> list[os.DirEntry[str]]:
    """What counts in a folder, by name.

    Raises:
        RecordError: unreadable-file.
    """
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if not hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise RecordError("unreadable-file", error.strerror or str(error)) from None


def _below(parent: _Folder, entry: os.DirEntry[str]) -> str:
    name = plain_text(entry.name)
    return f"{parent.source}/{name}" if parent.source else name
