"""The archive source: a zip or tar file, unpacked with distrust into a folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graft.folders import folder, hidden
from graft.records import SPLIT_NAMES, SUFFIXES, Record, Reject, SourceError
from graft.storage import new_folder
from graft.unpacking import Writer, unpack_tar, unpack_zip

ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGE = (
    EOFError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,  # also of zip features that the standard library does not know
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def archive(path: Path, rejects: list[Reject], scratch: Path) -> Iterator[Record]:
    """The images of an archive, as of the folder that it unpacks to.

    Args:
        path: the archive.
        rejects: receives what is no image file.
        scratch: an existing folder to unpack into; what stands there from an earlier call is used again.

    Raises:
        SourceError: the archive is unsafe, damaged or no archive, or holds no class folders.
    """
    yield from folder(unpack(path, scratch), rejects, str(path))


def unpack(path: Path, scratch: Path) -> Path:
    """Unpack an archive below scratch; returns the folder in it that holds the class folders or split folders.

    Only new regular files and folders are written. Hidden files are left out.

    Raises:
        SourceError: the archive is unsafe, damaged or no archive.
    """
    if not path.is_file():
        received = "a folder" if path.is_dir() else "what is no file" if path.exists() else "what does not exist"
        raise SourceError(f"{path} must be a zip or tar archive, received {received}")
    state = path.stat()
    whole = scratch / f"{state.st_size}-{state.st_mtime_ns}"
    if not whole.exists():
        with new_folder(whole) as target:
            _unpack(path, Writer(path, target))
    return _content(whole)


def _unpack(path: Path, writer: Writer) -> None:
    try:
        with path.open("rb") as packed:
            start = packed.read(6)
        if start.startswith(ZIP_STARTS):  # by its start, for a tar may end with a zip
            unpack_zip(path, writer)
            return
        opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
        with opener(path, "rb") as stream:
            unpack_tar(path, stream, writer)
    except SourceError:
        raise
    except DAMAGE as error:
        raise SourceError(f"{path} is damaged or cannot be unpacked: {error or type(error).__name__}") from None


def _content(top: Path) -> Path:
    """The first folder that holds more than one folder, for many archives have one at the top that holds the rest."""
    while True:
        children = [child for child in top.iterdir() if not hidden(child.name)]
        folders = [child for child in children if child.is_dir()]
        images = any(child.suffix.lower() in SUFFIXES for child in children if child not in folders)
        if images or len(folders) != 1 or folders[0].name.lower() in SPLIT_NAMES:
            return top
        if not any(child.is_dir() for child in folders[0].iterdir()):
            return top
        top = folders[0]
