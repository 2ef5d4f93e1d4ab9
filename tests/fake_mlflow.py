"""MLflow for a project of fake_tracked: quick to have, and looked at as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_tracked import TRACKING

from graft.mlflow_server import default_tracking_uri
from graft.trained import TrainedModel

# isort: split
import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Run


def empty_database(folder: Path) -> Path:
    """MLflow's database before anything is logged; made once in a folder, since its migrations take seconds."""
    path = folder / "migrated" / "mlflow.db"
    if not path.exists():
        path.parent.mkdir()
        MlflowClient(default_tracking_uri(path.parent)).search_experiments()
    return path


def log_light_model(experiment: str, run_id: str, model: TrainedModel) -> None:
    """In place of tracking's own: a model without files, which take as long as all the rest."""
    logged = mlflow.initialize_logged_model("model", source_run_id=run_id, experiment_id=experiment)
    MlflowClient().log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    final = [
        Metric(name, value, 0, 0, model_id=logged.model_id, run_id=run_id) for name, value in model.metrics.items()
    ]
    MlflowClient().log_batch(run_id, final)


def client(root: Path) -> MlflowClient:
    """Of the project's own database."""
    return MlflowClient(default_tracking_uri(root))


def all_runs(root: Path) -> list[Run]:
    """What MLflow holds of the project, of models and of candidates."""
    experiment = client(root).get_experiment_by_name(TRACKING.experiment)
    return list(client(root).search_runs([experiment.experiment_id]))


def everything(root: Path) -> tuple[Any, ...]:
    """All that MLflow holds, but for the last time that a thing was looked at or touched without change."""
    versions = client(root).search_model_versions()
    return (
        sorted((run.info.run_id, json.dumps(run.to_dictionary(), sort_keys=True)) for run in all_runs(root)),
        [(version.version, version.run_id, version.aliases) for version in versions],
        sorted(str(path) for path in (root / "mlartifacts").rglob("*")),
    )
