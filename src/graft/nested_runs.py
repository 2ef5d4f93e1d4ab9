"""The candidates of a model's grids as MLflow runs of their own, nested under the model's run as MLflow nests runs.

They carry no key and no model tag, so that whoever counts models by these counts none of them. A model's run is
finished after its candidates, which therefore are all there where it is, and are deleted with it where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graft.mlflow_server import MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from graft.candidate_records import best_epoch
from graft.trained import TrainedModel, flat

PARENT, CANDIDATE, KIND = "graft.parent", "graft.candidate", "kind"
FINAL = ("val_loss", "val_accuracy")  # as its model's run has them
MOST = 50_000  # runs that MLflow lists at once


def log_candidates(client: MlflowClient, parent: Run, model: TrainedModel, ended: int, tags: Mapping[str, str]) -> None:
    """Add a finished run for each of the model's candidates.

    Args:
        client: of the tracking server.
        parent: the model's run, which must not be finished yet.
        model: whose journal holds the candidates.
        ended: of the training, in milliseconds since 1970.
        tags: what they have in common with the model's run.
    """
    for candidate in model.journal.candidates:
        own = {
            **{MLFLOW_PARENT_RUN_ID: parent.info.run_id, PARENT: model.key, CANDIDATE: candidate["name"]},
            **{KIND: "candidate", "chosen": json.dumps(candidate["chosen"])},
        }
        run = client.create_run(parent.info.experiment_id, parent.info.start_time, {**tags, **own}, candidate["name"])
        params = flat(candidate["params"]) | {"phase": candidate["phase"]}
        client.log_batch(
            run.info.run_id, _metrics(candidate["history"], ended), [Param(*param) for param in params.items()]
        )
        client.set_terminated(run.info.run_id, "FINISHED", end_time=ended)


def _metrics(history: list[dict[str, Any]], moment: int) -> list[Metric]:
    """The curves, and how good the candidate was in its best epoch."""
    best = best_epoch(history)
    final = [Metric(name, best[name], moment, best["epoch"]) for name in FINAL if best]
    return final + [
        Metric(f"epoch/{name}", value, moment, record["epoch"])
        for record in history
        for name, value in record.items()
        if name not in ("epoch", "phase")
    ]


def nested_runs(client: MlflowClient, parent: Run) -> list[Run]:
    """The candidates of a model's run."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.`{KIND}` = 'candidate'"
    return list(client.search_runs([parent.info.experiment_id], query, max_results=MOST))


def tag_candidates(client: MlflowClient, parent: Run, tags: Mapping[str, str]) -> None:
    """Set these tags of all candidates of a model's run; to be done before the run itself is told the same."""
    for run in nested_runs(client, parent):
        client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def delete_candidates(client: MlflowClient, parent: Run) -> None:
    """Delete what an interrupted call left under a model's run; to be done before the run itself is deleted."""
    for run in nested_runs(client, parent):
        client.delete_run(run.info.run_id)
