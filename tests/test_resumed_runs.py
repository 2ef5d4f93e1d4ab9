"""Trainings that are interrupted wherever that could do harm, and end as one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interrupted_training import OUTPUTS, REPEATS, Forks

from graft.journal import read_journal

KINDS = ("baseline", "svm")
PATIENCE = 60.0  # seconds


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A workspace by kind, trained without an interruption; points.txt says what was passed."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, workspace in found.items():
        log = workspace.parent / f"{kind}-points.txt"
        assert forks.run(workspace, kind, GRAFT_FAULT_LOG=str(log)) == 0, said(workspace)
        log.rename(workspace / "points.txt")
    return found


def said(workspace: Path) -> str:
    return (workspace / "log.txt").read_text()


def points(workspace: Path) -> list[str]:
    """Every point that the undisturbed training passed, as GRAFT_FAULT names it, but those of the sampling thread."""
    counts, found = Counter[str](), []
    for line in (workspace / "points.txt").read_text().splitlines():
        point = line.split("\t")[2]
        counts[point] += 1
        if point != "journal system":
            found.append(f"{point}#{counts[point]}")
    return found


def results(workspace: Path) -> dict[str, object]:
    """All that lies there, without timings and times, which differ between equal trainings."""
    files = [path for path in workspace.rglob("*") if path.is_file()]
    found: dict[str, object] = {path.relative_to(workspace).as_posix(): path.read_bytes() for path in files}
    found = {name: content for name, content in found.items() if name not in ("log.txt", "points.txt")}
    found["run/timings.json"] = sorted(json.loads((workspace / "run/timings.json").read_text()))
    journal = read_journal(workspace / "run" / "journal.jsonl")
    epochs = [{name: value for name, value in epoch.items() if name != "time"} for epoch in journal.epochs]
    found["run/journal.jsonl"] = (epochs, journal.candidates, journal.repeats, journal.metrics, sorted(journal.timings))
    return found


def remove_outputs(workspace: Path) -> None:
    """As DVC does before it runs a stage again."""
    for name in OUTPUTS:
        path = workspace / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def eventually(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_point_that_matters_is_passed(undisturbed: dict[str, Path]) -> None:
    always = {"journal start#1", "journal end#1", "rename model#1", "rename run#1", "rename work folder#1"}
    always |= {"journal repeat#1", f"rename repeat-{REPEATS}.checkpoint#1"}
    assert always | {"journal epoch#8", "journal candidate#1"} <= set(points(undisturbed["baseline"]))
    assert always | {"rename fold-3.checkpoint#3"} <= set(points(undisturbed["svm"]))


@pytest.mark.parametrize(
    ("kind", "how", "step"),
    [
        ("baseline", "kill", 8),
        ("svm", "kill", 13),
        *(pytest.param(kind, how, 1, marks=pytest.mark.slow) for kind in KINDS for how in ("kill", "int", "enospc")),
    ],
)
def test_a_training_interrupted_at_any_point_ends_as_one_that_was_not(
    forks: Forks, undisturbed: dict[str, Path], tmp_path: Path, kind: str, how: str, step: int
) -> None:
    """At every point that it passes, or every few of them."""
    expected = results(undisturbed[kind])
    for number, point in enumerate(points(undisturbed[kind])[::step]):
        workspace = tmp_path / str(number)
        workspace.mkdir()
        ended = forks.run(workspace, kind, GRAFT_FAULT=f"{point}:{how}")
        assert ended == (-signal.SIGKILL if how == "kill" else 1), f"{point}: {said(workspace)}"
        if how == "kill":
            remove_outputs(workspace)
        assert forks.run(workspace, kind) == 0, f"{point}: {said(workspace)}"
        assert results(workspace) == expected, point
        assert os.listdir(workspace / ".work") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_again_and_again_at_random_moments_ends_as_one_that_was_not(
    forks: Forks, undisturbed: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    moments = random.Random(1)
    for _ in range(8):
        pid = forks.start(tmp_path, kind)
        time.sleep(moments.uniform(0.0, 0.6))
        os.kill(pid, signal.SIGKILL)
        if forks.wait(pid) == 0:
            assert results(tmp_path) == results(undisturbed[kind])
        remove_outputs(tmp_path)
    assert forks.run(tmp_path, kind) == 0, said(tmp_path)
    assert results(tmp_path) == results(undisturbed[kind])


def test_what_was_finished_is_not_trained_again_and_keeps_its_times(forks: Forks, tmp_path: Path) -> None:
    assert forks.run(tmp_path, "svm", GRAFT_FAULT="rename model#1:kill") == -signal.SIGKILL
    before = read_journal(tmp_path / ".work" / "k1" / "journal.jsonl")
    assert before.complete
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.checkpoint")}
    # Three folds of the first training; the others' are gone with the trainings, whose predictions are there.
    assert sorted(path.name for path in kept) == [
        *(f"fold-{number}.checkpoint" for number in (1, 2, 3)),
        *(f"repeat-{number}.checkpoint" for number in range(2, REPEATS + 1)),
    ]
    remove_outputs(tmp_path)
    assert forks.run(tmp_path, "svm", GRAFT_FAULT="rename model#1:kill") == -signal.SIGKILL
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.checkpoint")} == kept
    after = read_journal(tmp_path / ".work" / "k1" / "journal.jsonl")
    assert after.header == before.header
    assert after.timings["repeats_seconds"] == before.timings["repeats_seconds"]
    assert after.timings["train_seconds"] > before.timings["train_seconds"] * 0.5


def test_the_seconds_before_an_interruption_count(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(tmp_path, "baseline", PAUSE="1.5", GRAFT_FAULT="journal epoch#3:kill")
    assert ended == -signal.SIGKILL  # epochs 1, with the pause, and 2 are kept
    assert forks.run(tmp_path, "baseline", PAUSE="0") == 0
    timings = read_journal(tmp_path / "run" / "journal.jsonl").timings
    assert timings["frozen_seconds"] > 1.5
    assert timings["train_seconds"] == timings["frozen_seconds"] + timings["unfrozen_seconds"]
    assert timings["repeats_seconds"] > 0


def test_another_machine_goes_on_with_nothing(forks: Forks, undisturbed: dict[str, Path], tmp_path: Path) -> None:
    assert forks.run(tmp_path, "baseline", GRAFT_FAULT="journal repeat#1:kill") == -signal.SIGKILL
    machine = tmp_path / ".work" / "k1" / "machine.json"
    machine.write_text(machine.read_text().replace("tests", "another"))
    assert forks.run(tmp_path, "baseline") == 0, said(tmp_path)
    assert "it began on another machine: processor 'of the another', here 'of the tests'" in said(tmp_path)
    assert results(tmp_path) == results(undisturbed["baseline"])


def held(forks: Forks, workspace: Path, **environment: str) -> int:
    """A training that has recorded two epochs and is stopped there."""
    pid = forks.start(workspace, "baseline", GRAFT_FAULT="journal epoch#2:pause", **environment)
    journal = workspace / ".work" / "k1" / "journal.jsonl"
    eventually(lambda: journal.exists() and b'"epoch": 2,' in journal.read_bytes())
    return pid


def test_what_a_dvc_that_was_killed_left_behind_trains_to_its_end_and_the_next_one_takes_that(
    forks: Forks, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    first = held(forks, tmp_path, DVC_STAGE="baseline@vgg16")
    second = forks.start(tmp_path, "baseline", DVC_STAGE="baseline@vgg16")
    eventually(lambda: "another process trains this model" in said(tmp_path))
    os.kill(first, signal.SIGCONT)
    assert forks.wait(first) == forks.wait(second) == 0, said(tmp_path)
    assert said(tmp_path).splitlines()[-1] == (
        "baseline vgg16: a process of an earlier dvc repro has just written it; kept as it is"
    )
    assert os.listdir(tmp_path / ".work") == ["done-k1"]  # until dvc.lock has it
    shutil.rmtree(tmp_path / ".work")
    assert results(tmp_path) == results(undisturbed["baseline"])


def test_whole_outputs_and_finished_work_of_the_same_key_are_kept_under_dvc_alone(forks: Forks, tmp_path: Path) -> None:
    """DVC has removed what was there before; whoever calls a stage by hand wants it to train."""

    def started(**environment: str) -> str:
        assert forks.run(tmp_path, "svm", **environment) == 0, said(tmp_path)
        return str(read_journal(tmp_path / "run" / "journal.jsonl").header["started"])

    by_hand = started()
    assert os.listdir(tmp_path / ".work") == []
    assert started(DVC_STAGE="svm@vgg16") == by_hand  # as an earlier dvc left it just now
    (tmp_path / "metrics.json").unlink()
    by_dvc = started(DVC_STAGE="svm@vgg16")
    assert by_dvc != by_hand
    assert os.listdir(tmp_path / ".work") == ["done-k1"]
    remove_outputs(tmp_path)  # as a dvc does that was killed before it wrote dvc.lock
    assert started(DVC_STAGE="svm@vgg16") == by_dvc
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"key": "k1"', '"key": "k0"'))
    assert started(DVC_STAGE="svm@vgg16") == by_dvc  # outputs of another run are written again
    assert '"key": "k0"' not in journal.read_text()
    remove_outputs(tmp_path)
    assert started() not in (by_hand, by_dvc)


@pytest.mark.parametrize("ends", [True, False])
def test_two_workspaces_that_train_the_same_at_once_are_both_right(
    forks: Forks, undisturbed: dict[str, Path], tmp_path: Path, ends: bool
) -> None:
    """As parallel experiments do; where the first is killed, the second goes on from there."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    first = held(forks, one, DVC_ROOT=str(one))
    second = forks.start(other, "baseline", DVC_ROOT=str(one))
    eventually(lambda: (other / "log.txt").exists() and "another process trains this model" in said(other))
    os.kill(first, signal.SIGCONT if ends else signal.SIGKILL)
    assert forks.wait(first) == (0 if ends else -signal.SIGKILL)
    assert forks.wait(second) == 0, said(other)
    assert ("this training has nothing to go on with" in said(other)) == ends
    assert ("2 epochs recorded" in said(other)) == (not ends)
    assert results(other) == results(undisturbed["baseline"])
