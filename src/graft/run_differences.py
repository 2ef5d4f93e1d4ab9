"""What the runs of two workspaces differ in, as each one's own MLflow database holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError
from graft.file_differences import is_excluded, value_difference
from graft.mlflow_server import MOST_RUNS, MlflowClient, default_tracking_uri
from graft.params import load_params
from graft.workspace_differences import METRICS, TAGS, excluded_fields

if TYPE_CHECKING:
    from mlflow.entities import Run


def run_differences(left: Path, right: Path) -> Iterator[str]:
    """The first difference of each run, by the keys of the trainings and the names below them, and of the registry.

    A training that one database holds twice, and the other once, differs.

    Args:
        left: a workspace with a database; its params.yaml names the experiment.
        right: another one.

    Raises:
        GraftError: a workspace has no database, or no such experiment.
    """
    experiment = load_params(left / "params.yaml").tracking.experiment
    one, other = (_held(root, experiment) for root in (left, right))
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            yield f"MLflow, {name}: only in {left if name in one else right}"
        elif found := value_difference(one[name], other[name]):
            yield f"MLflow, {name}: {found}"


def _held(root: Path, experiment: str) -> dict[str, Any]:
    """What a database holds, by what people call it: runs as lists of all that have that name, and the registry."""
    if not (root / "mlflow.db").exists():
        raise GraftError(f"{root}/mlflow.db is missing; `dvc repro` makes it where tracking has no other server")
    client = MlflowClient(default_tracking_uri(root))
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise GraftError(f"{root}/mlflow.db must hold the experiment {experiment!r}, received one without it")
    runs = {run.info.run_id: run for run in client.search_runs([found.experiment_id], max_results=MOST_RUNS)}
    names = {run_id: _name(run, runs) for run_id, run in runs.items()}
    held: dict[str, Any] = {}
    for run_id, run in runs.items():
        held.setdefault(names[run_id], []).append(_content(client, run))
    for described in held.values():
        described.sort(key=str)
    return held | {"registry": _versions(client, names)}


def _name(run: Run, runs: Mapping[str, Run]) -> str:
    """Of a model's run its name and key, of one under it the model's and its own."""
    parent = runs.get(run.data.tags.get("mlflow.parentRunId", ""))
    above = "" if parent is None else f"{_name(parent, runs)}, "
    key = run.data.tags.get("graft.key")
    return f"{above}run {run.info.run_name}" + (f" of key {key[:12]}" if key else "")


def _content(client: MlflowClient, run: Run) -> dict[str, Any]:
    metrics = [name for name in sorted(run.data.metrics) if not is_excluded(name, excluded_fields(METRICS))]
    tags = [name for name in sorted(run.data.tags) if not is_excluded(name, excluded_fields(TAGS))]
    points = {name: client.get_metric_history(run.info.run_id, name) for name in metrics}
    return {
        "status": run.info.status,
        "params": dict(sorted(run.data.params.items())),
        "metrics": {name: sorted([point.step, point.value] for point in points[name]) for name in metrics},
        "tags": {name: run.data.tags[name] for name in tags},
        "data": [one.dataset.digest for one in run.inputs.dataset_inputs] if run.inputs else [],
        "models": len(run.outputs.model_outputs) if run.outputs else 0,
        "files": _files(client, run.info.run_id, None),
    }


def _files(client: MlflowClient, run_id: str, folder: str | None) -> list[str]:
    listed = client.list_artifacts(run_id, folder)
    below = [name for one in listed if one.is_dir for name in _files(client, run_id, one.path)]
    return sorted([*(one.path for one in listed if not one.is_dir), *below])


def _versions(client: MlflowClient, names: Mapping[str, str]) -> list[dict[str, Any]]:
    found = [client.get_model_version(one.name, one.version) for one in client.search_model_versions()]
    return [
        {
            "model": one.name,
            "version": int(one.version),
            "run": names.get(one.run_id, "of no run"),
            "aliases": sorted(one.aliases),
        }
        for one in sorted(found, key=lambda one: (one.name, int(one.version)))
    ]
