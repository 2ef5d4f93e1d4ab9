"""A full disk, as a message that says what was being written, how much room that takes and how much there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.storage import NO_SPACE, DiskFullError


@contextmanager
def room_for(what: str, folder: Path, size: int) -> Iterator[None]:
    """A block that writes so many bytes below a folder, and keeps what it wrote where it is interrupted.

    Raises:
        DiskFullError: they did not fit on the disk, or not into what this user may use of it.
    """
    try:
        yield
    except (OSError, DiskFullError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SPACE:
            raise
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
        raise DiskFullError(
            f"no room for {what} in {folder}: {size:,} bytes are needed, {shutil.disk_usage(there).free:,} are free. "
            "What was done before is kept: make room, then run the same command again"
        ) from error
