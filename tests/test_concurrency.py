"""Several commands in one project at the same moment: each result is what it would be alone, or the command says no."""

import json
import os
import signal
import sqlite3
import time

import pytest
from tiny_project import EPOCHS, LONGEST, PATIENCE, finished_project

from graft.finished_work import PREFIX
from graft.stage_lock import FOLDER

STAGE = "baseline@small"
RESULTS = (
    "reports/runs/small/predictions.parquet",
    "reports/metrics/validation/small.json",
    "reports/history/small.csv",
)
BUSY = "is busy, it is being blocked by"  # DVC's words, after the path
NO_LOCK = "Unable to acquire lock"

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path_factory, tmp_path):
    """Finished, with one model to be trained anew."""
    project, _ = finished_project(tmp_path_factory.getbasetemp(), tmp_path / "project")
    project.change(EPOCHS, 2)
    return project


def results(project):
    """What the stage wrote."""
    return {name: (project.root / name).read_bytes() for name in RESULTS}


def undisturbed(project):
    """The same of a training that nothing else runs beside."""
    project.dvc("repro", "--force", "--single-item", STAGE)
    return results(project)


def wait_for(condition):
    """Until it is so."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_at_once(project, commands):
    """Returns those that DVC refused, in words that say so."""
    processes = [project.start(*command) for command in commands]
    outputs = [project.end(process, well=False) for process in processes]
    failed = [number for number, process in enumerate(processes) if process.returncode]
    assert all(BUSY in outputs[number] or NO_LOCK in outputs[number] for number in failed), outputs
    assert len(failed) < len(commands)
    return [commands[number] for number in failed]


def unfinished(project):
    """Journals of runs that did not end."""
    journals = (project.root / ".work").rglob("*.jsonl")
    return [path for path in journals if not path.parent.name.startswith(PREFIX)]


def test_of_two_repros_at_once_one_does_the_work_and_the_other_waits_or_says_who_does(project):
    run_at_once(project, [["dvc", "repro", STAGE]] * 2)
    assert "didn't change, skipping" in project.dvc("repro", STAGE)
    assert results(project) == undisturbed(project)


def test_a_stage_that_outlives_its_dvc_is_no_second_writer(project):
    project.change(EPOCHS, 30)
    project.change(PATIENCE, 30)
    first = project.start("dvc", "repro", STAGE)
    wait_for((project.root / FOLDER / STAGE).exists)
    os.kill(first.pid, signal.SIGKILL)  # the process of DVC alone
    first.wait(LONGEST)
    project.dvc("repro", STAGE)
    project.end(first, well=False)
    assert not unfinished(project)
    assert results(project) == undisturbed(project)


def test_experiments_at_once_with_equal_and_with_other_params_are_as_alone(project):
    epochs = {"one": 2, "two": 2, "other": 1}
    commands = [
        ["dvc", "exp", "run", "--temp", "--name", name, "--set-param", f"{EPOCHS}={number}", STAGE]
        for name, number in epochs.items()
    ]
    for refused in run_at_once(project, commands):
        project.end(project.start(*refused))
    shown = json.loads(project.dvc("exp", "show", "--json"))[-1]["experiments"]
    metrics = {
        one["name"]: one["revs"][0]["data"]["metrics"]["reports/metrics/validation/small.json"]["data"] for one in shown
    }
    assert set(metrics) == set(epochs)
    assert metrics["one"] == metrics["two"] == json.loads(undisturbed(project)[RESULTS[1]])
    assert metrics["one"] != metrics["other"]
    assert not unfinished(project)


def test_sync_and_track_beside_a_repro_tell_of_each_run_once(project):
    told = project.told(project.store)
    run_at_once(told, [["dvc", "repro"], ["graft.cli", "sync"], ["graft.cli", "sync"], ["graft.cli", "track"]])
    told.dvc("repro")
    assert " 0 created, 0 completed" in told.graft("sync")
    database = sqlite3.connect(project.root / "mlflow.db")
    query = "select value from runs join tags using (run_uuid) where lifecycle_stage = 'active' and key = 'graft.key'"
    keys = [row[0] for row in database.execute(query)]
    database.close()
    assert len(keys) == len(set(keys)) == 3  # cnn, and small before and after the change
