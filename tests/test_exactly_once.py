"""Whatever DVC does, restoring, forcing, experimenting, queueing: MLflow holds what the journals hold, once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import dvc.api
import pytest
from logged_content import assert_logged_once, champion_version, everything, key_of, model_runs, states
from postgres_on_trial import needs_postgres, team_server
from real_server import RealServer
from tiny_project import CLOSED, EPOCHS, TinyProject, finished_project

from graft.journal import JournalRecord, read_journal

pytestmark = pytest.mark.slow

JOURNAL = "reports/runs/small/journal.jsonl"


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> TinyProject:
    """A finished project of which no server knows yet."""
    return finished_project(tmp_path_factory.getbasetemp(), tmp_path / "project")[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with RealServer(tmp_path / "server") as running:
        yield running


def of_experiment(project: TinyProject, name: str, folder: Path) -> JournalRecord:
    """The journal of the small network as a DVC experiment left it."""
    file = folder / f"{name}.jsonl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DVC's own
        file.write_text(dvc.api.read(JOURNAL, repo=str(project.root), rev=name))
    return read_journal(file)


def changed_and_back(project: TinyProject) -> list[JournalRecord]:
    """The journals of a project that was run, changed and run, and changed back, by which DVC restored the first."""
    project.dvc("repro")
    first = project.journals()
    cnn, small = map(key_of, first)
    runs = {key: run.info.run_id for key, run in model_runs(project.store).items()}

    project.change(EPOCHS, 2)
    project.dvc("repro")
    second = project.journal("small")
    assert_logged_once(project.store, [*first, second])
    assert states(project.store) == {cnn: "current", small: "superseded", key_of(second): "current"}

    project.change(EPOCHS, 3)
    assert "is cached - skipping run" in project.dvc("repro")
    assert [key_of(journal) for journal in project.journals()] == [cnn, small]
    assert_logged_once(project.store, [*first, second])
    assert states(project.store) == {cnn: "current", small: "current", key_of(second): "superseded"}
    after = model_runs(project.store)
    assert {key: after[key].info.run_id for key in runs} == runs
    return [*first, second]


def test_a_restored_training_keeps_its_run_and_an_empty_server_gets_all_of_them(
    project: TinyProject, server: RealServer, tmp_path: Path
) -> None:
    journals = changed_and_back(project)
    project.git("checkout", "--quiet", ".")
    champion = champion_version(project.store)
    project.told(CLOSED).dvc("exp", "run", "--temp", "--name", "unheard", "--set-param", f"{EPOCHS}=4")
    unheard = of_experiment(project, "unheard", tmp_path)
    assert key_of(unheard) not in model_runs(project.store)
    journals.append(unheard)
    project.graft("sync")
    assert_logged_once(project.store, journals)
    assert states(project.store)[key_of(unheard)] == "experiment"
    assert champion_version(project.store) == champion

    told = project.told(server.uri)
    told.graft("sync")
    assert_logged_once(server.uri, journals)
    assert states(server.uri) == states(project.store)
    before = everything(server.uri)
    told.graft("sync")
    told.dvc("repro")
    assert everything(server.uri) == before


def test_experiments_are_logged_once_and_move_no_alias(project: TinyProject, tmp_path: Path) -> None:
    names = {"queued-four": 4, "queued-five": 5}
    for name, epochs in names.items():
        project.dvc("exp", "run", "--queue", "--name", name, "--set-param", f"{EPOCHS}={epochs}")
    project.run_queue(tasks=2, jobs=2)  # both make the database
    four, five = (of_experiment(project, name, tmp_path) for name in names)
    assert_logged_once(project.store, [project.journal("cnn"), four, five])
    assert set(states(project.store).values()) == {"experiment"}
    assert champion_version(project.store) is None
    runs = model_runs(project.store)
    assert [runs[key_of(one)].data.tags["dvc.experiment"] for one in (four, five)] == list(names)

    project.dvc("repro")
    cnn, small = project.journals()
    champion = champion_version(project.store)
    assert champion is not None
    project.dvc("exp", "run", "--name", "here", "--set-param", f"{EPOCHS}=2")
    here = project.journal("small")
    assert_logged_once(project.store, [cnn, small, here, four, five])
    expected = dict.fromkeys(map(key_of, (four, five, here)), "experiment")
    expected |= dict.fromkeys(map(key_of, (cnn, small)), "current")
    assert states(project.store) == expected
    assert champion_version(project.store) == champion

    project.git("checkout", "--quiet", ".")
    project.dvc("exp", "apply", "queued-four")
    project.dvc("repro")  # by which it is the project's own
    assert_logged_once(project.store, [cnn, small, here, four, five])
    assert states(project.store) == expected | {key_of(four): "current", key_of(small): "superseded"}


@needs_postgres
def test_two_experiments_at_once_share_the_server_of_a_team(project: TinyProject, tmp_path: Path) -> None:
    names = {"two": 2, "four": 4}
    with team_server() as team:
        login = {name: value for name, value in team.environment().items() if name.startswith("MLFLOW_TRACKING_")}
        told = TinyProject(project.root, login)
        commands = [
            told.start("dvc", "exp", "run", "--temp", "--name", name, "--set-param", f"{EPOCHS}={epochs}")
            for name, epochs in names.items()
        ]
        for command in commands:
            told.end(command)
        experiments = [of_experiment(told, name, tmp_path) for name in names]
        assert_logged_once(team.store, [project.journal("cnn"), *experiments])
        told.dvc("repro")
        assert_logged_once(team.store, [*project.journals(), *experiments])
        assert champion_version(team.store) is not None
