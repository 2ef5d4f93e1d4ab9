import base64
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import fake_mlflow
import fake_tracked as fake
import pytest
import yaml
from fake_runs import fake_params
from tiny_models import write_facts

from graft import logged_models, pyfunc_model
from graft.images import decode
from graft.logged_models import log_model
from graft.mlflow_server import connect
from graft.storage import ArtifactError

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Metric, Param


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def model(tmp_path, migrated, monkeypatch):
    """One of a project with an empty MLflow."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = fake_params(1)
    fake.finished_project(tmp_path, params, "vgg16")
    (model,) = [each for each in fake.trained(tmp_path, params) if each.champion]
    write_facts(model.folder, temperature=1.5, abstain_below=0.5)
    return model


@pytest.fixture
def experiment(tmp_path, model):
    return connect(fake_mlflow.default_tracking_uri(tmp_path), "graft", tmp_path)[1]


@pytest.fixture
def run(experiment, model):
    client = MlflowClient()
    run = client.create_run(experiment)
    metrics = [Metric(name, value, 1000, 0) for name, value in model.metrics.items()]
    metrics += [Metric("epoch/loss", 0.5, 1000, 1), Metric("system/memory", 0.5, 1000, 0)]
    client.log_batch(run.info.run_id, metrics, [Param("seed", "1")])
    return run


SERVE = fake_params(1).serve


def log(experiment, run, model):
    """The folder in which MLflow keeps the model."""
    log_model(experiment, run.info.run_id, model, SERVE)
    (logged,) = MlflowClient().search_logged_models([experiment])
    return logged, Path(logged.artifact_location.removeprefix("file://"))


def test_a_logged_model_says_what_it_takes_and_gives_and_of_which_classes(experiment, run, model):
    logged, folder = log(experiment, run, model)
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["metadata"] == {
        **{"model": "vgg16", "kind": "finetune", "classes": list(fake.CLASSES), "temperature": 1.5},
        **{"abstain_below": 0.5, "image_size": 8, "resize": "stretch"},
    }
    assert json.loads(about["signature"]["inputs"]) == [{"type": "any", "required": True}]
    (answer,) = json.loads(about["signature"]["outputs"])
    assert {name: each["type"] for name, each in answer["properties"].items()} == {
        **{"class": "string", "probability": "double", "probabilities": "map", "abstain": "boolean"}
    }
    assert about["flavors"]["python_function"]["config"] == {
        **{"max_images": SERVE.max_images, "max_image_mb": SERVE.max_image_mb, "max_pixels": SERVE.max_pixels}
    }
    assert about["model_id"] == logged.model_id
    assert (logged.status, logged.tags["model"], logged.tags["kind"]) == ("READY", "vgg16", "finetune")


def test_the_input_example_is_a_picture_in_both_of_mlflows_forms(experiment, run, model):
    _, folder = log(experiment, run, model)
    example = json.loads((folder / "input_example.json").read_text())
    assert json.loads((folder / "serving_input_example.json").read_text()) == {"inputs": example}
    (image,) = example
    pixels = decode(base64.b64decode(image, validate=True))
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 0].tolist() == [0, 0, 128]
    assert pixels[0, 31].tolist() == [255, 0, 128]
    assert len(image) < 1000


def test_the_run_lists_its_model_which_has_the_runs_final_metrics_and_params(experiment, run, model):
    logged, _ = log(experiment, run, model)
    client = MlflowClient()
    again = client.get_run(run.info.run_id)
    assert logged_models.logged_models(again) == [logged.model_id]
    assert {metric.key: metric.value for metric in logged.metrics} == dict(model.metrics)
    assert logged.params == {"seed": "1"}
    for name in again.data.metrics:  # not once more for the run
        assert len(client.get_metric_history(run.info.run_id, name)) == 1
    assert again.data.params == {"seed": "1"}


@pytest.mark.parametrize("call", ["log_model_artifacts", "finalize_logged_model", "log_outputs"])
def test_what_an_interrupted_call_leaves_is_deleted_and_a_whole_model_is_not(experiment, run, model, monkeypatch, call):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    client, run_id = MlflowClient(), run.info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            log_model(experiment, run_id, model, SERVE)
    assert logged_models.logged_models(client.get_run(run_id)) == []
    assert len(client.search_logged_models([experiment])) == 1
    log_model(experiment, run_id, model, SERVE)
    logged_models.delete_unfinished(client, experiment, run_id)
    (logged,) = client.search_logged_models([experiment])
    assert logged_models.logged_models(client.get_run(run_id)) == [logged.model_id]


def test_a_model_without_its_calibration_is_refused(experiment, run, model):
    (model.folder / "calibration.json").unlink()
    with pytest.raises(ArtifactError, match=r"calibration.json is missing"):
        log_model(experiment, run.info.run_id, model, SERVE)


def test_the_code_is_this_package_and_an_svm_brings_its_base(experiment, run, model, tmp_path):
    source = tmp_path / "models" / "source" / "vgg16"
    _, folder = log(experiment, run, replace(model, source=source))
    package = Path(pyfunc_model.__file__).parent
    logged = {path.relative_to(folder / "code" / "graft") for path in (folder / "code" / "graft").rglob("*.py")}
    assert logged == {path.relative_to(package) for path in package.rglob("*.py")}
    assert not list(folder.rglob("__pycache__"))
    artifacts = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]["artifacts"]
    assert set(artifacts) == {"model", "source"}
    assert (folder / artifacts["source"]["path"] / "card.json").exists()
    assert (folder / artifacts["model"]["path"] / "classes.json").exists()


def test_requirements_are_pinned_to_what_is_installed(experiment, run, model):
    _, folder = log(experiment, run, model)
    lines = (folder / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines)
    assert lines == [f"mlflow=={version('mlflow')}", *logged_models.requirements()]
    assert {"tensorflow", "tensorflow-cpu"} & set(pins)
    assert pins["skops"] == version("skops")


LOGGED = """\
import sys, json
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fake_tracked as fake
from fake_runs import fake_params
from graft.logged_models import log_model
from graft.mlflow_server import connect, default_tracking_uri
root, params = Path.cwd(), fake_params(1)
client, experiment = connect(default_tracking_uri(root), "graft", root)
model = [each for each in fake.trained(root, params) if each.champion][0]
log_model(experiment, client.create_run(experiment).info.run_id, model, params.serve)
sys.exit(any(name in sys.modules for name in ("tensorflow", "keras", "sklearn")))
"""


@pytest.mark.slow
def test_logging_imports_no_tensorflow_and_says_nothing(model):
    command = [sys.executable, "-c", LOGGED, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
