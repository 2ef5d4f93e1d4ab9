import shutil
from dataclasses import replace
from datetime import UTC, datetime

import fake_mlflow
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.identified_runs import (
    delete_run,
    epoch_metrics,
    find_run,
    is_complete,
    keep_one,
    milliseconds,
    open_run,
    system_metrics,
)
from graft.mlflow_server import connect, default_tracking_uri

# isort: split
import mlflow
from mlflow.entities import LoggedModelStatus


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def root(tmp_path, migrated, monkeypatch):
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    fake.finished_project(tmp_path, fake_params(1), "vgg16")
    return tmp_path


@pytest.fixture
def journal(root):
    """Of the fine-tuned vgg16: two frozen epochs and three unfrozen ones."""
    return fake.trained(root, fake_params(1))[1].journal


@pytest.fixture
def server(root):
    """A client and the experiment's id."""
    return connect(default_tracking_uri(root), "graft", root)


def another(journal, started):
    """A later or earlier attempt at the same training."""
    return replace(journal, header={**journal.header, "started": started})


def test_a_training_opens_its_run_with_what_is_known_before_it(server, journal):
    run = open_run(*server, journal)
    header = journal.header
    assert (run.info.status, run.info.run_name) == ("RUNNING", "vgg16")
    assert run.info.start_time == datetime.fromisoformat(header["started"]).timestamp() * 1000
    named = {"graft.key": header["key"], "graft.started": header["started"], "graft.state": "training"}
    told = {"model": "vgg16", "kind": "finetune", "backbone": "vgg16", "stage": "finetune@vgg16"}
    assert {name: run.data.tags[name] for name in {**named, **told}} == {**named, **told}
    assert run.data.params["finetune.learning_rate"] == "0.003"
    assert "unfrozen_from_epoch" not in run.data.params  # when phase 2 begins is known at its end
    assert not is_complete(run)


def test_the_same_attempt_finds_its_run_again(server, journal):
    run = open_run(*server, journal)
    again = open_run(*server, journal)
    assert again.info.run_id == run.info.run_id
    assert again.to_dictionary() == run.to_dictionary()


def test_what_another_attempt_left_unfinished_is_deleted_with_all_that_is_under_it(server, journal, root):
    client, experiment = server
    first = open_run(*server, journal)
    tags = {"mlflow.parentRunId": first.info.run_id, "graft.parent": journal.header["key"], "kind": "candidate"}
    client.create_run(experiment, tags=tags, run_name="head-01")
    own = client.create_run(experiment, tags={"mlflow.parentRunId": first.info.run_id}, run_name="a person's")
    mlflow.initialize_logged_model("model", source_run_id=first.info.run_id, experiment_id=experiment)

    second = open_run(*server, another(journal, "2026-01-02T03:04:05.678+00:00"))
    assert {run.info.run_id for run in fake_mlflow.all_runs(root)} == {second.info.run_id, own.info.run_id}
    assert second.data.tags["graft.started"] == "2026-01-02T03:04:05.678+00:00"
    assert not client.search_logged_models([experiment])


def test_a_complete_run_is_not_changed_by_training_the_same_once_more(server, journal):
    client, _ = server
    run = open_run(*server, journal)
    client.set_tag(run.info.run_id, "graft.complete", "true")
    again = open_run(*server, another(journal, "2026-01-02T03:04:05.678+00:00"))
    assert again.info.run_id == run.info.run_id
    assert again.data.tags["graft.started"] == journal.header["started"]


def test_a_finished_run_of_no_attempt_is_complete_and_one_of_an_attempt_is_not(server, journal):
    client, experiment = server
    tags = {"graft.key": journal.header["key"]}
    old = client.create_run(experiment, tags=tags).info.run_id
    assert not is_complete(client.get_run(old))
    client.set_terminated(old)
    assert is_complete(client.get_run(old))
    assert open_run(*server, journal).info.run_id == old

    live = open_run(*server, replace(journal, header={**journal.header, "key": "another"}))
    client.set_terminated(live.info.run_id)
    assert not is_complete(client.get_run(live.info.run_id))


def test_of_several_runs_of_a_key_one_is_kept_whoever_asks(server, root):
    client, experiment = server

    def run(started, **tags):
        return client.create_run(experiment, started, {"graft.key": "k", "graft.started": "then", **tags}).info.run_id

    assert find_run(*server, "k") is None
    later, earlier = run(2000), run(1000)
    assert find_run(*server, "k").info.run_id == earlier
    assert [one.info.run_id for one in fake_mlflow.all_runs(root)] == [earlier]
    assert later != earlier

    whole = run(3000, **{"graft.complete": "true"})  # complete goes before early
    assert find_run(*server, "k").info.run_id == whole

    registered = run(4000, **{"graft.complete": "true"})  # and registered before both
    client.create_registered_model("graft")
    client.create_model_version("graft", str(root), registered)
    assert find_run(*server, "k").info.run_id == registered
    assert [one.info.run_id for one in fake_mlflow.all_runs(root)] == [registered]

    same = [client.get_run(run(5000)) for _ in range(2)]
    assert keep_one(client, same).info.run_id == min(one.info.run_id for one in same)
    assert keep_one(client, [client.get_run(registered)]).info.run_id == registered


def test_a_deleted_run_takes_its_whole_models_along(server, journal):
    client, experiment = server
    run = open_run(*server, journal)
    for status in (LoggedModelStatus.READY, LoggedModelStatus.FAILED):
        logged = mlflow.initialize_logged_model("model", source_run_id=run.info.run_id, experiment_id=experiment)
        client.finalize_logged_model(logged.model_id, status)
    delete_run(client, client.get_run(run.info.run_id))
    assert not client.search_logged_models([experiment])
    assert find_run(*server, journal.header["key"]) is None


def test_points_stand_at_the_moments_of_the_journal(journal):
    curve = [point for point in epoch_metrics(journal) if point.key == "epoch/val_loss"]
    assert [(point.step, point.value) for point in curve] == [(n, 2.1 / n) for n in range(1, 6)]
    assert [point.timestamp for point in curve] == [milliseconds(epoch["time"]) for epoch in journal.epochs]
    assert {point.key for point in epoch_metrics(journal)} == {"epoch/loss", "epoch/val_loss", "epoch/val_accuracy"}

    (sample,) = journal.system
    assert {(point.key, point.value, point.step) for point in system_metrics(journal)} == {
        ("system/cpu_utilization_percentage", 50.0, 0),
        ("system/process_memory_megabytes", 300.5, 0),
    }
    assert {point.timestamp for point in system_metrics(journal)} == {milliseconds(sample["time"])}
    assert milliseconds("1970-01-01T00:00:01.234+00:00") == 1234
    assert milliseconds(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC).isoformat()) == 1767323045678


def test_a_point_that_is_told_twice_is_one_point(server, journal, root):
    client, _ = server
    run = open_run(*server, journal)
    for points in (
        epoch_metrics(journal)[:7],
        epoch_metrics(journal),
        system_metrics(journal),
        system_metrics(journal),
    ):
        client.log_batch(run.info.run_id, points)
    told = fake_mlflow.points(root, client.get_run(run.info.run_id))
    assert len(told) == 3 * 5 + 2
    assert len(set(told)) == len(told)
