"""The work of a stage that has ended, kept until dvc.lock knows of its end.

DVC hashes and caches what a stage wrote when the stage is over, and writes dvc.lock last. Killed in between, it deletes
the outputs at its next start and runs the stage again, which then goes on from what is kept here: from its last step.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import yaml

from graft.faults import reached
from graft.run_keys import lock_key

PREFIX = "done-"
LOCK = Path("dvc.lock")  # of the working directory: an experiment in a copy has its own
LONGEST = 7 * 86_400  # seconds that anything is kept: an experiment's own dvc.lock may be gone with its copy


def put_away(folder: Path) -> None:
    """Take a work folder out of the way at one moment, so that no other process finds half of it.

    It is kept for take_back where DVC runs the stage, and deleted where nobody would ask for it.
    """
    kept = folder.with_name(f"{PREFIX}{folder.name}")
    over = kept if "DVC_STAGE" in os.environ else folder.with_name(f".{folder.name}.over")
    shutil.rmtree(over, ignore_errors=True)  # of the same key, or of a process that was ended just here
    folder.rename(over)
    reached("rename work folder")
    if over != kept:
        shutil.rmtree(over, ignore_errors=True)


def take_back(folder: Path) -> None:
    """Make a work folder of what put_away kept of it; nothing happens where it kept nothing or work has begun.

    Nor outside DVC: whoever calls a stage by hand wants it to work.
    """
    if "DVC_STAGE" in os.environ:
        with suppress(OSError):
            folder.with_name(f"{PREFIX}{folder.name}").rename(folder)


def forget(work: Path) -> None:
    """Delete what was kept of runs that dvc.lock has by now, and what is older than LONGEST.

    Args:
        work: the folder of all work folders.
    """
    if not (kept := sorted(work.glob(f"{PREFIX}*"))):
        return
    known = _known()
    for folder in kept:
        with suppress(FileNotFoundError):  # taken back in between
            if folder.name.removeprefix(PREFIX) in known or time.time() - folder.stat().st_mtime > LONGEST:
                gone = folder.with_name(f".gone-{folder.name}")
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)


def _known() -> set[str]:
    """The keys of the runs that dvc.lock has; none while dvc writes it, which it does in place."""
    try:
        return {lock_key(entry) for entry in yaml.load(LOCK.read_bytes(), yaml.CSafeLoader)["stages"].values()}
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return set()
