"""How MLflow's pages show the runs of the project at first: each model with its figures, the best on top."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graft.mlflow_server import MlflowClient

COLUMNS = (
    *("metrics.`val_accuracy`", "metrics.`val_accuracy_low`", "metrics.`val_accuracy_high`", "metrics.`test_accuracy`"),
    *("metrics.`latency_ms`", "metrics.`parameters`", "tags.`champion`"),
)
VIEW = "models"
# MLflow's own name for a view that its page was asked to share; without it the table has no metric.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def view_tags() -> dict[str, str]:
    """Tags of an experiment that hold the view."""
    view = {
        "selectedColumns": list(COLUMNS),
        "orderByKey": COLUMNS[0],
        "orderByAsc": False,
        "searchFilter": "tags.`graft.state` = 'current' and tags.`graft.key` != ''",  # not the runs under them
    }
    return {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: json.dumps(view)}


def runs_page(client: MlflowClient, name: str) -> str:
    """The page's path with its fragment; the start page where there is no such experiment yet."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return "/"
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in experiment.tags else ""
    return f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning{view}"
