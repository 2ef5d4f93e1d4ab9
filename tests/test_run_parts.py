import shutil
from dataclasses import replace

import fake_mlflow
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft import run_parts
from graft.identified_runs import is_complete, open_run
from graft.mlflow_server import connect, default_tracking_uri
from graft.run_parts import complete_run, refresh_run

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, migrated, params, monkeypatch):
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run_parts, "log_model", fake_mlflow.log_light_model)
    fake.finished_project(tmp_path, params, "vgg16")
    return tmp_path


@pytest.fixture
def vgg16(root, params):
    return fake.trained(root, params)[1]


@pytest.fixture
def server(root):
    """A client and the experiment's id."""
    return connect(default_tracking_uri(root), "graft", root)


@pytest.fixture
def complete(server, root, params):
    """Completes the run of a model, found or made."""

    def completed(model, **changes):
        run = open_run(*server, model.journal)
        return complete_run(server[0], run, model, fake.project(root, params, **changes), params.serve)

    return completed


def test_a_run_has_every_part_and_is_complete(complete, root, vgg16):
    run = complete(vgg16)
    assert is_complete(run)
    assert run.info.status == "FINISHED"
    assert set(fake_mlflow.artifacts(root, run)) == {
        *("journal.jsonl", "predictions.parquet", "data/counts.csv", "report/index.html"),
        *("figures/confusion.svg", "figures/curves.svg"),
    }
    assert run.data.tags["graft.state"] == "current"


def test_a_part_that_is_there_stays_as_it_is(complete, server, root, vgg16):
    """As a person, or a version of before, left it."""
    client, run = server[0], open_run(*server, vgg16.journal)
    client.log_batch(run.info.run_id, [Metric("epoch/loss", 7.5, 1, 2)], [Param("unfrozen_from_epoch", "9")])
    client.log_text(run.info.run_id, "mine", "notes.txt")
    again = complete(vgg16)
    assert again.data.params["unfrozen_from_epoch"] == "9"
    losses = {step: value for name, step, _, value in fake_mlflow.points(root, again) if name == "epoch/loss"}
    assert losses == {1: 2.0, 2: 7.5, 3: 2 / 3, 4: 0.5, 5: 0.4}
    assert "notes.txt" in fake_mlflow.artifacts(root, again)


def test_of_what_is_gone_nothing_is_told_until_it_is_back(complete, server, root, vgg16):
    gone = [vgg16.folder, vgg16.predictions, fake.project(root, fake_params(1)).prepared]
    run = complete(replace(vgg16, missing=gone), detached=True)
    assert is_complete(run)
    assert not run.outputs.model_outputs
    assert not run.inputs.dataset_inputs
    assert "predictions.parquet" not in fake_mlflow.artifacts(root, run)

    server[0].set_tag(run.info.run_id, "graft.complete", "false")
    again = complete(vgg16, detached=True)
    assert again.info.run_id == run.info.run_id
    assert len(again.outputs.model_outputs) == len(again.inputs.dataset_inputs) == 1
    assert "predictions.parquet" in fake_mlflow.artifacts(root, again)
    assert again.data.tags["graft.state"] == "experiment"


def test_a_source_that_is_gone_leaves_its_svm_without_a_model(complete, root, params):
    svm = fake.trained(root, params)[2]
    run = complete(replace(svm, missing=[svm.source]))
    assert not run.outputs.model_outputs
    assert run.inputs.dataset_inputs


def test_a_long_description_is_cut_to_what_mlflow_takes_and_told_once(complete, server, vgg16, monkeypatch):
    monkeypatch.setattr(run_parts, "describe_run", lambda model, run_id: "x" * 9000)
    run = complete(vgg16)
    assert run.data.tags["mlflow.note.content"] == "x" * 8000
    said = []

    def log_batch(client, run_id, metrics=(), params=(), tags=()):
        said.extend([*metrics, *params, *tags])

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    refresh_run(server[0], run, vgg16)
    assert not said


def test_a_data_set_that_another_process_adds_at_the_same_moment_is_taken(complete, vgg16, monkeypatch):
    log_inputs, calls = MlflowClient.log_inputs, []

    def taken(client, run_id, datasets):
        calls.append(run_id)
        if len(calls) == 1:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name")
        log_inputs(client, run_id, datasets)

    monkeypatch.setattr(MlflowClient, "log_inputs", taken)
    assert len(complete(vgg16).inputs.dataset_inputs) == 1


def test_without_dvcs_hash_a_data_set_has_mlflows(complete, vgg16):
    run = complete(replace(vgg16, inputs={}))
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest not in ("", fake.MD5)
    assert "data" not in run.data.tags
    assert complete(vgg16).data.tags.get("graft.complete") == "true"


def test_without_a_report_there_is_none(complete, root, vgg16):
    run = complete(replace(vgg16, report=None))
    assert "report/index.html" not in fake_mlflow.artifacts(root, run)


def test_a_refreshed_value_is_the_latest_of_run_and_model(complete, server, vgg16):
    run = complete(vgg16)
    better = replace(vgg16, metrics={**vgg16.metrics, "test_accuracy": 0.5})  # lower than before
    refresh_run(server[0], run, better)
    run = server[0].get_run(run.info.run_id)
    assert run.data.metrics["test_accuracy"] == 0.5
    logged = server[0].get_logged_model(run.outputs.model_outputs[0].model_id)
    assert {metric.value for metric in logged.metrics if metric.key == "test_accuracy"} == {0.5}


def test_figures_are_uploaded_again_where_one_has_another_content(complete, server, root, vgg16):
    run = complete(vgg16)
    assert run.data.tags["graft.figures"] != run.data.tags["graft.report"]
    vgg16.figures[0].write_text("<svg>other</svg>")
    refresh_run(server[0], run, vgg16)
    after = server[0].get_run(run.info.run_id)
    assert after.data.tags["graft.figures"] != run.data.tags["graft.figures"]
    assert after.data.tags["graft.report"] == run.data.tags["graft.report"]
    assert fake_mlflow.artifacts(root, after)["figures/confusion.svg"] == len("<svg>other</svg>")


def test_a_corrected_value_is_shown_once_also_where_another_clock_was_ahead(complete, server, vgg16, monkeypatch):
    run = complete(vgg16)
    monkeypatch.setattr(run_parts.time, "time", lambda: 0.0)  # long before the training ended
    corrected = replace(vgg16, metrics={**vgg16.metrics, "val_accuracy": 0.5})
    for _ in range(2):
        refresh_run(server[0], server[0].get_run(run.info.run_id), corrected)
    history = server[0].get_metric_history(run.info.run_id, "val_accuracy")
    assert [point.value for point in sorted(history, key=lambda point: point.timestamp)] == [0.75, 0.5]
    assert server[0].get_run(run.info.run_id).data.metrics["val_accuracy"] == 0.5


def test_a_figure_drawn_anew_while_its_run_was_interrupted_is_told_as_it_is_now(complete, server, root, vgg16):
    run = complete(vgg16)
    server[0].set_tag(run.info.run_id, "graft.complete", "false")
    path = vgg16.figures[0]
    path.write_text(path.read_text().replace("vgg16", "61ggv"))  # of the same size
    complete(vgg16)
    (kept,) = (path for path in (root / "mlartifacts").rglob(path.name) if run.info.run_id in path.parts)
    assert "61ggv" in kept.read_text()
