import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import fake_mlflow
import fake_tracked as fake
import pytest
import requests
from fake_runs import fake_params
from real_server import RealServer, free_port

from graft import run_archive, run_parts
from graft.identified_runs import epoch_metrics, open_run
from graft.mlflow_server import connect, default_tracking_uri
from graft.tracking import UnreachableError, publish
from graft.trained import read_project

NAMES = ("cnn", "vgg16", "vgg16-svm")
FOLDERS = (Path("data/prepared"), Path("reports/data"))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An empty database: its migrations take longer than any test here."""
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, migrated, params, monkeypatch):
    """A finished project, in a folder whose name needs quoting in addresses."""
    root = tmp_path / "a project"
    root.mkdir()
    shutil.copy(migrated, root / "mlflow.db")
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    fake.finished_project(root, params, "vgg16")
    return root


@pytest.fixture(autouse=True)
def light_models(request, monkeypatch):
    """Models logged without files, which take as long as all the rest; test_serving.py loads real ones."""
    if "real_models" in request.fixturenames:
        return
    monkeypatch.setattr(run_parts, "log_model", fake_mlflow.log_light_model)


@pytest.fixture
def real_models():
    """Models logged with their files."""


def track(root, params, **changes):
    return publish(fake.trained(root, params), params, fake.project(root, params, **changes))


def runs(root, state=None):
    chosen = [run for run in fake_mlflow.all_runs(root) if state in (None, run.data.tags["graft.state"])]
    return {run.info.run_name: run for run in chosen} if state else chosen


def test_each_model_becomes_one_finished_run_with_all_that_is_known_of_it(root, params):
    done = track(root, params)
    assert (done.new, done.version, done.alias, done.uri) == (3, "1", "champion", f"sqlite:///{root}/mlflow.db")
    found = runs(root, "current")
    assert set(found) == set(NAMES)

    run = found["vgg16"]
    record = fake.trained(root, params)[1].journal
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time < 60_000  # of the training, not of the publishing
    assert {name: run.data.tags[name] for name in ("model", "kind", "backbone", "stage", "champion")} == {
        **{"model": "vgg16", "kind": "finetune", "backbone": "vgg16", "stage": "finetune@vgg16"},
        "champion": "true",
    }
    assert run.data.tags["graft.key"] == record.header["key"]
    assert run.data.tags["dvc.md5.data/prepared"] == run.data.tags["data"] == fake.MD5
    assert run.data.tags["graft.started"] == record.header["started"]
    assert run.data.tags["graft.complete"] == "true"
    assert "vgg16" in run.data.tags["mlflow.note.content"]
    assert run.info.run_id in run.data.tags["mlflow.note.content"]  # how to load it
    assert not [name for name in run.data.tags if name.endswith(".py") or name == "dvc.experiment"]
    assert run.data.params["finetune.learning_rate"] == str(params.backbones["vgg16"].finetune.learning_rate)
    assert run.data.params["base.application"] == "VGG16"
    assert found["vgg16-svm"].data.params["svm.kernels"] == '["rbf", "linear"]'
    assert run.data.params["finetune.unfrozen_learning_rate"] == "0.001"
    assert run.data.params["unfrozen_from_epoch"] == "3"
    assert found["cnn"].data.params["layers.00.Rescaling.scale"] == "0.00392156862745098"
    assert {
        name: run.data.metrics[name] for name in ("val_accuracy", "test_accuracy", "parameters", "train_seconds")
    } == {**{"val_accuracy": 0.75, "test_accuracy": 0.7, "parameters": 1001, "train_seconds": 1.5}}
    history = fake_mlflow.client(root).get_metric_history(run.info.run_id, "epoch/val_loss")
    assert [(metric.step, metric.value) for metric in history] == [(n, 2.1 / n) for n in range(1, 6)]
    assert [metric.timestamp for metric in history] == [
        round(datetime.fromisoformat(epoch["time"]).timestamp() * 1000) for epoch in record.epochs
    ]
    assert run.data.metrics["system/cpu_utilization_percentage"] == 50.0

    assert "backbone" not in found["cnn"].data.tags
    assert "test_accuracy" not in found["cnn"].data.metrics  # the fake leaderboard has none
    assert not [name for name in found["vgg16-svm"].data.metrics if name.startswith("epoch/")]
    assert {name: run.data.tags["champion"] for name, run in found.items() if name != "vgg16"} == {
        "cnn": "false",
        "vgg16-svm": "false",
    }


def test_a_run_published_after_a_later_commit_carries_the_commit_of_its_training(root, params):
    trained_at = fake.commit(root)
    fake.train(root, params, "vgg16")
    (root / "code.py").write_text("# later")
    assert fake.commit(root) != trained_at
    track(root, params)
    found = runs(root, "current")
    assert found["vgg16"].data.tags["mlflow.source.git.commit"] == trained_at
    assert not {"mlflow.source.git.commit", "git.dirty"} & set(found["cnn"].data.tags)  # trained outside git


def test_artifacts_data_set_and_model_are_logged(root, params, real_models):
    track(root, params)
    for name, run in runs(root, "current").items():
        listed = {item.path for item in fake_mlflow.client(root).list_artifacts(run.info.run_id)}
        whole = {"journal.jsonl", "predictions.parquet", "figures", "data", "report"}
        assert listed == whole | ({"search.csv"} if name == "vgg16-svm" else set())
        assert {"data/counts.csv", "report/index.html"} <= set(fake_mlflow.artifacts(root, run))
        figures = {item.path for item in fake_mlflow.client(root).list_artifacts(run.info.run_id, "figures")}
        assert figures == {"figures/confusion.svg", "figures/curves.svg"}
        (data,) = run.inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("prepared", fake.MD5)
        assert "manifest.parquet" in data.dataset.source
        assert "image_id" in data.dataset.schema
        (output,) = run.outputs.model_outputs
        model = fake_mlflow.client(root).get_logged_model(output.model_id)
        assert (model.name, model.source_run_id, model.status) == ("model", run.info.run_id, "READY")
        assert {metric.key: metric.value for metric in model.metrics}["val_accuracy"] == 0.75
        stored = Path(model.artifact_location.removeprefix("file://"))
        assert stored.is_relative_to(root / "mlartifacts")
        kept = {path.name for path in (stored / "artifacts").iterdir()}
        assert kept == ({"vgg16-svm", "vgg16"} if name == "vgg16-svm" else {name})
        requirements = (stored / "requirements.txt").read_text()
        assert "tensorflow" in requirements
        assert "skops==" in requirements
        assert (stored / "code" / "graft" / "serving.py").exists()


def test_a_second_call_changes_nothing(root, params):
    track(root, params)
    before = fake_mlflow.everything(root)
    assert track(root, params).new == 0
    assert fake_mlflow.everything(root) == before


def test_another_training_supersedes_and_going_back_finds_the_first_run(root, params):
    track(root, params)
    first = runs(root, "current")["vgg16"]
    kept = shutil.copytree(root / "reports" / "runs" / "vgg16", root / "kept")
    faster = fake.change(params, backbones__vgg16__finetune__learning_rate=0.5)
    fake.train(root, faster, "vgg16")
    assert track(root, faster).new == 1
    second = runs(root, "current")["vgg16"]
    assert second.data.params["finetune.learning_rate"] == "0.5"
    assert runs(root, "superseded")["vgg16"].info.run_id == first.info.run_id
    assert runs(root, "superseded")["vgg16"].data.tags["champion"] == "false"
    assert fake_mlflow.client(root).get_model_version_by_alias("graft", "champion").run_id == second.info.run_id

    shutil.copytree(kept, root / "reports" / "runs" / "vgg16", dirs_exist_ok=True)  # as DVC's run cache does
    assert track(root, params).new == 0
    assert runs(root, "current")["vgg16"].info.run_id == first.info.run_id
    assert runs(root, "current")["vgg16"].data.tags["champion"] == "true"
    assert runs(root, "superseded")["vgg16"].info.run_id == second.info.run_id
    champion = fake_mlflow.client(root).get_model_version_by_alias("graft", "champion")
    assert (str(champion.version), champion.run_id) == ("1", first.info.run_id)
    assert len(fake_mlflow.client(root).search_model_versions()) == 2


def test_the_same_training_done_again_stays_one_run(root, params):
    track(root, params)
    first = runs(root, "current")["cnn"]
    fake.train(root, params, "cnn")  # `dvc repro --force`: same command, params and inputs
    assert track(root, params).new == 0
    assert runs(root, "current")["cnn"].info.run_id == first.info.run_id
    assert not runs(root, "superseded")


def test_a_removed_row_keeps_its_run_under_another_state(root, params):
    track(root, params)
    fewer = fake.change(params, baselines={})
    fake.compare(root, fewer, "vgg16")
    assert track(root, fewer).new == 0
    assert set(runs(root, "current")) == {"vgg16", "vgg16-svm"}
    assert set(runs(root, "removed")) == {"cnn"}
    fake.compare(root, params, "cnn")
    assert track(root, params).new == 0
    assert set(runs(root, "current")) == set(NAMES)


def test_a_model_that_waits_for_its_training_keeps_its_last_run(root, params):
    track(root, params)
    rows = json.loads((root / "reports" / "leaderboard.json").read_text())
    (root / "reports" / "leaderboard.json").write_text(json.dumps([row for row in rows if row["model"] != "cnn"]))
    track(root, params)
    assert set(runs(root, "current")) == set(NAMES)


def test_another_comparison_corrects_the_runs_in_place(root, params):
    track(root, params)
    fake.compare(root, params, "cnn", low=0.5)
    (root / "reports" / "figures" / "cnn" / "confusion.svg").write_text("<svg>other</svg>")
    assert track(root, params).new == 0
    found = runs(root, "current")
    assert {name: run.data.metrics["test_accuracy_low"] for name, run in found.items()} == dict.fromkeys(NAMES, 0.5)
    assert {name for name, run in found.items() if run.data.tags["champion"] == "true"} == {"cnn"}
    model = fake_mlflow.client(root).get_logged_model(found["cnn"].outputs.model_outputs[0].model_id)
    assert 0.5 in {metric.value for metric in model.metrics if metric.key == "test_accuracy_low"}
    local = fake_mlflow.client(root).download_artifacts(
        found["cnn"].info.run_id, "figures/confusion.svg", str(root / "kept")
    )
    assert Path(local).read_text() == "<svg>other</svg>"
    champion = fake_mlflow.client(root).get_model_version_by_alias("graft", "champion")
    assert champion.run_id == found["cnn"].info.run_id
    before = fake_mlflow.everything(root)
    track(root, params)
    assert fake_mlflow.everything(root) == before


# The calls that publishing a first model takes in a new experiment, each in turn the last before the interruption.
PARTS = [
    *[("create_experiment", 1), ("create_run", 1), ("log_batch", 1), ("log_batch", 2), ("log_inputs", 1)],
    *[("log_artifact", number) for number in (1, 2, 3, 4, 5)],  # journal, predictions, data report, figures
    *[("finalize_logged_model", 1), ("log_outputs", 1)],
    *[("create_run", 3), ("create_run", 4), ("set_terminated", 2)],  # vgg16, its candidate, the candidate's end
    *[("set_tag", 1), ("set_terminated", 1), ("set_tag", 3)],
    *[("create_registered_model", 1), ("create_model_version", 1), ("set_registered_model_alias", 1)],
]


@pytest.fixture(scope="module")
def published(tmp_path_factory, migrated):
    """A project with a grid and a repeat that was published at once, and what MLflow then tells of it."""
    root, params = tmp_path_factory.mktemp("published"), fake_params(1)
    shutil.copy(migrated, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
            patch.delenv(name, raising=False)  # of the first, MLflow sets it itself
        patch.setattr(run_parts, "log_model", fake_mlflow.log_light_model)
        fake.finished_project(root, params, "vgg16")
        fake.train(root, params, "vgg16", candidates=fake.grid(2), repeats=[fake.repeat(2)])
        track(root, params)
        return root, fake_mlflow.content(root)


@pytest.mark.parametrize(("call", "number"), PARTS)
def test_an_interrupted_call_is_continued_by_the_next_without_anything_twice(
    published, params, migrated, tmp_path, monkeypatch, call, number
):
    first, whole = published
    root = shutil.copytree(first, tmp_path / "project", ignore=shutil.ignore_patterns("mlartifacts", "mlflow.db"))
    shutil.copy(migrated, root / "mlflow.db")
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with fake_mlflow.interrupted(call, number):
        track(root, params)
    track(root, params)
    assert fake_mlflow.content(root) == whole
    (version,) = fake_mlflow.client(root).search_model_versions()
    assert fake_mlflow.client(root).get_model_version_by_alias("graft", "champion").version == version.version
    before = fake_mlflow.everything(root)
    assert track(root, params).new == 0
    assert fake_mlflow.everything(root) == before


def test_a_file_torn_by_an_interruption_is_uploaded_again(root, params):
    with fake_mlflow.interrupted("log_artifact", 2):
        track(root, params)
    (torn,) = (root / "mlartifacts").rglob("predictions.parquet")
    size = torn.stat().st_size
    torn.write_bytes(torn.read_bytes()[: size // 2])
    track(root, params)
    assert torn.stat().st_size == size


def test_a_run_that_began_live_is_completed_in_place(root, params):
    """As a live publisher leaves it: some of the epochs, each told as the journal has it."""
    journal = fake.trained(root, params)[1].journal
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    live = open_run(client, experiment, journal)
    client.log_batch(live.info.run_id, epoch_metrics(journal)[:7])
    assert track(root, params).new == 3
    run = runs(root, "current")["vgg16"]
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")
    curves = [point for point in fake_mlflow.points(root, run) if point[0].startswith("epoch/")]
    assert sorted(curves) == sorted(
        (point.key, point.step, point.timestamp, point.value) for point in epoch_metrics(journal)
    )
    assert len(runs(root)) == 3


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "FINISHED"])
def test_what_a_live_publisher_said_at_its_end_does_not_matter(root, params, status):
    journal = fake.trained(root, params)[1].journal
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    live = open_run(client, experiment, journal)
    client.set_terminated(live.info.run_id, status)
    track(root, params)
    run = runs(root, "current")["vgg16"]
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")
    assert run.data.tags["graft.complete"] == "true"


def test_another_attempts_unfinished_run_is_replaced(root, params):
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    first = open_run(client, experiment, fake.trained(root, params)[1].journal)
    client.log_batch(first.info.run_id, epoch_metrics(fake.trained(root, params)[1].journal))
    fake.train(root, params, "vgg16")  # the training was broken off and begun anew
    track(root, params)
    run = runs(root, "current")["vgg16"]
    assert run.info.run_id != first.info.run_id
    assert len(client.get_metric_history(run.info.run_id, "epoch/loss")) == 5
    assert len(runs(root)) == 3


def test_runs_that_a_late_answer_left_are_deleted(root, params):
    track(root, params)
    before = fake_mlflow.everything(root)
    journal = fake.trained(root, params)[1].journal
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    for _ in range(2):
        tags = {"graft.key": journal.header["key"], "graft.started": journal.header["started"]}
        client.create_run(experiment, tags={**tags, "graft.state": "training", "model": "vgg16"}, run_name="vgg16")
    assert len(runs(root)) == 5
    assert track(root, params).new == 0
    assert fake_mlflow.everything(root) == before


def test_a_run_that_appears_while_the_call_lasts_is_deleted_at_its_end(root, params, monkeypatch):
    """As when the server creates a run, the answer is lost, and the client asks once more."""
    create, late = fake_mlflow.MlflowClient.create_run, []

    def twice(client, *arguments, **named):
        late.append(create(client, *arguments, **named))
        return create(client, *arguments, **named)

    monkeypatch.setattr(fake_mlflow.MlflowClient, "create_run", twice)
    track(root, params)
    assert len(late) == 3
    assert sorted(run.info.run_name for run in runs(root)) == sorted(NAMES)
    assert {run.data.tags["graft.complete"] for run in runs(root)} == {"true"}


def test_a_run_that_another_machine_deletes_meanwhile_is_its_to_keep(root, params, monkeypatch):
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    log_inputs, theirs = fake_mlflow.MlflowClient.log_inputs, []

    def interfere(own, run_id, *arguments):
        if not theirs:
            tags = {**client.get_run(run_id).data.tags, "graft.complete": "true"}
            theirs.append(client.create_run(experiment, 1, tags, "cnn").info.run_id)
            client.delete_run(run_id)
        return log_inputs(own, run_id, *arguments)

    monkeypatch.setattr(fake_mlflow.MlflowClient, "log_inputs", interfere)
    assert track(root, params).new == 2
    assert runs(root, "current")["cnn"].info.run_id == theirs[0]
    assert len(runs(root)) == 3


def age(root, run):
    """Make a run what it was before runs were published live: of no attempt, with less in it."""
    connection = sqlite3.connect(root / "mlflow.db")
    gone = ("graft.started", "graft.complete", "graft.report", "mlflow.note.content", "data")
    connection.execute(
        f"delete from tags where run_uuid = ? and key in ({','.join('?' * len(gone))})", (run.info.run_id, *gone)
    )
    connection.execute("delete from params where run_uuid = ? and key like 'layers.%'", (run.info.run_id,))
    connection.execute("delete from metrics where run_uuid = ? and key like 'system/%'", (run.info.run_id,))
    connection.execute("delete from latest_metrics where run_uuid = ? and key like 'system/%'", (run.info.run_id,))
    connection.execute(
        "update metrics set timestamp = ? where run_uuid = ? and key like 'epoch/%'",
        (run.info.end_time, run.info.run_id),
    )
    connection.commit()
    connection.close()
    folder = root / "mlartifacts" / run.info.run_id / "artifacts"
    shutil.rmtree(folder / "report")
    (folder / "predictions.parquet").unlink()


def test_runs_of_an_old_database_get_what_they_lack_and_nothing_twice(root, params):
    track(root, params)
    whole, models = fake_mlflow.content(root), fake_mlflow.everything(root)[1]
    for run in runs(root):
        age(root, run)
    aged = {run.info.run_name: run for run in runs(root)}
    assert fake_mlflow.content(root) != whole

    assert track(root, params).new == 0
    assert {name: run.info.run_id for name, run in runs(root, "current").items()} == {
        name: run.info.run_id for name, run in aged.items()
    }
    found = fake_mlflow.content(root)
    for name, run in whole.items():
        for part in ("params", "artifacts", "inputs", "models", "times", "nested"):
            assert found[name][part] == run[part]
        assert {(key, step, value) for key, step, _, value in found[name]["metrics"]} == {
            (key, step, value) for key, step, _, value in run["metrics"]
        }
        assert len(found[name]["metrics"]) == len(run["metrics"])
        assert set(run["tags"]) - set(found[name]["tags"]) == {"graft.started"}
    assert fake_mlflow.everything(root)[1] == models
    before = fake_mlflow.everything(root)
    track(root, params)
    assert fake_mlflow.everything(root) == before


def test_the_report_and_the_description_follow_the_comparison(root, params):
    track(root, params)
    before = {name: run.data.tags["mlflow.note.content"] for name, run in runs(root, "current").items()}
    fake.compare(root, params, "cnn", low=0.5)
    track(root, params)
    for name, run in runs(root, "current").items():
        path = fake_mlflow.client(root).download_artifacts(run.info.run_id, "report/index.html")
        assert Path(path).read_text() == "<!doctype html><title>cnn 0.5</title>"
        if name in ("cnn", "vgg16"):
            assert run.data.tags["mlflow.note.content"] != before[name]


def test_all_that_is_published_is_kept_before_a_server_is_asked(root, params, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError):
        track(root, params)
    kept, damaged = run_archive.archived(root)
    assert {run.name for run in kept} == set(NAMES)
    assert not damaged


def test_an_experiment_in_a_copy_adds_its_runs_and_leaves_the_project_alone(root, params, monkeypatch):
    track(root, params)
    before = fake_mlflow.everything(root)
    faster = fake.change(params, backbones__vgg16__finetune__learning_rate=0.5)
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    fake.train(root, faster, "vgg16")
    fake.compare(root, faster, "cnn", low=0.1)
    done = track(root, faster, detached=True)
    assert (done.new, done.version) == (1, None)
    run = runs(root, "experiment")["vgg16"]
    assert run.data.tags["dvc.experiment"] == "brisk-fox"
    assert set(before[0]) < set(fake_mlflow.everything(root)[0])
    assert fake_mlflow.everything(root)[1] == before[1]

    assert track(root, faster).new == 0  # the experiment was applied: its run becomes the project's
    assert runs(root, "current")["vgg16"].info.run_id == run.info.run_id


def test_an_own_store_is_honoured(root, params, migrated, monkeypatch):
    other = root / "elsewhere"
    other.mkdir()
    shutil.copy(migrated, other / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/own.db")
    assert track(root, params).uri == f"sqlite:///{other}/own.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert fake_mlflow.client(root).get_experiment_by_name("graft") is None


def test_a_server_that_does_not_answer_publishes_nothing_and_says_so(root, params, monkeypatch):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnreachableError, match=rf"no answer from MLflow at http://127.0.0.1:{port}$"):
        track(root, params)


@pytest.mark.slow
def test_two_calls_at_once_add_each_run_once(root, params):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import fake_tracked as fake\n"
        "from fake_runs import fake_params; from graft.tracking import publish\n"
        "root = pathlib.Path(sys.argv[1]); params = fake_params(1)\n"
        "print(publish(fake.trained(root, params), params, fake.project(root, params)).new)"
    )
    (root / "mlflow.db").unlink()  # so that both would create it, too
    command = [sys.executable, "-c", code, str(root), str(Path(__file__).parent)]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(int(process.communicate(timeout=120)[0]) for process in both) == [0, 3]
    assert len(runs(root)) == 3


def test_importing_it_imports_no_tensorflow():
    code = "import sys, graft.tracking; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_experiment_in_the_workspace_moves_nothing_until_the_project_has_its_models(root, params, monkeypatch):
    track(root, params)
    kept = runs(root, "current")
    registered = fake_mlflow.everything(root)[1]
    faster = fake.change(params, backbones__vgg16__finetune__learning_rate=0.5)
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    fake.train(root, faster, "vgg16")
    fake.compare(root, faster, "cnn", low=0.1)
    done = publish(fake.trained(root, faster), faster, read_project(faster, *FOLDERS))
    assert (done.new, done.version, done.alias) == (1, None, None)
    assert runs(root, "experiment")["vgg16"].data.tags["dvc.experiment"] == "brisk-fox"
    # The cache gave it cnn and vgg16-svm, which the project has too.
    assert {name: run.to_dictionary() for name, run in runs(root, "current").items()} == {
        name: run.to_dictionary() for name, run in kept.items()
    }
    assert fake_mlflow.everything(root)[1] == registered

    monkeypatch.delenv("DVC_EXP_NAME")  # the next plain `dvc repro`
    done = publish(fake.trained(root, faster), faster, read_project(faster, *FOLDERS))
    assert done.new == 0
    assert runs(root, "superseded")["vgg16"].info.run_id == kept["vgg16"].info.run_id
    assert set(runs(root, "current")) == set(NAMES)
    assert runs(root, "current")["cnn"].data.tags["champion"] == "true"


def test_an_interrupted_run_of_the_project_stays_its_own_in_an_experiment(root, params):
    with fake_mlflow.interrupted("set_terminated", 1):
        track(root, params)
    assert set(runs(root, "current")) == {"cnn"}
    assert track(root, params, detached=True).new == 3
    assert set(runs(root, "current")) == {"cnn"}
    assert set(runs(root, "experiment")) == {"vgg16", "vgg16-svm"}


def test_seconds_stay_those_of_the_training_that_the_run_is_of(root, params):
    track(root, params)
    fake.train(root, params, "cnn")  # by force: the same once more
    path = root / "reports" / "leaderboard.json"
    rows = [row | {"train_seconds": 9.0, "test_accuracy_low": 0.1} for row in json.loads(path.read_text())]
    path.write_text(json.dumps(rows))
    track(root, params)
    seconds = {name: run.data.metrics["train_seconds"] for name, run in runs(root, "current").items()}
    assert seconds == {"cnn": 1.5, "vgg16": 9.0, "vgg16-svm": 9.0}
    assert runs(root, "current")["cnn"].data.metrics["test_accuracy_low"] == 0.1


def test_all_kinds_of_models_are_compared_by_the_same_metrics(root, params):
    fake.compare(root, params, "vgg16", low=0.6)
    track(root, params)
    finals = {
        name: {metric for metric in run.data.metrics if not metric.startswith(("epoch/", "system/", "test_accuracy"))}
        for name, run in runs(root, "current").items()
    }
    assert finals["cnn"] == finals["vgg16"] == finals["vgg16-svm"] >= {"val_accuracy", "train_seconds", "parameters"}


@contextmanager
def killed_at_data_set(server, number):
    """The server dies where so many runs have got as far as their data set."""
    log_inputs, calls = fake_mlflow.MlflowClient.log_inputs, []

    def last(*arguments, **named):
        calls.append(arguments)
        if len(calls) == number:
            server.kill()
        return log_inputs(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_mlflow.MlflowClient, "log_inputs", last)
        yield


@contextmanager
def counted_requests():
    """What is asked of a server inside."""
    send, asked = requests.Session.send, []

    def counting(session, request, **named):
        asked.append(request.url)
        return send(session, request, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", counting)
        yield asked


@pytest.mark.slow
def test_long_trainings_are_told_over_http_whatever_becomes_of_the_server(root, params, monkeypatch, tmp_path):
    layers = [{"Conv2D": {"filters": 8, "kernel_size": 3, "padding": "same", "use_bias": False}}] * 60
    large = fake.change(params, baselines__cnn__layers=[*layers, {"Flatten": {}}])
    fake.train(root, large, "cnn", epochs={"scratch": 1500})
    fake.compare(root, large, "cnn")
    with RealServer(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with killed_at_data_set(server, 2), pytest.raises(UnreachableError):
            track(root, large)
        server.start()
        assert track(root, large).new == 2
        with counted_requests() as asked:
            assert track(root, large).new == 0
        assert len(asked) < 15
        client, experiment = connect(server.uri, "graft", root)
        found = {run.info.run_name: run for run in client.search_runs([experiment])}
        for model in fake.trained(root, large):
            run = found[model.name]
            told = [
                (point.key, point.step, point.timestamp, point.value)
                for name in run.data.metrics
                if name.startswith("epoch/")
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            points = epoch_metrics(model.journal)
            assert sorted(told) == sorted((point.key, point.step, point.timestamp, point.value) for point in points)
        assert sum(name.startswith("layers.") for name in found["cnn"].data.params) == 60 * 4 + 1
        assert len(found["cnn"].data.params) > 200
    with pytest.raises(UnreachableError):  # it is gone
        track(root, large)


def test_a_run_that_was_told_of_without_its_model_gets_it_once_the_project_has_it(root, params):
    models = fake.trained(root, params)
    gone = [replace(models[1], missing=[models[1].folder])]
    publish(gone, params, fake.project(root, params, detached=True))
    (run,) = runs(root)
    fake_mlflow.client(root).set_tag(run.info.run_id, "graft.missing", str(models[1].folder))  # as sync does
    assert not run.outputs.model_outputs
    for _ in range(2):
        assert track(root, params).version == "1"
    found = runs(root, "current")["vgg16"]
    assert found.info.run_id == run.info.run_id
    assert len(found.outputs.model_outputs) == 1
    assert "graft.missing" not in found.data.tags


def test_a_run_without_its_model_tag_stops_nothing(root, params):
    track(root, params)
    fake_mlflow.client(root).delete_tag(runs(root, "current")["cnn"].info.run_id, "model")
    fewer = fake.change(params, baselines={})
    fake.compare(root, fewer, "vgg16")
    assert track(root, fewer).new == 0
