"""The process that tells MLflow of a training while it runs, as the training sees it: begun, and ended with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LAST_WAIT = 3.0  # seconds that a training that is over waits for the last of its curves to be told
FAILED = b"failed"  # what the process is told of a training that ends by an error


@contextmanager
def published_live(work: Path, experiment: str) -> Iterator[None]:
    """Let MLflow follow the journal in a work folder until the block ends, and at most LAST_WAIT longer.

    The block never waits for a server. The process knows its end by that of a pipe, also where this process is killed.
    It has a process group of its own, so that Ctrl-C and whoever ends the training's group leave it the time to say
    that the training is over.

    Args:
        work: holds a journal that has its header.
        experiment: of MLflow, by name.
    """
    command = [sys.executable, "-m", "graft.live", str(work), experiment]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, process_group=0)
    except OSError as error:
        print(f"live: {error}; the training goes on and track publishes it", flush=True)
        yield
        return
    try:
        yield
    except Exception:
        _close(process, FAILED)
        raise
    finally:
        _close(process, b"")


def _close(process: subprocess.Popen[bytes], word: bytes) -> None:
    if process.stdin is None or process.stdin.closed:
        return
    with suppress(BrokenPipeError):  # it had ended before
        process.stdin.write(word)
    process.stdin.close()
    try:
        process.wait(LAST_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
