"""What lies in a project beside its outputs: how much it takes, and what of it may go.

Unfinished work that a process holds is never touched, nor is the archive of runs. The features store is filled and
unfinished work begun anew when they are asked for; what of DVC's cache goes, DVC has in no branch or tag.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from graft import locks
from graft.finished_work import PREFIX
from graft.journal import FILE_NAME
from graft.journal_records import read_journal
from graft.resources import folder_bytes
from graft.storage import ArtifactError
from graft.store import FeatureStore
from graft.unfinished import LOCK

KEY = re.compile(f"({PREFIX})?[0-9a-f]{{64}}")  # of a run; nothing else in the folder is work
LEFT = re.compile(rf"\.[0-9a-f]{{64}}\.over|\.gone-({PREFIX})?[0-9a-f]{{64}}")  # of a removal that was cut short
DAY = 86_400  # seconds


@dataclass(frozen=True)
class Unfinished:
    """What an interrupted stage, or one at work, left to go on with.

    Attributes:
        folder: named by the run's key; with a prefix where the stage ended and dvc.lock does not know of it.
        stage: in dvc.yaml, and the model; a word for those whose work has no journal.
        bytes: size of its files.
        days: since anything in it changed.
        live: whether a process holds it.
    """

    folder: Path
    stage: str
    bytes: int
    days: float
    live: bool


def unfinished_work(root: Path, now: float | None = None) -> list[Unfinished]:
    """The unfinished work of a project, the oldest first."""
    moment = time.time() if now is None else now
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        if KEY.fullmatch(folder.name) and folder.is_dir():
            with suppress(FileNotFoundError), _alone(folder) as alone:  # its run has just ended
                days = max(0.0, moment - _changed(folder)) / DAY
                found.append(Unfinished(folder, _stage(folder), folder_bytes(folder), days, not alone))
    return sorted(found, key=lambda work: -work.days)


def remove_unfinished(work: Unfinished) -> int:
    """Delete dead work; returns the bytes freed, 0 where a process has taken it up meanwhile."""
    with _alone(work.folder) as alone:
        if not alone:
            return 0
        gone = work.folder.with_name(f".gone-{work.folder.name}")
        shutil.rmtree(gone, ignore_errors=True)  # of a removal that was interrupted
        work.folder.rename(gone)  # who waits for its lock begins anew, in a folder that nothing here removes
        shutil.rmtree(gone)
    return work.bytes


def leftovers(root: Path) -> list[Path]:
    """Folders of removals that were interrupted, which nothing goes on with."""
    return sorted(path for path in root.iterdir() if LEFT.fullmatch(path.name)) if root.is_dir() else []


def shrink_store(root: Path, max_gb: float) -> int:
    """Delete the least recently used rows of the features store above a bound; returns the bytes freed."""
    return FeatureStore(root, int(max_gb * 10**9)).evict()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != LOCK:
            yield path


def _changed(folder: Path) -> float:
    """When anything in a folder changed, which a run may be writing to."""
    latest = 0.0
    for path in _files(folder):
        with suppress(FileNotFoundError):
            latest = max(latest, path.lstat().st_mtime)
    return latest or folder.stat().st_mtime


def _stage(folder: Path) -> str:
    journal = folder / FILE_NAME
    if not journal.exists():
        return "a stage without a journal"
    try:
        header = read_journal(journal).header
    except ArtifactError:
        return "a stage with a damaged journal"
    return f"{header['stage']}, model {header['model']}"


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no process holds a work folder, by either of the locks in use; none takes it before the block ends."""
    with ExitStack() as stack:
        try:
            for name, lock in ((FILE_NAME, fcntl.lockf), (LOCK, fcntl.flock)):
                with suppress(FileNotFoundError):
                    descriptor = os.open(folder / name, os.O_RDWR)
                    stack.callback(os.close, descriptor)
                    lock(descriptor, locks.ALONE | locks.AT_ONCE)
        except BlockingIOError:
            yield False
            return
        yield True
