"""Work in a process of its own that ends at a named point or after some time, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import joblib

from graft import faults


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def points(work: Callable[[], None], log: Path) -> list[str]:
    """The points that some work reaches, in order, repeats included."""
    assert ends(work, {"GRAFT_FAULT_LOG": str(log)}) == 0
    return [line.split("\t")[2] for line in log.read_text().splitlines()]


def ends(work: Callable[[], None], environment: dict[str, str] | None = None, after: float | None = None) -> int:
    """Run work in a fork, with SIGTERM and SIGINT as exceptions; returns its exit status, -n where signal n killed it.

    Args:
        work: in one process, that of the fork.
        environment: of faults.
        after: seconds until it is killed by SIGKILL; None: never.
    """
    process = os.fork()
    if not process:
        os._exit(_status(work, environment or {}))
    timer = threading.Timer(after or 0, os.kill, (process, signal.SIGKILL))
    if after is not None:
        timer.start()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    timer.cancel()
    return status


def _status(work: Callable[[], None], environment: dict[str, str]) -> int:
    faults._FAULTS = faults.Faults(environment)
    joblib.cpu_count = lambda: 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        work()
    except SystemExit as stop:
        return int(str(stop.code))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def seconds(work: Callable[[], None]) -> float:
    """How long some work takes in a fork."""
    began = time.perf_counter()
    assert ends(work) == 0
    return time.perf_counter() - began
