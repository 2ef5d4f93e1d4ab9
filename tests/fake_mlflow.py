"""MLflow for a project of fake_tracked: quick to have, and looked at as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_tracked import TRACKING

from graft.mlflow_server import default_tracking_uri
from graft.operation_sections import Serve
from graft.trained import TrainedModel

# isort: split
import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Run


def empty_database(folder: Path) -> Path:
    """MLflow's database before anything is logged; made once in a folder, since its migrations take seconds."""
    path = folder / "migrated" / "mlflow.db"
    if not path.exists():
        path.parent.mkdir()
        MlflowClient(default_tracking_uri(path.parent)).search_experiments()
    return path


def log_light_model(experiment: str, run_id: str, model: TrainedModel, limits: Serve) -> None:
    """In place of logged_models' own: a model without files, which take as long as all the rest."""
    logged = mlflow.initialize_logged_model("model", source_run_id=run_id, experiment_id=experiment)
    MlflowClient().finalize_logged_model(logged.model_id, "READY")
    MlflowClient().log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])


def client(root: Path) -> MlflowClient:
    """Of the project's own database."""
    return MlflowClient(default_tracking_uri(root))


def all_runs(root: Path, name: str = TRACKING.experiment) -> list[Run]:
    """What MLflow holds of the project in an experiment, of models and of what is under them."""
    experiment = client(root).get_experiment_by_name(name)
    return list(client(root).search_runs([experiment.experiment_id]))


def content(root: Path, experiment: str = TRACKING.experiment) -> dict[str, Any]:
    """All that MLflow tells of each model's run, by name, with those under it; without ids, which it makes up."""
    runs = all_runs(root, experiment)
    models = {run.info.run_name: run for run in runs if "graft.key" in run.data.tags}
    assert len(models) == sum("graft.key" in run.data.tags for run in runs)
    under: dict[str, list[Any]] = {}
    for run in sorted(runs, key=lambda run: str(run.info.run_name)):
        under.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(_content(root, run))
    return {name: {**_content(root, run), "nested": under.get(run.info.run_id, [])} for name, run in models.items()}


def _content(root: Path, run: Run) -> dict[str, Any]:
    tags = {name: value.replace(run.info.run_id, "ID") for name, value in run.data.tags.items()}
    inputs = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
    query = f"source_run_id = '{run.info.run_id}'"
    return {
        "name": run.info.run_name,
        "times": (run.info.status, run.info.start_time, run.info.end_time),
        "tags": {name: value for name, value in tags.items() if name != "mlflow.parentRunId"},
        "params": run.data.params,
        "metrics": points(root, run),
        "artifacts": sorted(artifacts(root, run)),
        "inputs": inputs,
        "models": [one.status for one in client(root).search_logged_models([run.info.experiment_id], query)],
    }


def points(root: Path, run: Run) -> list[tuple[str, int, int, float]]:
    """Every row of every metric of a run."""
    return sorted(
        (name, point.step, point.timestamp, point.value)
        for name in run.data.metrics
        for point in client(root).get_metric_history(run.info.run_id, name)
    )


def artifacts(root: Path, run: Run, folder: str | None = None) -> dict[str, int]:
    """Sizes of a run's artifacts in whatever folder, by path."""
    sizes: dict[str, int] = {}
    for item in client(root).list_artifacts(run.info.run_id, folder):
        sizes |= artifacts(root, run, item.path) if item.is_dir else {item.path: item.file_size}
    return sizes


@contextmanager
def interrupted(call: str, number: int) -> Iterator[None]:
    """The so-many-th call of a method of MLflow's client is the last thing that happens inside."""
    real, calls = getattr(MlflowClient, call), []

    def last(*arguments: Any, **named: Any) -> Any:
        answer = real(*arguments, **named)
        calls.append(call)
        if len(calls) == number:
            raise KeyboardInterrupt
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, call, last)
        with pytest.raises(KeyboardInterrupt):
            yield


def everything(root: Path) -> tuple[Any, ...]:
    """All that MLflow holds, but for the last time that a thing was looked at or touched without change."""
    versions, models = client(root).search_model_versions(), client(root).search_registered_models()
    return (
        sorted((run.info.run_id, json.dumps(run.to_dictionary(), sort_keys=True)) for run in all_runs(root)),
        [(version.version, version.run_id, version.tags) for version in versions] + [model.aliases for model in models],
        sorted(str(path) for path in (root / "mlartifacts").rglob("*")),
    )
