from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from graft.full_disk import room_for
from graft.storage import DiskFullError, new_file


def fail(number: int, folder: Path) -> None:
    """What a write ends with."""
    with room_for("the views", folder, 12345):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_what_is_needed_and_free(number: int, tmp_path: Path) -> None:
    with pytest.raises(
        DiskFullError,
        match=rf"^no room for the views in {tmp_path}/absent: 12,345 bytes are needed, [\d,]+ are free\. What was done "
        "before is kept: make room, then run the same command again$",
    ):
        fail(number, tmp_path / "absent")


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        fail(errno.EACCES, tmp_path)


def test_a_refusal_from_inside_gets_the_size(tmp_path: Path) -> None:
    def fail_inside() -> None:
        with room_for("all", tmp_path, 12345), new_file(tmp_path / "part"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match="12,345 bytes are needed"):
        fail_inside()
