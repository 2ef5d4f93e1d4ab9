"""Locks between processes: empty files that the system unlocks when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ALONE, SHARED = fcntl.LOCK_EX, fcntl.LOCK_SH
AT_ONCE = fcntl.LOCK_NB  # added to one of them: do not wait


@contextmanager
def locked(path: Path, waiting: str | Callable[[], str] | None = None) -> Iterator[None]:
    """No other process is in a block with this file; `waiting` is printed where one is, before waiting for its end.

    Blocks of one process exclude each other, too: a nested block with the same file would wait forever.
    """
    try:
        descriptor = acquire(path, ALONE | AT_ONCE)
    except BlockingIOError:
        if waiting:
            print(waiting if isinstance(waiting, str) else waiting(), flush=True)
        descriptor = acquire(path, ALONE)
    try:
        yield
    finally:
        os.close(descriptor)


def acquire(path: Path, kind: int) -> int:
    """A descriptor that holds the lock until it is closed.

    Raises:
        BlockingIOError: AT_ONCE was asked for and another process holds the lock.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileExistsError, FileNotFoundError):
            continue  # the folder was deleted in between
        try:
            fcntl.flock(descriptor, kind)
        except BaseException:
            os.close(descriptor)
            raise
        if holds(descriptor, path):
            return descriptor
        os.close(descriptor)  # the file that we waited for was deleted: whoever comes next locks another one


@contextmanager
def raised(descriptor: int) -> Iterator[bool]:
    """Whether a SHARED lock could be held ALONE, at once, during the block; afterwards it is SHARED again."""
    try:
        fcntl.flock(descriptor, ALONE | AT_ONCE)
        alone = True
    except BlockingIOError:
        alone = False
    try:
        yield alone
    finally:
        fcntl.flock(descriptor, SHARED)  # a refusal, too, may have cost the lock


def holds(descriptor: int, path: Path) -> bool:
    """Whether a descriptor is of the file that the path leads to now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
