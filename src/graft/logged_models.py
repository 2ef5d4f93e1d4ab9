"""Trained models to MLflow's logged models: a pyfunc with all it needs to load and answer anywhere."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from graft.mlflow_server import MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, Metric, Run
from mlflow.models import Model
from PIL import Image

from graft import pyfunc_model
from graft.calibration import read_calibration
from graft.faults import reached
from graft.operation_sections import Serve
from graft.storage import read_json
from graft.trained import TrainedModel

NAME, EXAMPLE_SIDE = "model", 32  # px
DISTRIBUTIONS = (  # what a model imports when it is loaded, directly or through others; MLflow adds itself
    *("tensorflow", "tensorflow-cpu", "keras", "numpy", "pandas", "pillow", "pydantic", "scipy"),
    *("scikit-learn", "skops", "joblib", "threadpoolctl"),
)
ADVICE = ("Any type hint is inferred as AnyType", "Decorate your function with")
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"  # MLflow's names


def log_model(experiment: str, run_id: str, model: TrainedModel, limits: Serve) -> None:
    """Log the model as a pyfunc that carries this package along, so that it loads wherever MLflow does.

    It is READY when it is whole, and the run lists it last. Nothing is predicted, for that takes TensorFlow.

    Args:
        experiment: id of the run's experiment.
        run_id: of the run, whose params and final metrics the logged model gets too.
        model: on the disk.
        limits: the model's defaults; whoever loads it may give others.

    Raises:
        ArtifactError: a file of the model is missing or damaged.
    """
    client = MlflowClient()
    run, tags = client.get_run(run_id), {"model": model.name, "kind": str(model.journal.header["kind"])}
    logged = client.create_logged_model(experiment, NAME, run_id, tags, run.data.params)
    reached("publish entry of the model")
    with tempfile.TemporaryDirectory() as temporary:
        about = Model(run_id=run_id, artifact_path=logged.artifact_location, model_id=logged.model_id)
        about.model_uuid = logged.model_id
        _save(Path(temporary) / NAME, about, model, limits)
        client.log_model_artifacts(logged.model_id, str(Path(temporary) / NAME))
    reached("publish files of the model")
    final = [
        # The same moment as in the run, where it would be counted twice otherwise.
        Metric(one.key, one.value, one.timestamp, one.step, model_id=logged.model_id, run_id=run_id)
        for one in run.data.to_proto().metrics
        if one.key in model.metrics
    ]
    client.log_batch(run_id, final)
    reached("publish metrics of the model")
    client.finalize_logged_model(logged.model_id, "READY")
    reached("publish readiness of the model")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])


def _save(folder: Path, about: Model, model: TrainedModel, limits: Serve) -> None:
    """Write the model as MLflow keeps it."""
    source = {"source": str(model.source)} if model.source else {}
    with _without_advice():
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=about,
            python_model=pyfunc_model.__file__,
            artifacts={"model": str(model.folder), **source},
            code_paths=[str(Path(pyfunc_model.__file__).parent)],
            pip_requirements=requirements(),
            model_config=limits.model_dump(include={"max_images", "max_image_mb", "max_pixels"}),
            metadata=_facts(model),
        )
    # Not by save_model, which would load the model to predict it.
    _write(folder / EXAMPLE, example := [_example_image()])
    _write(folder / SERVING_EXAMPLE, {"inputs": example})
    about.saved_input_example_info = {
        "artifact_path": EXAMPLE,
        "serving_input_path": SERVING_EXAMPLE,
        "type": "json_object",
    }
    about.save(folder / "MLmodel")


@contextmanager
def _without_advice() -> Iterator[None]:
    """Nothing is shown of what MLflow says about types that it cannot check, since served_images.py does.

    Its own filters go before others, so that its warnings are collected instead.
    """
    with warnings.catch_warnings(record=True) as collected:
        yield
    for one in collected:
        if not any(advice in str(one.message) for advice in ADVICE):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _facts(model: TrainedModel) -> dict[str, Any]:
    """What there is to know of the model without loading it."""
    calibration = read_calibration(model.folder)
    return {
        "model": model.name,
        "kind": model.journal.header["kind"],
        "classes": read_json(model.folder / "classes.json"),
        **read_json(model.folder / "input.json"),
        "temperature": calibration.temperature,
        "abstain_below": calibration.abstain_below,
    }


def _example_image() -> str:
    """A small picture, as base64 of a PNG: red grows to the right, green downwards."""
    ramp = np.linspace(0, 255, EXAMPLE_SIDE).round().astype(np.uint8)
    across, down = np.meshgrid(ramp, ramp)
    file = io.BytesIO()
    Image.fromarray(np.stack([across, down, np.full_like(across, 128)], axis=2)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def requirements() -> list[str]:
    """What an environment must hold to load a model, at the versions installed here."""
    versions = {}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):  # of the two TensorFlows one alone is installed
            versions[name] = metadata.version(name)
    return [f"{name}=={version}" for name, version in versions.items()]


def logged_models(run: Run) -> list[str]:
    """The ids of the run's logged models, which are whole."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def delete_unfinished(client: MlflowClient, experiment: str, run_id: str) -> None:
    """Delete the logged models of a run that it does not list, which interrupted calls of log_model left."""
    whole = logged_models(client.get_run(run_id))
    for logged in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if logged.model_id not in whole:
            client.delete_logged_model(logged.model_id)
