"""The parts of a trained model's run in MLflow, each added only where it is missing, so that any call may be the last.

What a live publisher or an interrupted call already told stays as it is; the tag of a complete run is set last.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from graft.mlflow_server import MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
import mlflow
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from graft.artifacts import read_manifest
from graft.faults import reached
from graft.identified_runs import (
    COMPLETE,
    CURRENT,
    EXPERIMENT,
    STATE,
    TRAINING,
    epoch_metrics,
    is_complete,
    milliseconds,
    system_metrics,
)
from graft.logged_models import delete_unfinished, log_model, logged_models
from graft.nested_runs import complete_nested, tag_nested
from graft.operation_sections import Serve
from graft.run_descriptions import describe_run
from graft.run_parameters import parameters
from graft.trained import Project, TrainedModel, describe

CHAMPION, FIGURES, REPORT, DATA = "champion", "graft.figures", "graft.report", "data"
MOST_TEXT = 8000  # characters that MLflow takes of a tag's value
MOST_DIGEST = 36  # of a data set's digest
PAGES = "*.[hc]*"  # of the data report: pages and tables for people


def complete_run(client: MlflowClient, run: Run, model: TrainedModel, project: Project, limits: Serve) -> Run:
    """Add to a run what it lacks of its model; returns the run as it is then.

    Args:
        client: of the tracking server.
        run: of the model's attempt, or one from before attempts were told apart.
        model: whose training has ended.
        project: that the model is of.
        limits: of the images that the logged model takes.
    """
    run_id, ended = run.info.run_id, milliseconds(model.journal.ended)
    fresh = not is_complete(run)
    metrics = [*_missing_points(client, run, model), *_final_metrics(run, model)]
    params = [Param(*one) for one in parameters(model.journal).items() if one[0] not in run.data.params]
    client.log_batch(run_id, metrics, params)
    reached("publish metrics")
    _log_data_set(client, run, model, project.prepared)
    predictions = [] if model.predictions in model.missing else [model.predictions]
    _log_files(client, run, [*model.files, *predictions], None, again=fresh)
    _log_files(client, run, sorted(project.data_report.glob(PAGES)), "data", again=fresh)
    _log_files(client, run, model.figures, "figures", again=fresh)
    _log_files(client, run, _report(model), "report", again=fresh)
    _log_model(client, run, model, limits)
    reached("publish model")
    state = {STATE: _state(run, project)}
    delete_unfinished(client, run.info.experiment_id, run_id)  # what a lost answer left of this call
    complete_nested(client, run, model, ended, state)
    reached("publish nested runs")
    facts = describe(model) | _data_hash(model, project)
    missing = {name: value for name, value in facts.items() if name not in run.data.tags}
    _tag(client, run, {**missing, **_changing_tags(run, model), **state})
    reached("publish tags")
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED", end_time=ended)
        reached("publish end")
    client.set_tag(run_id, COMPLETE, "true")
    reached("publish complete")
    return client.get_run(run_id)


def refresh_run(client: MlflowClient, run: Run, model: TrainedModel) -> None:
    """Correct what a comparison, or a change of the params and back, alters of a complete run of the project."""
    tags = {**_changing_tags(run, model), STATE: CURRENT}
    outdated = {name for name, value in tags.items() if run.data.tags.get(name) != value}
    if STATE in outdated:
        tag_nested(client, run, {STATE: CURRENT})
    for name, folder, files in ((FIGURES, "figures", model.figures), (REPORT, "report", _report(model))):
        if name in outdated:
            for path in files:
                client.log_artifact(run.info.run_id, str(path), folder)
                reached(f"publish changed {name}")
    client.log_batch(run.info.run_id, _final_metrics(run, model))
    reached("publish changed metrics")
    _tag(client, run, tags)
    reached("publish changed tags")


def _state(run: Run, project: Project) -> str:
    """A run that the project has stays its own where an experiment meets it again."""
    if not project.detached:
        return CURRENT
    state = run.data.tags.get(STATE, TRAINING)
    return EXPERIMENT if state == TRAINING else state


def _changing_tags(run: Run, model: TrainedModel) -> dict[str, str]:
    return {
        CHAMPION: json.dumps(model.champion),
        FIGURES: _digest(model.figures),
        REPORT: _digest(_report(model)),
        MLFLOW_RUN_NOTE: describe_run(model, run.info.run_id)[:MOST_TEXT],
    }


def _data_hash(model: TrainedModel, project: Project) -> dict[str, str]:
    md5 = model.inputs.get(project.prepared.as_posix())
    return {DATA: md5} if md5 else {}


def _digest(paths: Sequence[Path]) -> str:
    """A hash of the files' names and contents."""
    hashes = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _report(model: TrainedModel) -> list[Path]:
    return [model.report] if model.report else []


