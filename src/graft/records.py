"""What every source yields: labelled images, and what gives none with a reason."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graft.errors import GraftError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class SourceError(GraftError):
    """The source cannot be trained on."""


class RecordError(GraftError):
    """One item of the source gives no record; reason is machine-readable, detail is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Attributes:
        content: the bytes of an image file, or the file itself.
        label: the class's name.
        split: train, validation or test where the source says so.
        group: images of one group (a person, a scene) belong into one split, where the source says so.
        source: where the image stands in its source: a posix path below its root, or a table's row.
        attributes: what a table's further columns say of it, by their names; None of another source's images.
    """

    content: bytes | Path
    label: str
    split: str | None
    group: str | None
    source: str
    attributes: Mapping[str, str | None] | None = None

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            OSError: the file cannot be read.
        """
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Reject:
    """Something in the source that gives no record, and why. The label is empty where it is unknown."""

    source: str
    label: str
    reason: str
    detail: str


def check_suffix(name: str) -> None:
    """Refuse a name that does not end like an image file's, in any case.

    Raises:
        RecordError: unsupported-extension.
    """
    if os.path.splitext(name)[1].lower() not in SUFFIXES:
        raise RecordError("unsupported-extension", f"must be one of {' '.join(SUFFIXES)}")


def real_path(path: str, root: str) -> str:
    """Where a path leads once all links are followed; never outside the root, itself a real path.

    Raises:
        RecordError: link-loop, outside-root, or unreadable-file where it leads nowhere.
    """
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RecordError("link-loop", "the link leads back to itself") from None
        raise RecordError("unreadable-file", f"the link leads nowhere: {error.strerror}") from None
    if not Path(real).is_relative_to(root):
        raise RecordError("outside-root", f"leads to {plain_text(real)}, outside the folder")
    return real


def plain_text(name: str) -> str:
    r"""A file's name as text for every table; a byte that is no UTF-8 becomes `\xe4`, so that names differ."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    r"""The text with what CSV, XML or UTF-8 cannot hold escaped: control characters such as `\r`, lone surrogates."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
