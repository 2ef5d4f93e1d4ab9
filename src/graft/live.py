"""Tells MLflow of a training while it runs: `python -m graft.live <work folder> <experiment>`.

A process of its own, since a server that is slow or gone must not hold up a training, and since a training should not
pay for importing MLflow. It reads the training's journal and ends with the training, which is when its standard input
ends. What it could not tell is left to the track stage.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graft.live_publisher import Publisher

POLL = 1.0  # seconds between looks at the journal
LONGEST_PAUSE = 30.0  # seconds between tries to reach a server that does not answer
FLUSH = 2.5  # seconds after the training's end in which this process ends; less than the training waits
NICE = 10  # the training goes first where processors are scarce
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def main(work: Path, experiment: str) -> None:
    """Follow the journal in a work folder until the training is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    try:
        journal = (work / "journal.jsonl").open("rb")  # before MLflow is imported: a short training moves it soon
    except FileNotFoundError:
        return
    training = _Training()
    threading.Thread(target=training.watch, daemon=True).start()
    os.environ.update(PATIENCE)
    try:
        from graft.live_publisher import Publisher

        training.followed.set()
        _follow(Publisher(journal, work, experiment), training)
    except Exception as error:  # of whatever kind: a person who watches a training needs no stack trace
        _tell(str(error) or type(error).__name__)


class _Training:
    """The training, of which this process knows by its standard input.

    Attributes:
        over: whether it has ended.
        followed: whether there is something to be said at its end, for which it is worth to stay.
        failed: whether it ended by an error of its own.
    """

    def __init__(self) -> None:
        self.over, self.followed, self.failed = threading.Event(), threading.Event(), False

    def watch(self) -> None:
        """Wait for the end; soon after it this process is gone, whatever it is in."""
        while word := os.read(sys.stdin.fileno(), 64):
            self.failed = bool(word)
        self.over.set()
        if self.followed.is_set():
            time.sleep(FLUSH)
        os._exit(0)


def _follow(publisher: Publisher, training: _Training) -> None:
    from graft.mlflow_server import UnreachableError

    pause, told = 0.0, False
    while not training.over.wait(pause):
        try:
            publisher.publish()
            pause = POLL
        except UnreachableError as error:
            if not told:
                _tell(str(error))
            pause, told = min(max(2 * pause, POLL), LONGEST_PAUSE), True
        if publisher.superfluous:
            return
    publisher.finish("FAILED" if training.failed else "KILLED")


def _tell(reason: str) -> None:
    from graft.redaction import redacted

    first = redacted(reason.strip().splitlines()[0])
    with suppress(OSError):  # nobody may listen any more
        print(f"live: {first}; the training goes on and track publishes what is missing", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    os._exit(0)  # unloading MLflow would keep the training waiting
