"""Where labelled images come from. A new source is one function that yields records, and its line in SOURCES."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graft.errors import GraftError
from graft.splits import carved

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


class SourceError(GraftError):
    """The source cannot be trained on."""


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Attributes:
        content: the bytes of an image file.
        label: the class's name.
        split: train, validation or test where the source says so.
        group: images of one group (a person, a scene) belong into one split, where the source says so.
        source: where the image stands in its source.
    """

    content: bytes
    label: str
    split: str | None
    group: str | None
    source: str


@dataclass(frozen=True)
class Reject:
    """Something in the source that gives no record, and why. The label is empty outside the class folders."""

    source: str
    label: str
    reason: str
    detail: str


def digits() -> Iterator[Record]:
    """scikit-learn's 1,797 handwritten digits of 8x8 px, in its order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for index, (values, target) in enumerate(zip(data.images, data.target, strict=True)):
        grey = np.rint(values * 255 / 16).astype(np.uint8)
        yield Record(_png(grey), str(target), None, None, f"digits/{index:04d}")


def glyphs(per_class: int, seed: int) -> Iterator[Record]:
    """So many rendered characters of each class."""
    from graft.glyphs import render_glyphs

    for index, (label, grey) in enumerate(render_glyphs(per_class, seed)):
        yield Record(_png(grey), label, None, None, f"glyphs/{index:06d}")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path: Path, rejects: list[Reject] | None = None) -> Iterator[Record]:
    """The images in `<class>/`, or in `<class>/` below train/, val/ and test/, by path; hidden files do not count.

    Args:
        path: the folder.
        rejects: receives what is no image file or cannot be read.

    Raises:
        SourceError: splits and classes stand side by side.
    """
    rejects = [] if rejects is None else rejects
    tops = _tops(path)
    for top in dict.fromkeys([path, *(top for _, top in tops)]):
        rejects.extend(_strays(top, path))
    for split, class_folder in _class_folders(tops):
        label = _text(class_folder.name)
        for file in _visible(class_folder):
            source = _text(file.relative_to(path).as_posix())
            try:
                if fault := _fault(file):
                    rejects.append(Reject(source, label, *fault))
                else:
                    yield Record(file.read_bytes(), label, split, None, source)
            except OSError as error:
                rejects.append(Reject(source, label, "unreadable-file", error.strerror or str(error)))


def check_folder(path: Path, test: bool = False) -> Counter[tuple[str | None, str]]:
    """Refuse, from the listing alone, a folder whose classes cannot all be in every split.

    Args:
        path: the folder.
        test: whether a test split is wanted besides training and validation.

    Returns:
        The number of image files by the source's own split (None where it has none) and class.

    Raises:
        SourceError: names everything that is missing, and where.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist; it must be a folder with one folder of images per class")
    if not path.is_dir():
        raise SourceError(f"{path} must be a folder with one folder of images per class, received a file")
    tops = _tops(path)
    folders = _class_folders(tops)
    if not folders:
        raise SourceError(f"{path} has no class folders; images belong into {path}/<class>/")
    given = {split for split, _ in folders}
    if not given & {"train", None}:
        raise SourceError(f"{path} has class folders in {', '.join(sorted(map(str, given)))} but none in train")
    classes = sorted({folder.name for _, folder in folders})
    if len(classes) == 1:
        raise SourceError(f"{path} has one class only, {classes[0]!r}; there must be at least two")
    places = dict(tops)
    counts: Counter[tuple[str | None, str]] = Counter()
    for split, class_folder in folders:
        counts[split, class_folder.name] += sum(_fault(file) is None for file in _visible(class_folder))
    faults = [
        f"class {name!r} has {counts[split, name]} image(s) in {places[split] / name}, needs at least {needed}{purpose}"
        for split, needed, purpose in _needs(given, test)
        for name in classes
        if counts[split, name] < needed
    ]
    if faults:
        raise SourceError(f"{path} cannot be split:\n" + "\n".join(f"  {fault}" for fault in faults))
    return counts


def _needs(given: set[str | None], test: bool) -> Iterator[tuple[str | None, int, str]]:
    """The images that each class needs in each split of the source, and what for."""
    taken = carved(given, test)
    for split in sorted(given, key=str):
        if split in ("train", None):
            yield split, 1 + len(taken), f" ({', '.join(('train', *taken))})"
        elif split != "test" or test:
            yield split, 1, ""


def _tops(path: Path) -> list[tuple[str | None, Path]]:
    """The folders that hold class folders, each with its split: the split folders, or the path itself.

    Raises:
        SourceError: splits and classes stand side by side.
    """
    tops = _folders(path)
    splits = [top for top in tops if top.name.lower() in SPLIT_FOLDERS]
    others = [top.name for top in tops if top not in splits]
    if splits and not others:
        return [(SPLIT_FOLDERS[top.name.lower()], top) for top in splits]
    if any(_folders(top) for top in splits):  # else a class happens to be called "test"
        raise SourceError(
            f"{path} has {splits[0].name}/ with folders in it beside {', '.join(others)}: splits or classes?"
        )
    return [(None, path)]


def _class_folders(tops: Iterable[tuple[str | None, Path]]) -> list[tuple[str | None, Path]]:
    return [(split, folder) for split, top in tops for folder in _folders(top)]


def _strays(top: Path, root: Path) -> Iterator[Reject]:
    """Image files that stand beside the class folders instead of in one."""
    for file in _visible(top):
        if file.suffix.lower() in SUFFIXES and not file.is_dir():
            yield Reject(
                _text(file.relative_to(root).as_posix()), "", "outside-class-folder", "no folder says its class"
            )


def _fault(file: Path) -> tuple[str, str] | None:
    """Reason and detail why something in a class folder is no image file; None where it may be one."""
    if file.is_dir():
        return "nested-folder", "only files directly in a class folder are read"
    if file.suffix.lower() not in SUFFIXES:
        return "unsupported-extension", f"must be one of {' '.join(SUFFIXES)}"
    if not file.is_file():
        return "unreadable-file", "not a regular file, or a link that leads nowhere"
    return None


def _text(name: str) -> str:
    """A file's name as text that every table can hold: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _visible(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if not child.name.startswith("."))


def _folders(path: Path) -> list[Path]:
    return [child for child in _visible(path) if child.is_dir()]


SOURCES: dict[str, Callable[[Any, int, list[Reject]], Iterator[Record]]] = {
    "digits": lambda section, seed, rejects: digits(),
    "folder": lambda section, seed, rejects: folder(section.path, rejects),
    "glyphs": lambda section, seed, rejects: glyphs(section.images_per_class, seed),
}


def records(section: Any, seed: int, rejects: list[Reject]) -> Iterator[Record]:
    """The records of the source that a section of params.yaml (data or pretrain) names."""
    return SOURCES[section.source](section, seed, rejects)
