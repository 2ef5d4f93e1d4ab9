"""Faults on demand: a process ends, or runs out of disk or memory, at a named point, so that tests can prove recovery.

Environment variables, read once:
    GRAFT_FAULT: `<point>#<n>:<how>`, at the n-th time (from 1) that a process reaches the point; `<stage> <point>` is
        the point in one DVC stage alone. How: kill (SIGKILL), group (SIGKILL to the whole process group, dvc included),
        term, int, enospc (OSError), oom (MemoryError) or pause (SIGSTOP).
    GRAFT_FAULT_ONCE: a file that the fault makes; where it exists nothing happens, so that a rerun goes on.
    GRAFT_FAULT_LOG: a file to which every point is appended: process, stage and point, with tabs between.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Mapping

KINDS: Mapping[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "group": lambda: os.killpg(os.getpgrp(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "int": lambda: os.kill(os.getpid(), signal.SIGINT),
    "enospc": lambda: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "oom": lambda: _raise(MemoryError("on demand of GRAFT_FAULT")),
    "pause": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


class Faults:
    """What the variables of an environment ask for.

    Raises:
        ValueError: GRAFT_FAULT is not `<point>#<n>:<how>`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._stage = environment.get("DVC_STAGE", "")
        self._log, self._once = environment.get("GRAFT_FAULT_LOG"), environment.get("GRAFT_FAULT_ONCE")
        self._point, self._left, self._how = _parsed(environment.get("GRAFT_FAULT", ""))
        self._counting = threading.Lock()
        self.wanted = bool(self._point or self._log)

    def reached(self, point: str) -> None:
        """Log the point, and fail there if that is asked for."""
        if self._log:
            _append(self._log, f"{os.getpid()}\t{self._stage}\t{point}\n")
        if self._point not in (point, f"{self._stage} {point}"):
            return
        with self._counting:
            self._left -= 1
            due = self._left == 0
        if due and (self._once is None or _made(self._once)):
            KINDS[self._how]()


def reached(point: str) -> None:
    """Say that this process is at a point where an interruption must do no harm; does nothing unless tests ask for it.

    Args:
        point: a verb and a name that is the same in every run, such as "write manifest.parquet".
    """
    if _FAULTS.wanted:
        _FAULTS.reached(point)


def _parsed(fault: str) -> tuple[str, int, str]:
    if not fault:
        return "", 0, ""
    rest, _, how = fault.rpartition(":")
    point, _, count = rest.rpartition("#")
    if not point or how not in KINDS or not count.isdecimal() or int(count) < 1:
        raise ValueError(
            f"GRAFT_FAULT must be <point>#<n>:<how>, n from 1, how one of {list(KINDS)}, received {fault!r}"
        )
    return point, int(count), how


def _append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # one write: lines never mix
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _made(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    return True


def _raise(error: BaseException) -> None:
    raise error


_FAULTS = Faults(os.environ)
