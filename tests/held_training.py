"""A training by `dvc repro` that is held where a test wants it, so that no test rests on how fast a machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from tiny_project import LONGEST, TinyProject


@contextmanager
def training(project: TinyProject, model: str) -> Iterator[Training]:
    """A training of the model by `dvc repro`, held after its second epoch until it is let go, however fast it is."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", f"baseline@{model}"],
            cwd=project.root,
            env=project.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        found = Training(process, log.fileno(), project.root / ".work")
        try:
            eventually(lambda: found.epochs() >= 2)
            found.stage().suspend()
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Training:
    """A `dvc repro` and the one training that it runs.

    Attributes:
        process: of DVC.
        log: descriptor of the file that all of them write to.
        work: folder of unfinished trainings.
    """

    process: subprocess.Popen[bytes]
    log: int
    work: Path

    def said(self) -> str:
        """All that they wrote so far."""
        return os.pread(self.log, os.fstat(self.log).st_size, 0).decode()

    def epochs(self) -> int:
        """How many are in the journal."""
        assert self.process.poll() is None, self.said()
        return sum(path.read_text().count('"record": "epoch"') for path in self.work.glob("*/journal.jsonl"))

    def stage(self) -> psutil.Process:
        """The process that trains; what tells MLflow of it is its child, and is not held with it."""
        found = [
            one
            for one in psutil.Process(self.process.pid).children(recursive=True)
            if "graft.stages.baseline" in one.cmdline() and one.name().startswith("python")
        ]
        parents = {one.ppid() for one in found}  # which only watch
        (training,) = [one for one in found if one.pid not in parents]
        return training

    def further_epoch(self) -> None:
        """Let it record one epoch or more, and hold it again."""
        before = self.epochs()
        self.stage().resume()
        eventually(lambda: self.epochs() > before)
        self.stage().suspend()

    def end(self) -> str:
        """Let it go; returns what was said to its good end."""
        self.stage().resume()
        assert self.process.wait(LONGEST) == 0, self.said()
        return self.said()


def eventually(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + LONGEST
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
