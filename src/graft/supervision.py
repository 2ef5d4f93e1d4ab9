"""A process and the parent that watches it: who was killed by the kernel cannot say so, the parent can."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from graft.machine_memory import kernel_kills, memory
from graft.resources import gigabytes

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK = 1.0  # seconds between looks whether DVC is still there
ONE_INTERRUPT = 1.0  # seconds: Ctrl-C reaches parent and child, and the parent passes its own on


def supervise(work: Callable[[], None], name: str) -> None:
    """Run work in a child process, which goes on to the end of the program; the parent never returns from here.

    The parent does nothing but wait, pass signals on and end as the child did: with its exit status, or by its signal.
    Where the child was killed by SIGKILL, which leaves no time for a last word, the parent says so and exits with 137.
    Neither outlives the other: the kernel kills the child with its parent. Where DVC started this process and ends
    first, both end, too: a later `dvc repro` would begin the same stage beside them. Locks, threads and large libraries
    must come later, in work: a fork shares the locks and has none of the threads.

    On systems other than Linux, where a child cannot be tied to its parent, the work runs in this process.

    Args:
        work: may end by an exception or SystemExit, as if it had run without a parent.
        name: of the process in messages, such as the stage's.
    """
    if sys.platform != "linux":
        work()
        return
    sys.stdout.flush()
    sys.stderr.flush()  # else what is buffered would be written twice
    before, parent, starters = kernel_kills(), os.getpid(), _starters() if "DVC_STAGE" in os.environ else ()
    if _is_orphan(starters):
        print(f"{name}: dvc has ended before this stage began; the next `dvc repro` runs it", flush=True)
        os._exit(128 + signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))  # until there is who handles them
    child = os.fork()
    if child:
        _pass_signals_to(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        status, peak = _wait(child, name, starters)
        _end_as(status, partial(explain_kill, kernel_kills() - before, peak), name)
    _end_with(parent)
    _interrupt_once()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    work()


def _starters() -> tuple[int, ...]:
    """The process that started this one; where that is a shell which waits for it, also the one before, which is DVC.

    Some shells become the command that DVC gives them, others (dash) stay and outlive a DVC that is killed.
    """
    parent = os.getppid()
    with suppress(OSError, IndexError, ValueError):
        words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        if b"-c" in words and any(b"graft.stages" in word for word in words):
            return parent, int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    return (parent,)


def _is_orphan(starters: tuple[int, ...]) -> bool:
    """Whether DVC has ended already: the kernel then gave its processes to the first of all."""
    with suppress(OSError):
        return 1 in starters and b"dvc" not in Path("/proc/1/cmdline").read_bytes()
    return False


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _interrupt_once() -> None:
    """Take Ctrl-C and its echo from the parent as one interrupt; ignored where this process was started so."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    last = -ONE_INTERRUPT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= ONE_INTERRUPT:
            last = now
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _pass_signals_to(child: int) -> None:
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, frame: os.kill(child, received))


def _wait(child: int, name: str, starters: tuple[int, ...]) -> tuple[int, int]:
    """Wait for the child's end; returns its exit code, or minus its signal, and its peak of memory in bytes.

    Args:
        child: its number.
        name: for messages.
        starters: of _starters, whose end is the child's, too; empty: there are none.
    """
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        if starters and _starters() != starters:
            starters = ()
            print(f"{name}: dvc has ended; this stage ends, too, and goes on with the next `dvc repro`", flush=True)
            os.kill(child, signal.SIGTERM)
        signal.sigtimedwait((signal.SIGCHLD,), LOOK)


def _end_as(code: int, explain: Callable[[], str], name: str) -> NoReturn:
    """End this process as the child did, without the exit handlers, which are the child's."""
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    if code == -signal.SIGKILL:
        print(f"{name}: {explain()}", file=sys.stderr, flush=True)
    elif code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def explain_kill(kills: int, peak: int) -> str:
    """What is known of a process that was killed by SIGKILL, and what to do about it.

    Args:
        kills: processes that the kernel killed for lack of memory meanwhile.
        peak: bytes of memory that the process had at most.
    """
    machine = memory()
    kernel = "the kernel, which had no memory left"
    who = kernel if kills > 0 else "another process, or by the kernel for lack of memory"
    return (
        f"the process was killed (SIGKILL) by {who}; it had {gigabytes(peak)} at its peak, where there are "
        f"{gigabytes(machine.total)} ({machine.origin}). If memory was short, less is needed with a smaller batch_size "
        "of its row, smaller images (data.image_size, base.input_size), a later features.frozen_until (fewer layers "
        "unfrozen) or features.storage: float16. The next `dvc repro` goes on from what was kept"
    )
