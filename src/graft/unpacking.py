"""Zip and tar files, unpacked member by member without believing what they say of themselves."""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from graft.folders import hidden
from graft.records import SourceError

MAX_RATIO = 200  # of unpacked to packed bytes; photos stay near 1, a tar of tiny drawings near 20
HARMLESS = 10 * 2**20  # unpacked bytes, up to which nothing is a bomb
CHUNK = 2**16  # bytes that are read at a time, and that the headers of one member of a tar may take
MAX_DEPTH = 100  # folders within each other


class Writer:
    """Writes members of an archive below an empty folder, and refuses what is unsafe."""

    def __init__(self, archive: Path, target: Path) -> None:
        self._archive, self._target = archive, target
        self._packed = archive.stat().st_size
        self._free = shutil.disk_usage(target).free
        self._folders: set[tuple[str, ...]] = {()}
        self._written = 0

    def refusal(self, name: str, why: str) -> SourceError:
        """The error that names a member."""
        return SourceError(f"{self._archive} is refused: {name[:200]!r} {why}")

    def check_size(self, unpacked: int) -> None:
        """Refuse so many bytes in all.

        Raises:
            SourceError: the archive is a bomb, or the disk too small for it.
        """
        if unpacked > max(HARMLESS, MAX_RATIO * self._packed):
            raise SourceError(
                f"{self._archive} is a decompression bomb: it unpacks to more than {MAX_RATIO} times its "
                f"{_size(self._packed)}; extract it yourself and use source: folder if you trust it"
            )
        if unpacked > self._free:
            raise SourceError(
                f"{self._archive} unpacks to more than the {_size(self._free)} that are free in {self._target.parent}"
            )

    def steps(self, name: str) -> tuple[str, ...]:
        """The folders to a member and its own name; empty for one that does not count.

        Raises:
            SourceError: the name is unsafe.
        """
        slashed = name.replace("\\", "/")
        if slashed.startswith("/") or re.match("[A-Za-z]:", name):
            raise self.refusal(name, "has an absolute name")
        if ".." in slashed.split("/"):
            raise self.refusal(name, "leads out of the archive")
        if "\0" in name:
            raise self.refusal(name, "has a name that no file can have")
        steps = tuple(step for step in name.split("/") if step not in ("", "."))
        if len(steps) > MAX_DEPTH:
            raise self.refusal(name, f"stands deeper than {MAX_DEPTH} folders")
        return () if any(hidden(step) for step in steps) else steps

    def make_folder(self, name: str, steps: tuple[str, ...]) -> None:
        """Make a member's folder and those above it, where they are not there yet."""
        with self._naming(name):
            for depth in range(1, len(steps) + 1):
                if steps[:depth] not in self._folders:
                    self._target.joinpath(*steps[:depth]).mkdir()
                    self._folders.add(steps[:depth])

    def write(self, name: str, steps: tuple[str, ...], content: IO[bytes]) -> None:
        """Write a new file; its bytes are counted as they come, whatever the archive says of their number."""
        self.make_folder(name, steps[:-1])
        with self._naming(name):
            file = self._target.joinpath(*steps).open("xb")
        with file:
            while chunk := content.read(CHUNK):
                self._written += len(chunk)
                self.check_size(self._written)
                file.write(chunk)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """What the disk refuses is said of the member."""
        try:
            yield
        except (FileExistsError, NotADirectoryError):
            raise self.refusal(name, "stands in it twice, or as a file and as a folder") from None
        except OSError as error:
            raise self.refusal(name, f"cannot be written: {error.strerror}") from None


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def unpack_zip(path: Path, writer: Writer) -> None:
    """Write the members of a zip; all are checked before the first is written.

    Raises:
        SourceError: a member is unsafe, or all are too large.
    """
    with _open_zip(path) as packed:
        members = packed.infolist()
        wanted = [(member, steps) for member in members if (steps := _zip_steps(member, writer))]
        writer.check_size(sum(member.file_size for member in members))
        if sum(member.compress_size for member in members) > path.stat().st_size:
            raise SourceError(f"{path} is refused: its members overlap")
        for member, steps in wanted:
            if _zip_name(member).endswith("/"):
                writer.make_folder(member.filename, steps)
            else:
                with packed.open(member) as content:
                    writer.write(member.filename, steps, content)


def _open_zip(path: Path) -> zipfile.ZipFile:
    """With names read as UTF-8 where they can be: macOS writes that, and does not say so."""
    try:
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """A member's name with the separators that it should have, and not cut at a NUL as by zipfile."""
    return member.orig_filename.replace("\\", "/")


def _zip_steps(member: zipfile.ZipInfo, writer: Writer) -> tuple[str, ...]:
    name, kind = _zip_name(member), stat.S_IFMT(member.external_attr >> 16)
    steps = writer.steps(name)
    if not steps:
        return ()
    if stat.S_ISLNK(kind):
        raise writer.refusal(name, "is a link")
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise writer.refusal(name, "is neither a file nor a folder")
    if member.flag_bits & 0x41:
        raise writer.refusal(name, "is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks others without bounds
        raise writer.refusal(name, f"is neither stored nor deflated, but of compression method {member.compress_type}")
    return steps


class _Forwards:
    """A stream that tarfile can only read forwards, and never as far as a header merely claims."""

    def __init__(self, stream: IO[bytes], writer: Writer) -> None:
        self._stream, self._writer = stream, writer
        self._position = 0
        self._last = b""
        self.allowance = CHUNK  # bytes that may still be read of the present member

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while position > self._position:
            self._take(min(CHUNK, position - self._position))

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowance:
            raise tarfile.ReadError(f"a member's headers claim more than {CHUNK} bytes")
        self.allowance -= size
        self._last = self._take(size)
        return self._last

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self._writer.check_size(self._position)
        if len(data) < size:
            raise tarfile.ReadError("it ends too early")
        return data

    def check_end(self) -> None:
        """Refuse an end that is none, for tarfile takes damage for the end; reads the rest for its checksum."""
        if self._last.strip(b"\0"):
            raise tarfile.ReadError("a header is damaged")
        while rest := self._stream.read(CHUNK):
            self._position += len(rest)
            self._writer.check_size(self._position)
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something follows its end")


def unpack_tar(path: Path, stream: IO[bytes], writer: Writer) -> None:
    """Write the members of a decompressed tar as they come.

    Raises:
        SourceError: a member is unsafe, all are too large, or it is no tar.
        tarfile.TarError: it is damaged.
    """
    forwards = _Forwards(stream, writer)
    try:
        tar: Any = tarfile.TarFile(fileobj=cast(IO[bytes], forwards))
    except tarfile.ReadError:
        raise SourceError(f"{path} is neither a zip nor a tar archive (plain, gzip, bzip2 or xz)") from None
    with tar:
        while member := tar.next():
            _unpack_member(tar, member, forwards, writer)
            tar.members.clear()  # else all stay in memory
            tar.pax_headers.clear()  # of all members that follow: times and owners, which do not matter
            forwards.allowance = CHUNK
    forwards.check_end()


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, forwards: _Forwards, writer: Writer) -> None:
    steps = writer.steps(member.name)
    if not steps:
        return
    if member.issym() or member.islnk():
        raise writer.refusal(member.name, "is a link")
    if member.isdir():
        writer.make_folder(member.name, steps)
    elif member.isreg() and not member.issparse() and member.size >= 0:
        forwards.allowance = member.size
        content = tar.extractfile(member)
        assert content is not None  # as of every regular file
        writer.write(member.name, steps, content)
    else:
        raise writer.refusal(member.name, "is neither a file nor a folder")
