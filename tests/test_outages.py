"""A server that is down, killed, slow or gone for a while: no training waits for it, and nothing is lost or double."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from held_training import eventually, training
from logged_content import assert_logged_once, champion_version, everything, live_epochs, logged_runs, model_runs
from real_server import DelayingProxy, RealServer
from tiny_project import EPOCHS, PATIENCE, TinyProject, finished_project

pytestmark = pytest.mark.slow

NOTICE = "the training goes on and track publishes what is missing"
LONG = 40  # epochs


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> TinyProject:
    """A finished project of which no server knows yet."""
    return finished_project(tmp_path_factory.getbasetemp(), tmp_path / "project")[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with RealServer(tmp_path / "server") as running:
        yield running


def train_long(project: TinyProject) -> None:
    """Let the small network's next training take many epochs."""
    project.change(EPOCHS, LONG)
    project.change(PATIENCE, LONG)


def await_logged_model(store: str, tracking: subprocess.Popen[str]) -> None:
    """Until a run has its model, and others have not."""
    deadline = time.monotonic() + 90
    while not any(run.outputs and run.outputs.model_outputs for run in logged_runs(store)):
        assert tracking.poll() is None, f"ended before MLflow had a model: {tracking.communicate()[0]}"
        assert time.monotonic() < deadline, "no model in MLflow"
        time.sleep(0.1)


def test_without_a_server_the_pipeline_ends_well_and_says_what_to_do_when_it_is_back(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    project, output = finished_project(tmp_path_factory.getbasetemp(), tmp_path / "project")
    assert output.count(NOTICE) <= len(project.journals())
    assert "run `graft track` when it is back" in output
    assert not (project.root / "mlflow.db").exists()


def test_a_server_that_comes_up_later_is_told_everything_once(project: TinyProject, server: RealServer) -> None:
    told = project.told(server.uri)
    told.graft("track")
    assert_logged_once(server.uri, project.journals())
    before = everything(server.uri)
    assert champion_version(server.uri) is not None
    told.dvc("repro")
    told.graft("sync")
    assert everything(server.uri) == before

    again = told.journals()
    told.dvc("repro", "--force", "--single-item", "baseline@small")
    told.dvc("repro")
    assert told.journal("small").header["key"] == again[1].header["key"]
    assert told.journal("small").header["started"] != again[1].header["started"]
    assert_logged_once(server.uri, again)
    assert {run for run, _ in everything(server.uri)[0]} == {run for run, _ in before[0]}


def test_a_server_that_goes_away_while_it_is_told_gets_the_rest_later(project: TinyProject, server: RealServer) -> None:
    with DelayingProxy(server.port) as proxy:
        told = project.told(proxy.uri)
        tracking = told.start("graft.cli", "track")
        await_logged_model(server.uri, tracking)
        proxy.refuse = True
        assert "run `graft track` when it is back" in told.end(tracking)
        complete = [run.data.tags.get("graft.complete") for run in model_runs(server.uri).values()]
        assert complete.count("true") < len(told.journals())
        proxy.refuse = False
        told.graft("track")
    assert_logged_once(server.uri, told.journals())


def test_a_server_killed_in_the_middle_of_a_training_costs_nothing(project: TinyProject, server: RealServer) -> None:
    told = project.told(server.uri)
    train_long(told)
    with training(told, "small") as held:
        eventually(lambda: live_epochs(server.uri) >= 2)
        server.kill()
        held.further_epoch()
        eventually(lambda: NOTICE in held.said())
        output = held.end()
    assert output.count(NOTICE) == 1
    assert len(told.journal("small").epochs) == LONG

    server.start()
    assert 2 <= live_epochs(server.uri) < LONG
    told.dvc("repro")
    assert_logged_once(server.uri, told.journals())
    before = everything(server.uri)
    told.graft("track")
    assert everything(server.uri) == before


def test_a_training_killed_and_resumed_is_one_run(project: TinyProject, server: RealServer) -> None:
    told = project.told(server.uri)
    told.change(EPOCHS, 4)
    with training(told, "small"):
        eventually(lambda: live_epochs(server.uri) >= 2)
    told.dvc("repro")
    assert_logged_once(server.uri, told.journals())


def test_a_server_that_answers_late_holds_no_training_up_and_gets_no_run_twice(
    project: TinyProject, server: RealServer
) -> None:
    with DelayingProxy(server.port) as proxy:
        told = project.told(proxy.uri)
        train_long(told)
        proxy.delay = 8.0
        with training(told, "small") as held:
            eventually(lambda: NOTICE in held.said())
            goes_on = datetime.now(UTC)
            output = held.end()
        assert output.count(NOTICE) == 1
        moments = [datetime.fromisoformat(epoch["time"]) for epoch in told.journal("small").epochs]
        after = [goes_on, *(moment for moment in moments if moment > goes_on)]
        assert max(later - before for before, later in pairwise(after)).total_seconds() < proxy.delay
        proxy.delay = 0.0
        told.dvc("repro")
    assert_logged_once(server.uri, told.journals())
