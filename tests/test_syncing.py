import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cached_project
import fake_mlflow
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft import run_parts, syncing
from graft.calibration import Calibration, write_calibration
from graft.errors import GraftError
from graft.mlflow_server import UnreachableError
from graft.tracking import publish
from graft.trained import read_project

NAMES = ("cnn", "vgg16", "vgg16-svm")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, migrated, params, monkeypatch):
    """A finished project that no server was told of, in a folder whose name needs quoting in addresses."""
    root = tmp_path / "a project"
    root.mkdir()
    monkeypatch.chdir(root)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    cached_project.finish(root, params, "vgg16")
    shutil.copy(migrated, root / "mlflow.db")
    return root


@pytest.fixture(autouse=True)
def light_models(request, monkeypatch):
    """Models logged without files, which take as long as all the rest."""
    if "real_models" not in request.fixturenames:
        monkeypatch.setattr(run_parts, "log_model", fake_mlflow.log_light_model)


@pytest.fixture
def real_models():
    """Models logged with their files."""


@pytest.fixture
def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def track(params):
    """As the last stage of `dvc repro`."""
    project = read_project(params, Path("data/prepared"), Path("reports/data"))
    return publish(fake.trained(Path.cwd(), params), params, project)


def retrain(root, params, **values):
    """Another training of vgg16, which leads the leaderboard, in the cache and in the working directory."""
    changed = fake.change(params, **values)
    fake.train(root, changed, "vgg16")
    fake.compare(root, changed, "vgg16", low=0.55)
    cached_project.keep(root, changed)
    return changed


def empty_server(root, migrated):
    shutil.copy(migrated, root / "mlflow.db")
    shutil.rmtree(root / "mlartifacts", ignore_errors=True)


def runs(root):
    """Of models, by name and state."""
    found = [run for run in fake_mlflow.all_runs(root) if "graft.key" in run.data.tags]
    by_name = {(run.info.run_name, run.data.tags["graft.state"]): run for run in found}
    assert len(by_name) == len(found)
    return by_name


def content(root):
    """All that there is of each run, without what depends on when it was told."""
    found = {}
    for (name, state), run in runs(root).items():
        tags = {name: value.replace(run.info.run_id, "ID") for name, value in run.data.tags.items()}
        under = fake_mlflow.client(root).search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
        found[name, state] = {
            "tags": tags,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "curves": [point for point in fake_mlflow.points(root, run) if "/" in point[0]],
            "artifacts": fake_mlflow.artifacts(root, run),
            "times": (run.info.status, run.info.start_time, run.info.end_time),
            "data": [one.dataset.digest for one in run.inputs.dataset_inputs],
            "models": len(run.outputs.model_outputs),
            "under": sorted((one.info.run_name, one.data.tags["graft.state"]) for one in under),
        }
    return found


def test_an_empty_server_hears_of_all_runs_that_the_old_one_had(root, params, migrated):
    fake.train(root, params, "vgg16", candidates=fake.grid(2))
    cached_project.keep(root, params)
    track(params)
    faster = retrain(root, params, backbones__vgg16__finetune__learning_rate=0.5)
    track(faster)
    fewer = fake.change(faster, baselines={})
    fake.compare(root, fewer, "vgg16", low=0.55)
    cached_project.keep(root, fewer)
    track(fewer)
    before = content(root)
    assert set(before) == {
        *{("cnn", "removed"), ("vgg16", "superseded")},
        *{("vgg16", "current"), ("vgg16-svm", "current")},
    }
    assert before["vgg16", "superseded"]["under"] == [("head-01", "superseded"), ("head-02", "superseded")]

    empty_server(root, migrated)
    said = syncing.sync()
    assert said == f"sync: 4 runs, 0 were there, 4 created, 0 completed at sqlite:///{root}/mlflow.db"
    assert content(root) == before
    champion = fake_mlflow.client(root).get_model_version_by_alias("graft", "champion")
    assert champion.run_id == runs(root)["vgg16", "current"].info.run_id

    everything = fake_mlflow.everything(root)
    assert "sync: 4 runs, 4 were there, 0 created, 0 completed" in syncing.sync()
    assert fake_mlflow.everything(root) == everything


def test_an_experiment_of_a_deleted_copy_is_told_of_when_the_server_is_back(
    root, params, tmp_path, monkeypatch, closed_port
):
    track(params)
    versions = fake_mlflow.everything(root)[1]
    lock = (root / "dvc.lock").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    changed = retrain(root, params, backbones__vgg16__finetune__learning_rate=0.5)
    copy = shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".dvc", "mlflow.db"))
    with monkeypatch.context() as inside:
        inside.setenv("DVC_ROOT", str(root))
        inside.chdir(copy)
        with pytest.raises(UnreachableError):
            track(changed)
    shutil.rmtree(copy)
    for name in ("models", "reports"):
        shutil.rmtree(root / name)
    with pytest.raises(UnreachableError, match=rf"no answer from MLflow at {closed_port}; nothing is lost, run"):
        syncing.sync()

    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name)
    (root / "dvc.lock").write_bytes(lock)
    fake.finished_project(root, params, "vgg16")  # another attempt: the same, trained later
    cached_project.keep(root, params)
    said = syncing.sync()
    assert "sync: 4 runs, 3 were there, 1 created, 0 completed" in said
    run = runs(root)["vgg16", "experiment"]
    assert run.data.tags["dvc.experiment"] == "brisk-fox"
    assert run.data.tags["graft.complete"] == "true"
    assert run.data.params["finetune.learning_rate"] == "0.5"
    assert "graft.missing" not in run.data.tags
    assert {"journal.jsonl", "predictions.parquet", "report/index.html", "figures/curves.svg"} < set(
        fake_mlflow.artifacts(root, run)
    )
    assert len(run.outputs.model_outputs) == 1
    assert fake_mlflow.everything(root)[1] == versions  # no alias moved
    everything = fake_mlflow.everything(root)
    syncing.sync()
    assert fake_mlflow.everything(root) == everything


