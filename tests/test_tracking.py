import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import fake_mlflow
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft import tracking
from graft.tracking import UnreachableError, publish

NAMES = ("cnn", "vgg16", "vgg16-svm")


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
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    fake.finished_project(root, params, "vgg16")
    return root


@pytest.fixture(autouse=True)
def light_models(request, monkeypatch):
    """Models logged without files, which take as long as all the rest; test_serving.py loads real ones."""
    if "real_models" in request.fixturenames:
        return
    monkeypatch.setattr(tracking, "_log_model", fake_mlflow.log_light_model)


@pytest.fixture
def real_models():
    """Models logged with their files."""


def track(root, params, **changes):
    return publish(fake.trained(root, params), fake.TRACKING, fake.project(root, params, **changes))


def runs(root, state=None):
    chosen = [run for run in fake_mlflow.all_runs(root) if state in (None, run.data.tags["graft.state"])]
    return {run.info.run_name: run for run in chosen} if state else chosen


def test_each_model_becomes_one_finished_run_with_all_that_is_known_of_it(root, params):
    done = track(root, params)
    assert (done.new, done.version, done.uri) == (3, "1", f"sqlite:///{root}/mlflow.db")
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
    assert run.data.tags["dvc.md5.data/prepared"] == fake.MD5
    assert not [name for name in run.data.tags if name.endswith(".py") or name == "dvc.experiment"]
    assert run.data.params["finetune.learning_rate"] == str(params.backbones["vgg16"].finetune.learning_rate)
    assert run.data.params["base.application"] == "VGG16"
    assert found["vgg16-svm"].data.params["svm.kernels"] == '["rbf", "linear"]'
    assert run.data.params["unfrozen_from_epoch"] == "3"
    assert json.loads(found["cnn"].data.params["layers"])[0] == {"Rescaling": {"scale": 0.00392156862745098}}
    assert {
        name: run.data.metrics[name] for name in ("val_accuracy", "test_accuracy", "parameters", "train_seconds")
    } == {**{"val_accuracy": 0.75, "test_accuracy": 0.7, "parameters": 1001, "train_seconds": 1.5}}
    history = fake_mlflow.client(root).get_metric_history(run.info.run_id, "epoch/val_loss")
    assert [(metric.step, metric.value) for metric in history] == [(n, 2.1 / n) for n in range(1, 6)]

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
        assert listed == {"journal.jsonl", "figures"} | ({"search.csv"} if name == "vgg16-svm" else set())
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


def test_a_run_that_an_interrupted_call_left_is_replaced(root, params, monkeypatch):
    log_model, calls = tracking._log_model, []

    def interrupted(*arguments):
        calls.append(arguments)
        log_model(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "_log_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        track(root, params)
    assert sorted(run.info.status for run in runs(root)) == ["FINISHED", "RUNNING"]
    assert track(root, params).new == 2
    assert [run.info.status for run in runs(root)] == ["FINISHED"] * 3
    assert len(fake_mlflow.client(root).search_logged_models([runs(root)[0].info.experiment_id])) == 3


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
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
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
        "print(publish(fake.trained(root, params), fake.TRACKING, fake.project(root, params)).new)"
    )
    (root / "mlflow.db").unlink()  # so that both would create it, too
    command = [sys.executable, "-c", code, str(root), str(Path(__file__).parent)]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(int(process.communicate(timeout=120)[0]) for process in both) == [0, 3]
    assert len(runs(root)) == 3


def test_importing_it_imports_no_tensorflow():
    code = "import sys, graft.tracking; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
