"""Which MLflow run belongs to a training: known by the journal's key, and by when that attempt at it started.

Exactly one run of a key is kept. An attempt finds its own run again, so that what publishes while a training runs and
what completes it afterwards meet in the same one. What another attempt left unfinished is deleted; what is
complete is not changed by training the same once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from graft.mlflow_server import MOST_RUNS, MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
from mlflow.entities import Metric, Param, Run

from graft.faults import reached
from graft.journal import JournalRecord
from graft.nested_runs import delete_nested
from graft.run_parameters import start_parameters
from graft.trained import describe_start

KEY, STARTED, STATE, COMPLETE = "graft.key", "graft.started", "graft.state", "graft.complete"
TRAINING, CURRENT, SUPERSEDED, REMOVED, EXPERIMENT = "training", "current", "superseded", "removed", "experiment"


def find_run(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """The run of a key; where a late answer of the server, or another machine, left several, all but one are deleted.

    Args:
        client: of the tracking server.
        experiment: its id.
        key: of the journal's header.
    """
    runs = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=MOST_RUNS)
    return keep_one(client, runs) if runs else None


def keep_one(client: MlflowClient, runs: Sequence[Run]) -> Run:
    """The run to keep of those of one key, the same whoever asks; the others are deleted.

    A complete one goes before the rest, of these one whose model is registered, then the earliest.
    """
    if len(runs) == 1:
        return runs[0]
    first, *others = sorted(runs, key=lambda run: _rank(client, run))
    for run in others:
        delete_run(client, run)
    return first


def _rank(client: MlflowClient, run: Run) -> tuple[bool, bool, int, str]:
    complete = is_complete(run)
    registered = complete and bool(client.search_model_versions(f"run_id = '{run.info.run_id}'"))
    return not complete, not registered, run.info.start_time, run.info.run_id


def is_complete(run: Run) -> bool:
    """Whether a run has all there is of its training.

    One that is finished and of no attempt is from before attempts were told apart, when a run was finished last.
    """
    tags = run.data.tags
    return tags.get(COMPLETE) == "true" or (run.info.status == "FINISHED" and not {STARTED, COMPLETE} & set(tags))


def open_run(client: MlflowClient, experiment: str, journal: JournalRecord) -> Run:
    """The run of this attempt, or the complete one of its key; to be called alone (graft.trained.alone).

    Args:
        client: of the tracking server.
        experiment: its id.
        journal: of a training that may not have ended; a new run gets the tags and params that its header settles.
    """
    header = journal.header
    run = find_run(client, experiment, header["key"])
    if run is not None:
        if is_complete(run) or _is_of(run, header):
            return run
        delete_run(client, run)
    tags = {KEY: header["key"], STARTED: header["started"], STATE: TRAINING, **describe_start(header)}
    run = client.create_run(experiment, milliseconds(header["started"]), tags, header["model"])
    reached("publish run")
    params = [Param(name, value) for name, value in start_parameters(header).items()]
    client.log_batch(run.info.run_id, params=params)
    reached("publish start")
    return client.get_run(run.info.run_id)


def _is_of(run: Run, header: Mapping[str, Any]) -> bool:
    """Whether it is the run of a journal's attempt; one of before attempts were told apart may lack a part later."""
    if STARTED not in run.data.tags and COMPLETE in run.data.tags:
        return bool(run.info.start_time == milliseconds(header["started"]))
    return bool(run.data.tags.get(STARTED) == header["started"])


def delete_run(client: MlflowClient, run: Run) -> None:
    """Delete a run with the runs under it and the models that were logged to it, whole or not."""
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        client.delete_logged_model(model.model_id)
        reached("publish deletion of a model")
    delete_nested(client, run)
    client.delete_run(run.info.run_id)
    reached("publish deletion")


def milliseconds(moment: str) -> int:
    """Since 1970, of an ISO 8601 time."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def epoch_metrics(journal: JournalRecord) -> list[Metric]:
    """The curves, by epochs that are numbered through all phases.

    Key, time, step and value are the journal's, so that a point told twice is one point.
    """
    return [
        Metric(f"epoch/{name}", value, milliseconds(epoch["time"]), epoch["epoch"])
        for epoch in journal.epochs
        for name, value in epoch["metrics"].items()
    ]


def system_metrics(journal: JournalRecord) -> list[Metric]:
    """What the machine did meanwhile, by the number of the sample from zero; of the journal alone as epoch_metrics."""
    return [
        Metric(name, value, milliseconds(sample["time"]), number)
        for number, sample in enumerate(journal.system)
        for name, value in sample["metrics"].items()
    ]
