import os
import signal
import subprocess
import sys

import pytest

from graft.stage_lock import FOLDER, running_stage, stage_lock

WRITER = """\
import os, sys, time
from pathlib import Path
from graft.stage_lock import stage_lock
name, seconds, fork = sys.argv[1:]
with stage_lock("train@small"):
    print("begun", flush=True)
    if fork == "fork" and os.fork():
        os._exit(0)
    out = Path("out")
    for number in range(20):
        with out.open("a") as file:
            file.write(name)
        time.sleep(float(seconds) / 20)
"""


@pytest.fixture
def writer(tmp_path):
    """Starts processes of one stage, and ends those that are left."""
    started = []

    def start(name, seconds=1.0, fork="no"):
        command = [sys.executable, "-c", WRITER, name, str(seconds), fork]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_process_of_a_stage_waits_and_says_for_whom(tmp_path, writer):
    first = writer("a")
    assert first.stdout.readline() == "begun\n"
    second = writer("b")
    said, _ = second.communicate(timeout=30)
    assert said.splitlines() == [
        f"train@small: process {first.pid} runs this stage here already; waiting for it to end",
        "begun",
    ]
    assert (tmp_path / "out").read_text() == "a" * 20 + "b" * 20
    assert not list((tmp_path / FOLDER).iterdir())


def test_a_process_that_was_killed_holds_nothing(tmp_path, writer):
    first = writer("a", 60)
    assert first.stdout.readline() == "begun\n"
    first.kill()
    assert writer("b").communicate(timeout=30)[0] == "begun\n"
    assert (tmp_path / "out").read_text().endswith("b" * 20)


def test_what_a_dead_process_forked_still_holds_it(tmp_path, writer):
    first = writer("a", 2, fork="fork")
    assert first.stdout.readline() == "begun\n"
    first.wait(timeout=30)
    assert "waiting for it to end" in writer("b").communicate(timeout=30)[0]
    assert (tmp_path / "out").read_text() == "a" * 20 + "b" * 20


def test_other_stages_and_other_workspaces_do_not_wait(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with stage_lock("train@small"), stage_lock("train@large"):
        (tmp_path / "copy").mkdir()
        monkeypatch.chdir(tmp_path / "copy")
        with stage_lock("train@small"):
            assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["train@large", "train@small"]
    assert capsys.readouterr().out == ""


def test_a_stage_of_a_folder_below_has_a_lock_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with stage_lock("../below/dvc.yaml:train@small"):
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["..%2Fbelow%2Fdvc.yaml%3Atrain@small"]


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        ("finetune@vgg16", ["/x/finetune.py", "resnet50"], "finetune@vgg16"),
        (None, ["/x/finetune.py", "vgg16", "--out", "models"], "finetune@vgg16"),
        (None, ["/x/prepare.py", "--out", "data"], "prepare"),
    ],
)
def test_a_stage_that_is_started_by_hand_has_the_name_of_dvc_yaml(monkeypatch, stage, arguments, expected):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    monkeypatch.setattr(sys, "argv", arguments)
    assert running_stage() == expected


def test_the_next_of_several_that_wait_goes_on_alone(tmp_path, writer):
    processes = [writer(name, 0.5) for name in "abcd"]
    for process in processes:
        process.communicate(timeout=60)
    written = (tmp_path / "out").read_text()
    assert [written[start : start + 20] for start in range(0, 80, 20)] == [letter * 20 for letter in written[::20]]
    assert sorted(written[::20]) == list("abcd")
