"""A training that MLflow follows, without a network: a process that records epochs when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from graft.journal import JournalRecord, read_journal
from graft.operation_sections import Tracking
from graft.runs import RunIdentity

TRACKING = Tracking(experiment="graft", registered_model="graft", live=True)
PARAMS = {"seed": 1, "train": {"epochs": 9, "learning_rate": 0.001}}


class LiveTraining:
    """The training from outside; left, it is gone with its publisher.

    Attributes:
        publisher: the process that tells MLflow.
        printed: lines that training and publisher wrote so far, errors included.
    """

    def __init__(self, root: Path, uri: str | None = None, key: str = "k1") -> None:
        """Start it.

        Args:
            root: of its project.
            uri: of MLflow; the project's own database where it is None.
            key: of its journal.
        """
        self.root, self.key, self.printed = root, key, list[str]()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DVC", "GIT"))}
        environment = kept | {"DVC_ROOT": str(root)} | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
        self._process = subprocess.Popen(
            [sys.executable, __file__, key],
            env=environment,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.say("start")
        (self.publisher,) = psutil.Process(self._process.pid).children()

    def say(self, word: str) -> float:
        """Have it do something, and return how many seconds that took; start, epoch, sample or end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("did "):
                return float(line.split()[1])
            self.printed.append(line.rstrip())
        raise RuntimeError(f"the training ended at {word!r}: {self.printed}")

    def epochs(self, count: int, pause: float = 0.05) -> float:
        """Record some more epochs, and return the longest that one of them took."""
        longest = 0.0
        for _ in range(count):
            time.sleep(pause)
            longest = max(longest, self.say("epoch"))
        return longest

    def journal(self) -> JournalRecord:
        """What is recorded by now."""
        moved = self.root / "out" / f"{self.key}.jsonl"
        return read_journal(moved if moved.exists() else self.root / ".work" / self.key / "journal.jsonl")

    def end(self, word: str = "end") -> float:
        """Let it come to its end, or to an error by `fail`; returns how many seconds it lived on."""
        started = time.monotonic()
        rest, _ = self._process.communicate(f"{word}\n", timeout=60)
        self.printed += [line for line in rest.splitlines() if not line.startswith("did ")]
        return time.monotonic() - started

    def published(self) -> bool:
        """Whether the publisher still follows it; ended, it is a zombie as long as the training does not look."""
        return self.publisher.is_running() and self.publisher.status() != psutil.STATUS_ZOMBIE

    def kill(self) -> None:
        """End it at once, as a machine out of memory does."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.communicate()
        self.publisher.wait(timeout=30)


class _ToldError(Exception):
    """The training is told to fail."""


def _obey(key: str) -> None:
    identity = RunIdentity(key, "cnn", "baseline", None, "baseline@cnn", PARAMS)
    words, epoch = iter(sys.stdin.readline, ""), 0
    assert next(words) == "start\n"
    with identity.recorded({}) as journal:
        with identity.followed(journal, TRACKING):
            _did(0.0)
            for word in words:
                started = time.monotonic()
                match word.strip():
                    case "epoch":
                        epoch += 1
                        journal.epoch(epoch, "train", _metrics(epoch))
                    case "sample":
                        journal.system({"system/cpu_utilization_percentage": 50.0})
                    case "fail":
                        raise _ToldError("the loss must stay finite")
                    case "end":
                        break
                _did(time.monotonic() - started)
            journal.finish({"val_accuracy": 0.5}, {"train_seconds": 1.0})
            journal.write_to(Path("out") / f"{key}.jsonl")
        journal.remove()
    assert "mlflow" not in sys.modules


def _did(seconds: float) -> None:
    print(f"did {seconds}", flush=True)


def _metrics(epoch: int) -> dict[str, float]:
    return {"loss": 1 / epoch, "accuracy": 1 - 1 / epoch, "val_loss": 2 / epoch, "val_accuracy": 1 - 0.5 / epoch}


def recorded(journal: JournalRecord) -> list[tuple[str, int, int, float]]:
    """The points that the journal holds for MLflow, sorted: name, step, milliseconds since 1970 and value."""
    curves = [
        (f"epoch/{name}", epoch["epoch"], milliseconds(epoch["time"]), value)
        for epoch in journal.epochs
        for name, value in epoch["metrics"].items()
    ]
    samples = [
        (name, number, milliseconds(sample["time"]), value)
        for number, sample in enumerate(journal.system)
        for name, value in sample["metrics"].items()
    ]
    return sorted(curves + samples)


def milliseconds(moment: str) -> int:
    """Since 1970, of a time in a journal."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


if __name__ == "__main__":
    try:
        _obey(sys.argv[1])
    except _ToldError as error:
        raise SystemExit(str(error)) from None
