"""The work of an unfinished stage: a folder outside its outputs, held by one process, kept until the stage is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graft.locks import locked
from graft.run_keys import work_folder

LOCK = "lock"


@contextmanager
def unfinished(key: str) -> Iterator[Path]:
    """The work folder of a run, alone; removed when the block ends without an error, kept otherwise.

    Waits while another process works in it: a stage that outlived its `dvc repro`, or a parallel experiment with the
    same key.

    Args:
        key: as run_keys.run_key, so that changed parameters, inputs or code never go on from what is kept.
    """
    folder = work_folder(key)
    with locked(folder / LOCK, f"another process works on the same ({folder}); waiting for it to end"):
        yield folder
        _remove(folder)


def _remove(folder: Path) -> None:
    """The lock's file last: whoever waits for it begins in the same folder as soon as it is gone."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink()
    with suppress(OSError):  # not empty any more: another process has begun there
        folder.rmdir()
