"""Journals to MLflow: one run for each trained model, however often it is told so.

A run is known by its journal's key: the same command, params and inputs are the same run, also where a stage was forced
to run again. Its tag graft.state says whether the project still has it: `current`,
`superseded` by a newer run of the same model, `removed` with the model's row of params.yaml, or of an `experiment`
that ran in a copy of the project. Projects that share a server therefore need MLflow experiments of different names.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from graft.mlflow_server import (  # first: it settles what mlflow reads while it is imported
    UnreachableError,
    connect,
    default_tracking_uri,
    reachable,
    shown,
)

# isort: split
import mlflow
from mlflow import MlflowClient
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graft import serving
from graft.artifacts import read_manifest
from graft.nested_runs import delete_candidates, log_candidates, tag_candidates
from graft.operation_sections import Tracking
from graft.trained import Project, TrainedModel, alone, describe, digest, parameters

__all__ = ["Published", "UnreachableError", "default_tracking_uri", "publish"]

KEY, STATE, FIGURES = "graft.key", "graft.state", "graft.figures"
CHAMPION = "champion"  # tag of the run and alias of the registered model
DIGEST_LENGTH = 36  # the longest that MLflow takes of a data set


@dataclass(frozen=True)
class Published:
    """What a call did: how many runs it added, the champion's version where it saw to that, and the address."""

    new: int
    version: str | None
    uri: str


def publish(models: Sequence[TrainedModel], settings: Tracking, project: Project) -> Published:
    """Bring MLflow up to date with the models; what is there and right is left alone.

    Raises:
        UnreachableError: what was published before stays, and another call does the rest.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(project.root)
    new, champion, version = 0, None, None
    with alone(project.root), reachable(uri):
        client, experiment = connect(uri, settings.experiment, project.root)
        current = _current_runs(client, experiment)
        for model in models:
            run = current.pop(model.key, None) or _finished_run(client, experiment, model)
            if run is None:
                run = _publish_run(client, experiment, model, project)
                new += 1
            elif not project.detached:
                _refresh_run(client, run, model)
            champion = run if model.champion else champion
        if not project.detached:
            _retire(client, current.values(), {model.name for model in models}, project.listed)
            version = champion and _register_champion(client, settings.registered_model, champion)
    return Published(new, version, shown(uri))


def _current_runs(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The runs that the project had at the last call, by key."""
    runs = client.search_runs([experiment], f"tags.`{STATE}` = 'current' and tags.`{KEY}` != ''")  # of models alone
    return {run.data.tags[KEY]: run for run in _finished(client, runs)}


def _finished_run(client: MlflowClient, experiment: str, model: TrainedModel) -> Run | None:
    """The model's run in whatever state."""
    runs = client.search_runs([experiment], f"tags.`{KEY}` = '{model.key}'")
    return next(iter(_finished(client, runs)), None)


def _finished(client: MlflowClient, runs: Iterable[Run]) -> list[Run]:
    """Those that are whole; what an interrupted call left is deleted, to be published anew."""
    whole = []
    for run in runs:
        if run.info.status == "FINISHED":
            whole.append(run)
            continue
        for model in _logged_models(run):
            client.delete_logged_model(model)
        delete_candidates(client, run)
        client.delete_run(run.info.run_id)
    return whole


def _logged_models(run: Run) -> list[str]:
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []


def _publish_run(client: MlflowClient, experiment: str, model: TrainedModel, project: Project) -> Run:
    """A new run with everything; FINISHED only at the end, by which an interrupted call is known."""
    started, ended = (_milliseconds(moment) for moment in (model.journal.header["started"], model.journal.ended))
    state = {STATE: "experiment" if project.detached else "current"}
    tags = {KEY: model.key, **state, **_changing_tags(model), **describe(model)}
    run = client.create_run(experiment, started, tags, model.name)
    run_id = run.info.run_id
    metrics = [Metric(name, value, ended, 0) for name, value in model.metrics.items()]
    metrics += [
        Metric(f"epoch/{name}", value, ended, epoch["epoch"])
        for epoch in model.journal.epochs
        for name, value in epoch["metrics"].items()
    ]
    client.log_batch(run_id, metrics, [Param(name, value) for name, value in parameters(model.journal).items()])
    client.log_inputs(run_id, [_data_set(model, project.prepared)])
    for path in model.files:
        client.log_artifact(run_id, str(path))
    for path in sorted(project.data_report.glob("*.[hc]*")):  # pages and tables for people
        client.log_artifact(run_id, str(path), "data")
    _log_figures(client, run_id, model)
    _log_model(experiment, run_id, model)
    log_candidates(client, run, model, ended, state)
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    return client.get_run(run_id)


