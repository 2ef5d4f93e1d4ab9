"""The work of a stage that has ended, kept until dvc.lock knows of its end.

DVC hashes and caches what a stage wrote when the stage is over, and writes dvc.lock last. Killed in between, it deletes
the outputs at its next start and runs the stage again, which then goes on from what is kept here: from its last step.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import yaml

from graft.faults import reached
from graft.run_keys import lock_key

PREFIX = "done-"
LOCK = Path("dvc.lock")  # of the working directory: an experiment in a copy has its own
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where it was built


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
    """Delete what was kept of runs that dvc.lock has by now.

    Args:
        work: the folder of all work folders.
    """
    if not (kept := sorted(work.glob(f"{PREFIX}*"))):
        return
    try:
        entries = yaml.load(LOCK.read_bytes(), LOADER)["stages"].values()
        known = {lock_key(entry) for entry in entries}
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return  # it is not there yet, or dvc writes it just now, in place
    for folder in kept:
        if folder.name.removeprefix(PREFIX) in known:
            gone = folder.with_name(f".gone-{folder.name}")
            shutil.rmtree(gone, ignore_errors=True)
            with suppress(OSError):  # taken back in between
                folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
