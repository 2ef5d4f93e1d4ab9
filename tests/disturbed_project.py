"""A real project whose `dvc repro` is killed at named points and at any moment, and is run again until it finishes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from project_copies import partial_files
from tiny_project import LONGEST, TinyProject

from graft.dvc_repair import repair

LINGERING = 30  # seconds in which what outlived a killed `dvc` comes to its end
HELD = 180  # seconds that a training waits for what tells MLflow of it, which imports MLflow first
RECORDED, TOLD = "journal epoch", "publish curves"  # points: of a training, and of what tells MLflow of it
TORN = '{"record": "epoch", "epoch": 1, "ph'  # as a power cut leaves a line that was being written


@dataclass(frozen=True)
class AtPoint:
    """A fault at a named point of graft.faults.

    Attributes:
        stage: of dvc.yaml, such as svm@vgg16.
        point: its name.
        how: as GRAFT_FAULT has it; `power` is `group`, after which what was not on the disk yet is damaged.
        number: at the how manieth time that a process reaches it.
        follower: whether it is a point of the process that follows a training, which is held meanwhile, and killed.
    """

    stage: str
    point: str
    how: str
    number: int = 1
    follower: bool = False

    def __str__(self) -> str:
        return f"{self.stage}, {self.point}"

    @property
    def fault(self) -> str:
        """As GRAFT_FAULT takes it."""
        return f"{self.stage} {self.point}#{self.number}:{'group' if self.how == 'power' else self.how}"


@dataclass(frozen=True)
class AtMoment:
    """A signal so many seconds after the start of a `dvc repro`.

    Attributes:
        seconds: since then.
        whom: group (all that a terminal's Ctrl-C would reach), dvc alone, or stage: a process of the running stage.
        how: name of the signal in small letters, or `power` as for AtPoint.
        draw: settles which process of the stage it is, and what a power cut damages.
    """

    seconds: float
    whom: str
    how: str
    draw: int

    def __str__(self) -> str:
        return f"after {self.seconds:.1f} s, {self.whom}"

    @property
    def signal(self) -> signal.Signals:
        """To be sent."""
        return signal.SIGKILL if self.how == "power" else signal.Signals[f"SIG{self.how.upper()}"]


@dataclass
class DisturbedProject:
    """A tiny project, and how often it was run.

    Attributes:
        project: the checkout; beside its folder lie its log, and the points that it reached.
        runs: how often `dvc repro` was started.
        repairs: of DVC's own files before that, as `make repro` does them.
    """

    project: TinyProject
    runs: int = 0
    repairs: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """All that its commands said."""
        return self.project.root.with_suffix(".log")

    @property
    def points(self) -> Path:
        """Every point that was reached, as GRAFT_FAULT_LOG has it."""
        return self.project.root.with_suffix(".points")

    def reached(self) -> list[tuple[str, str]]:
        """Stages and points, in the order in which they were reached."""
        lines = self.points.read_text().splitlines() if self.points.exists() else []
        return [(stage, point) for _, stage, point in (line.split("\t") for line in lines)]

    def strike(self, kill: AtPoint | AtMoment) -> bool:
        """Run `dvc repro` with this disturbance; returns whether it happened before the end."""
        return self._at_point(kill) if isinstance(kill, AtPoint) else self._at_moment(kill)

    def finish(self, most: int) -> int:
        """Run `dvc repro` until it ends well, and wait for all processes; returns how many runs it took.

        Raises:
            AssertionError: the last of so many runs ended badly.
        """
        for tries in range(1, most + 1):
            code = self._wait(self._start({}))
            if code == 0:
                self.settle()
                return tries
        raise AssertionError(f"{most} runs of dvc repro in a row failed, the last with {code}; {self.tail()}")

    def tail(self) -> str:
        """The end of what was said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def settle(self) -> None:
        """Wait for processes that outlived their `dvc`, such as the one that tells MLflow of a training."""
        deadline = time.monotonic() + LINGERING
        while (left := _processes(self.project.root)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"still running in {self.project.root}: {[one.cmdline() for one in left]}"

    def _start(self, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        self.runs += 1
        self.repairs += (repairs := repair(self.project.root))
        with self.log.open("a") as log:
            print(f"\n=== run {self.runs} {variables}", *repairs, sep="\n", file=log, flush=True)
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro"],
                cwd=self.project.root,
                env={**self.project.environment(), "GRAFT_FAULT_LOG": str(self.points), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"no end in {LONGEST} s: {self.tail()}") from None

    def _at_point(self, kill: AtPoint) -> bool:
        if kill.follower:
            self.settle()  # that of the run before may still be at it
        once, before = self.project.root.with_suffix(f".once-{self.runs}"), len(self.reached())
        process = self._start({"GRAFT_FAULT": kill.fault, "GRAFT_FAULT_ONCE": str(once)})
        if kill.follower:
            self._hold(process, kill.stage, before, once)
        self._wait(process)
        if once.exists() and kill.how == "power":
            self._lose_power(len(kill.point))
        return once.exists()

    def _hold(self, process: subprocess.Popen[bytes], stage: str, before: int, fallen: Path) -> None:
        """Stop a training at its first epoch until MLflow is told of it: a small one ends before.

        Where what tells MLflow falls, the training falls with it.
        """
        while process.poll() is None:
            new = self.points.read_text().splitlines()[before:] if self.points.exists() else []
            if lines := [line for line in new if line.endswith(f"\t{stage}\t{RECORDED}")]:
                training = int(lines[0].split("\t")[0])
                with suppress(ProcessLookupError):
                    os.kill(training, signal.SIGSTOP)
                    deadline = time.monotonic() + HELD
                    while not fallen.exists() and not self._told(stage, before) and time.monotonic() < deadline:
                        time.sleep(0.05)
                    if fallen.exists():
                        os.killpg(process.pid, signal.SIGKILL)
                    os.kill(training, signal.SIGCONT)
                return
            time.sleep(0.01)

    def _told(self, stage: str, before: int) -> bool:
        return (stage, TOLD) in self.reached()[before:]

    def _at_moment(self, kill: AtMoment) -> bool:
        process = self._start({})
        with suppress(subprocess.TimeoutExpired):
            process.wait(kill.seconds)
        while process.poll() is None:
            if victims := self._victims(process, kill):
                for victim in victims:
                    with suppress(ProcessLookupError):
                        os.kill(victim, kill.signal)
                self._wait(process)
                if kill.how == "power":
                    self._lose_power(kill.draw)
                return True
            time.sleep(0.05)
        return False

    def _victims(self, process: subprocess.Popen[bytes], kill: AtMoment) -> list[int]:
        if kill.whom == "dvc":
            return [process.pid]
        try:
            below = psutil.Process(process.pid).children(recursive=True)
            if kill.whom == "group":
                members = [one.pid for one in below if os.getpgid(one.pid) == process.pid]
                return [*members, process.pid]
            stages = [one.pid for one in below if "graft.stages" in " ".join(one.cmdline())]
        except (psutil.Error, ProcessLookupError):  # it ended just now
            return []
        return [stages[kill.draw % len(stages)]] if stages else []

    def _lose_power(self, seed: int) -> None:
        """Damage what was written and not yet on the disk when everything ended.

        These are the files that have no final name yet, whose ends can be missing or zero, and a journal's last line.
        """
        self.settle()
        chance = random.Random(seed)
        for path in sorted(partial_files(self.project.root)):
            size = path.stat().st_size
            os.truncate(path, chance.randint(0, size))
            if chance.random() < 0.5:
                os.truncate(path, size)  # the rest is zeros
        for journal in self.project.root.glob(".work/*/journal.jsonl"):
            with journal.open("a") as file:
                file.write(TORN[: chance.randint(1, len(TORN))])


def _processes(root: Path) -> list[psutil.Process]:
    """Those that work in the project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == root.resolve():
                found.append(process)
    return found