def _changing_tags(model: TrainedModel) -> dict[str, str]:
    return {CHAMPION: json.dumps(model.champion), FIGURES: digest(model.figures)}


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _data_set(model: TrainedModel, prepared: Path) -> DatasetInput:
    """The list of images, known by DVC's hash of the prepared folder (by MLflow's of the list where DVC has none)."""
    rows, source = read_manifest(prepared).rows, LocalArtifactDatasetSource(str(prepared / "manifest.parquet"))
    md5 = model.inputs.get(prepared.as_posix(), "")[:DIGEST_LENGTH] or None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer column", UserWarning)  # without gaps
        data = mlflow.data.from_pandas(rows, source=source, targets="label", name=prepared.name, digest=md5).to_dict()
    return DatasetInput(Dataset.from_dictionary(data), [InputTag("mlflow.data.context", "training")])


def _log_figures(client: MlflowClient, run_id: str, model: TrainedModel) -> None:
    for path in model.figures:
        client.log_artifact(run_id, str(path), "figures")


def _log_model(experiment: str, run_id: str, model: TrainedModel) -> None:
    """The model as a pyfunc that carries this package along, so that it loads wherever MLflow does."""
    mlflow.set_experiment(experiment_id=experiment)
    artifacts = {"model": str(model.folder)} | ({"source": str(model.source)} if model.source else {})
    mlflow.models.Model.log(
        artifact_path=None,
        flavor=mlflow.pyfunc,
        name="model",
        run_id=run_id,
        python_model=serving.__file__,
        artifacts=artifacts,
        code_paths=[str(Path(serving.__file__).parent)],
        pip_requirements=serving.requirements(),
    )


def _refresh_run(client: MlflowClient, run: Run, model: TrainedModel) -> None:
    """Correct what a comparison, or a change of the params and back, alters of a run that is already there."""
    run_id, now = run.info.run_id, int(time.time() * 1000)
    tags = {STATE: "current", **_changing_tags(model)}
    outdated = {name: value for name, value in tags.items() if run.data.tags.get(name) != value}
    if STATE in outdated:
        tag_candidates(client, run, {STATE: "current"})
    if FIGURES in outdated:
        _log_figures(client, run_id, model)
    metrics = [
        Metric(name, value, now, 0, model_id=logged, run_id=run_id)
        for name, value in model.metrics.items()
        if run.data.metrics.get(name) != value
        for logged in _logged_models(run)
    ]
    client.log_batch(run_id, metrics, tags=[RunTag(name, value) for name, value in outdated.items()])


def _retire(client: MlflowClient, runs: Iterable[Run], trained: set[str], listed: Sequence[str]) -> None:
    """Mark the runs that the project no longer has; a listed model that waits for its training keeps its last."""
    for run in runs:
        name = run.data.tags["model"]
        if name in trained or name not in listed:
            state = "superseded" if name in listed else "removed"
            tag_candidates(client, run, {STATE: state})
            client.log_batch(run.info.run_id, tags=[RunTag(STATE, state), RunTag(CHAMPION, "false")])


def _register_champion(client: MlflowClient, name: str, run: Run) -> str:
    """Let the alias name the champion's version, which is made where it is missing; returns the version."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    version = versions[0] if versions else _register(client, name, run)
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(name, CHAMPION, version.version)
    return str(version.version)


def _register(client: MlflowClient, name: str, run: Run) -> ModelVersion:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model, tags = _logged_models(run)[0], {"model": run.data.tags["model"]}
    return client.create_model_version(name, f"models:/{model}", run.info.run_id, tags, model_id=model)
