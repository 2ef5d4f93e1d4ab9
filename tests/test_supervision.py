"""Real processes: a parent that watches a child, each killed in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from graft import supervision

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the work runs in the process itself")

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from graft.supervision import supervise
def work():
    Path("child").write_text(str(os.getpid()))
    {work}
print("before", end=" ")
supervise(work, "finetune@vgg16")
print("after")
"""
WAITS = 'Path("ready").touch(); time.sleep(60)'
LONGEST = 30.0


class Supervised:
    """A program in a process group of its own."""

    def __init__(self, folder: Path, work: str, **environment: str) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(work=work)],
            cwd=folder,
            env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def child(self) -> int:
        """Its number, once it is ready."""
        wait_for((self._folder / "ready").exists)
        return int((self._folder / "child").read_text())

    def end(self) -> tuple[int, str, str]:
        """Exit code, or minus the signal, and what was printed."""
        output, errors = self.process.communicate(timeout=LONGEST)
        return self.process.returncode, output, errors


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(number: int) -> bool:
    """Also where it is a zombie that nobody has waited for yet."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize(
    ("work", "code"),
    [("pass", 0), ("sys.exit(3)", 3), ("sys.exit('a message')", 1), ("raise ValueError('a message')", 1)],
)
def test_the_end_of_the_work_is_that_of_the_process(tmp_path: Path, work: str, code: int) -> None:
    ended, output, errors = Supervised(tmp_path, work).end()
    assert ended == code
    assert output == ("before after\n" if code == 0 else "before ")  # once each: the parent adds nothing
    assert ("a message" in errors) == ("message" in work)


def test_a_killed_child_is_named_by_its_parent(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, WAITS)
    os.kill(supervised.child(), signal.SIGKILL)
    code, _, errors = supervised.end()
    assert code == 137
    assert errors.startswith("finetune@vgg16: the process was killed (SIGKILL) by another process, or by the kernel")
    assert "GB at its peak, where there are" in errors
    assert "batch_size" in errors
    assert "next `dvc repro` goes on" in errors


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_reach_the_child_and_end_both(tmp_path: Path, name: str) -> None:
    number = signal.Signals[name]
    supervised = Supervised(tmp_path, WAITS)
    child = supervised.child()
    supervised.process.send_signal(number)
    code, _, errors = supervised.end()
    assert code == -number
    assert is_gone(child)
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_control_c_interrupts_the_work_once(tmp_path: Path) -> None:
    work = """
    try:
        Path("ready").touch(); time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        Path("cleaned").touch()
        sys.exit(5)
    """
    supervised = Supervised(tmp_path, work.strip())
    supervised.child()
    os.killpg(supervised.process.pid, signal.SIGINT)  # as a terminal does: the parent's echo comes after it
    assert supervised.end()[0] == 5
    assert (tmp_path / "cleaned").exists()


def test_a_killed_parent_takes_the_child_and_its_locks_with_it(tmp_path: Path) -> None:
    work = f"import fcntl; held = open('lock', 'w'); fcntl.flock(held, fcntl.LOCK_EX); {WAITS}"
    supervised = Supervised(tmp_path, work)
    child = supervised.child()
    supervised.process.kill()
    supervised.end()
    wait_for(lambda: is_gone(child))
    from graft.locks import locked

    with locked(tmp_path / "lock"):
        pass


def starting(folder: Path, starts: str) -> subprocess.Popen[bytes]:
    """A program in place of DVC that starts a stage and waits for it; what they say is in the file `output`."""
    environment = os.environ | {"DVC_STAGE": "finetune@vgg16", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "output").open("w") as output:
        return subprocess.Popen([sys.executable, "-c", starts], cwd=folder, env=environment, stdout=output)


@pytest.mark.parametrize(
    "command",
    [
        "[sys.executable, 'graft.stages.py']",
        "['sh', '-c', sys.executable + ' graft.stages.py; true']",  # as dash does: it stays until the command has ended
    ],
)
def test_a_stage_ends_when_dvc_has_ended(tmp_path: Path, command: str) -> None:
    (tmp_path / "graft.stages.py").write_text(PROGRAM.format(work=WAITS))
    dvc = starting(tmp_path, f"import subprocess, sys; subprocess.Popen({command}).wait()")
    wait_for((tmp_path / "ready").exists)
    child = int((tmp_path / "child").read_text())
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    dvc.kill()
    dvc.wait()
    wait_for(lambda: is_gone(child) and is_gone(parent))
    assert "finetune@vgg16: dvc has ended; this stage ends, too" in (tmp_path / "output").read_text()


def test_a_stage_whose_dvc_ended_before_it_began_does_nothing(tmp_path: Path) -> None:
    program = "import os, time\nwhile os.getppid() != 1: time.sleep(0.01)\n" + PROGRAM.format(work=WAITS)
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {program!r}])"  # and ends at once
    assert starting(tmp_path, starts).wait() == 0
    wait_for(lambda: "dvc has ended" in (tmp_path / "output").read_text())
    assert "finetune@vgg16: dvc has ended before this stage began" in (tmp_path / "output").read_text()
    assert not (tmp_path / "child").exists()


def test_a_kill_by_the_kernel_is_told_from_others() -> None:
    assert "by the kernel, which had no memory left; it had 2.5 GB" in supervision.explain_kill(1, 2_500_000_000)
    assert "by another process, or by the kernel" in supervision.explain_kill(0, 1)
