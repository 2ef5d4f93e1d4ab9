from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graft.faults import Faults, reached

PROGRAM = """
import sys
from graft.faults import reached
for point in sys.argv[1:]:
    reached(point)
    print(point, flush=True)
"""


def run(*points: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process, in a group of its own, that reaches these points."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", PROGRAM, *points]
    return subprocess.run(command, env=environment, capture_output=True, text=True, process_group=0)


def test_nothing_happens_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert not Faults({}).wanted
    reached("write a")
    done = run("write a", "write b", GRAFT_FAULT="write c#1:kill", GRAFT_FAULT_ONCE=str(tmp_path / "once"))
    assert (done.returncode, done.stdout.split("\n")) == (0, ["write a", "write b", ""])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "number"),
    [("kill", signal.SIGKILL), ("group", signal.SIGKILL), ("term", signal.SIGTERM), ("int", signal.SIGINT)],
)
def test_a_process_is_signalled_at_its_point(how: str, number: signal.Signals) -> None:
    done = run("write a", "write b", "write c", GRAFT_FAULT=f"write b#1:{how}")
    assert (done.returncode, done.stdout) == (-number, "write a\n")


def test_it_happens_at_the_given_time_that_the_point_is_reached() -> None:
    done = run("write a", "write b", "write a", "write a", GRAFT_FAULT="write a#2:kill")
    assert done.stdout == "write a\nwrite b\n"


def test_it_happens_once_also_over_reruns(tmp_path: Path) -> None:
    once = {"GRAFT_FAULT": "write a#1:kill", "GRAFT_FAULT_ONCE": str(tmp_path / "once")}
    assert run("write a", **once).returncode == -signal.SIGKILL
    assert (tmp_path / "once").exists()
    assert run("write a", "write a", **once).stdout == "write a\nwrite a\n"


def test_a_point_can_be_that_of_one_stage() -> None:
    fault = {"GRAFT_FAULT": "svm@vgg16 write a#1:kill"}
    assert run("write a", DVC_STAGE="svm@resnet50", **fault).returncode == 0
    assert run("write a", DVC_STAGE="svm@vgg16", **fault).returncode == -signal.SIGKILL


def test_a_point_may_hold_what_separates_the_rest() -> None:
    assert run("write a#2:b.npy", GRAFT_FAULT="write a#2:b.npy#1:kill").returncode == -signal.SIGKILL


def test_disk_and_memory_can_run_out() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        Faults({"GRAFT_FAULT": "write a#1:enospc"}).reached("write a")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(MemoryError, match="GRAFT_FAULT"):
        Faults({"GRAFT_FAULT": "write a#1:oom"}).reached("write a")


def test_a_paused_process_goes_on_when_it_is_told_to() -> None:
    environment = {**os.environ, "GRAFT_FAULT": "write a#1:pause"}
    command = [sys.executable, "-c", PROGRAM, "write a"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0] == "write a\n"


def test_every_point_is_logged_with_its_process_and_stage(tmp_path: Path) -> None:
    log = tmp_path / "points"
    for stage, points in (("prepare", ("write a", "rename a")), ("augment", ("write b",))):
        assert run(*points, GRAFT_FAULT_LOG=str(log), DVC_STAGE=stage).returncode == 0
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    assert [line[1:] for line in lines] == [["prepare", "write a"], ["prepare", "rename a"], ["augment", "write b"]]
    assert lines[0][0] == lines[1][0] != lines[2][0]


@pytest.mark.parametrize("fault", ["write a", "write a#1", "write a:kill", "write a#0:kill", "write a#1:no", "#1:kill"])
def test_an_unknown_fault_is_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=r"GRAFT_FAULT must be <point>#<n>:<how>.*received"):
        Faults({"GRAFT_FAULT": fault})