def test_a_run_whose_model_is_not_in_the_cache_is_told_of_without_and_completed_later(root, params, migrated, capsys):
    track(params)
    cached_project.forget(root, "models/vgg16")
    faster = retrain(root, params, backbones__vgg16__finetune__learning_rate=0.5)
    track(faster)
    before = content(root)
    empty_server(root, migrated)
    assert "4 created, 0 completed, 1 without a model, which DVC's cache does not have at" in syncing.sync()
    assert re.search(r"sync: vgg16 of 20\S+, without models/vgg16\n", capsys.readouterr().out)
    run = runs(root)["vgg16", "superseded"]
    assert run.data.tags["graft.missing"] == "models/vgg16"
    assert run.info.status == "FINISHED"
    assert not run.outputs.model_outputs
    expected = before["vgg16", "superseded"]
    assert content(root)["vgg16", "superseded"]["curves"] == expected["curves"]
    everything = fake_mlflow.everything(root)
    assert "4 were there, 0 created, 0 completed, 1 without a model" in syncing.sync()
    assert fake_mlflow.everything(root) == everything

    cached_project.remember(root)
    assert syncing.sync().startswith("sync: 4 runs, 3 were there, 0 created, 1 completed at")
    assert content(root) == before


def test_a_damaged_run_is_named_and_the_others_are_told_of(root, params, capsys):
    track(params)
    faster = retrain(root, params, backbones__vgg16__finetune__learning_rate=0.5)
    track(faster)
    record = root / ".store" / "runs" / runs(root)["vgg16", "superseded"].data.tags["graft.key"] / "record.json"
    record.write_text("{}")
    assert "sync: 3 runs, 3 were there" in syncing.sync()
    assert f"sync: a run of the archive is left out: {record} is damaged: schema: Field required" in (
        capsys.readouterr().out
    )


def test_a_run_that_broke_off_is_completed(root, params):
    with fake_mlflow.interrupted("log_batch", 4):
        track(params)
    assert syncing.sync().startswith("sync: 3 runs, ")
    assert set(runs(root)) == {(name, "current") for name in NAMES}
    assert all(run.data.tags["graft.complete"] == "true" for run in runs(root).values())


def test_without_a_finished_pipeline_the_archive_is_told_of(root, params, migrated, capsys):
    track(params)
    shutil.rmtree(root / "reports" / "runs")  # `make clean`
    empty_server(root, migrated)
    assert "sync: 3 runs, 0 were there, 3 created" in syncing.sync()
    assert "has no finished pipeline, so the archive's runs alone: reports/runs/cnn/journal.jsonl is missing" in (
        capsys.readouterr().out
    )
    assert set(runs(root)) == {(name, "superseded") for name in NAMES}


def test_a_database_named_from_the_working_directory_on_is_that_one(root, params, migrated, monkeypatch):
    track(params)
    (root / "models" / "cnn").rename(root / "kept")
    shutil.rmtree(root / "reports" / "runs")
    shutil.copy(migrated, root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert f"3 created, 0 completed at sqlite:///{root}/other.db" in syncing.sync()


def test_a_folder_that_is_no_project_is_refused(tmp_path, root, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(GraftError, match=r"params.yaml does not exist; run from the project's top folder"):
        syncing.sync()
    shutil.copy(root / "params.yaml", "params.yaml")
    with pytest.raises(GraftError, match=r"empty/dvc.yaml must have a stage track; run from the project's top folder"):
        syncing.sync()


def test_a_logged_model_from_the_archive_has_its_files(root, params, migrated, real_models):
    for name in params.models():
        write_calibration(root / "models" / name, Calibration(1.0, 0.5, 0.99))
    cached_project.keep(root, params)
    track(params)
    shutil.rmtree(root / "models")
    shutil.rmtree(root / "reports" / "runs")
    empty_server(root, migrated)
    syncing.sync()
    run = runs(root)["vgg16-svm", "superseded"]
    (output,) = run.outputs.model_outputs
    stored = fake_mlflow.client(root).get_logged_model(output.model_id).artifact_location.removeprefix("file://")
    files = {path.relative_to(stored).as_posix() for path in Path(stored).rglob("*") if path.is_file()}
    assert {"artifacts/vgg16-svm/weights", "artifacts/vgg16/card.json"} < files


@pytest.mark.slow
def test_two_calls_at_once_create_each_run_once(root, params, migrated):
    track(params)
    shutil.rmtree(root / "reports" / "runs")
    empty_server(root, migrated)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fake_mlflow\n"
        "from graft import run_parts, syncing; run_parts.log_model = fake_mlflow.log_light_model\n"
        "print(syncing.sync())"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    both = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "sync: 3 runs, " in output
    assert set(runs(root)) == {(name, "superseded") for name in NAMES}