def _tag(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    client.log_batch(
        run.info.run_id, tags=[RunTag(*one) for one in tags.items() if run.data.tags.get(one[0]) != one[1]]
    )


def _missing_points(client: MlflowClient, run: Run, model: TrainedModel) -> list[Metric]:
    """The epochs and samples that are not there by their steps; those of a run that was told otherwise stay."""
    points = [*epoch_metrics(model.journal), *system_metrics(model.journal)]
    known = {
        name: {point.step for point in client.get_metric_history(run.info.run_id, name)}
        for name in {point.key for point in points} & set(run.data.metrics)
    }
    return [point for point in points if point.step not in known.get(point.key, ())]


def _final_metrics(run: Run, model: TrainedModel) -> list[Metric]:
    """What the leaderboard says otherwise than the run, for the run and for its model.

    Seconds are those of the attempt that the run is of, also where the same was trained once more.
    """
    now, ended = int(time.time() * 1000), milliseconds(model.journal.ended)
    # What MLflow shows is the latest, also where the clock of another machine is ahead.
    moments = {one.key: max(now, one.timestamp + 1) for one in run.data.to_proto().metrics}
    known, own = run.data.metrics, run.info.start_time == milliseconds(model.journal.header["started"])
    changed = {
        name: value
        for name, value in model.metrics.items()
        if name not in known or (known[name] != value and (own or not name.endswith("_seconds")))
    }
    model_id = next(iter(logged_models(run)), None)
    return [
        Metric(name, value, moments.get(name, ended), 0, model_id=model_id, run_id=run.info.run_id)
        for name, value in changed.items()
    ]


def _log_data_set(client: MlflowClient, run: Run, model: TrainedModel, prepared: Path) -> None:
    """The list of images, known by DVC's hash of the prepared folder (by MLflow's of the list where DVC has none)."""
    if prepared in model.missing or (run.inputs and run.inputs.dataset_inputs):
        return
    rows, source = read_manifest(prepared).rows, LocalArtifactDatasetSource(str(prepared / "manifest.parquet"))
    md5 = model.inputs.get(prepared.as_posix(), "")[:MOST_DIGEST] or None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer column", UserWarning)  # without gaps
        data = mlflow.data.from_pandas(rows, source=source, targets="label", name=prepared.name, digest=md5).to_dict()
    inputs = [DatasetInput(Dataset.from_dictionary(data), [InputTag("mlflow.data.context", "training")])]
    try:
        client.log_inputs(run.info.run_id, inputs)
    except MlflowException:  # another process added the same data set between the server's look and its insertion
        client.log_inputs(run.info.run_id, inputs)
    reached("publish data set")


def _log_files(client: MlflowClient, run: Run, paths: Sequence[Path], folder: str | None, *, again: bool) -> None:
    """Upload the files that are not there; of a run that is not complete all: one may be torn, or be of before."""
    present = {item.path for item in client.list_artifacts(run.info.run_id, folder)} if paths and not again else set()
    for path in paths:
        there = f"{folder}/{path.name}" if folder else path.name
        if there not in present:
            client.log_artifact(run.info.run_id, str(path), folder)
            reached(f"publish file {there}")


def _log_model(client: MlflowClient, run: Run, model: TrainedModel, limits: Serve) -> None:
    """The model itself, in place of what an interrupted call left of one."""
    gone = {model.folder, model.source} & set(model.missing)
    if not gone and not logged_models(run):
        delete_unfinished(client, run.info.experiment_id, run.info.run_id)
        log_model(run.info.experiment_id, run.info.run_id, model, limits)
