"""The candidates of a model's grids, and its repeated trainings, as MLflow runs nested under the model's run.

They carry no key and no model tag, so that whoever counts models by these counts none of them. A model's run is
complete after those under it, which therefore are all there where it is, and are deleted with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graft.mlflow_server import MOST_RUNS, MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from graft.candidate_records import best_epoch
from graft.faults import reached
from graft.journal import JournalRecord
from graft.run_parameters import flat
from graft.trained import TrainedModel

PARENT, CANDIDATE, REPEAT, KIND = "graft.parent", "graft.candidate", "graft.repeat", "kind"
FINAL = ("val_loss", "val_accuracy")  # of a candidate, as its model's run has them


@dataclass(frozen=True)
class _Nested:
    """What one of them is told: final metrics are of the step, epoch or zero, at which they were reached."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    history: list[dict[str, Any]]
    final: Mapping[str, float]
    step: int


def complete_nested(
    client: MlflowClient, parent: Run, model: TrainedModel, ended: int, tags: Mapping[str, str]
) -> None:
    """Add a finished run for each candidate and each repeat that has none, in place of what an interrupted call left.

    Args:
        client: of the tracking server.
        parent: the model's run.
        model: whose journal holds the candidates and the repeats.
        ended: of the training, in milliseconds since 1970.
        tags: what they have in common with the model's run.
    """
    expected = [*_candidates(model.journal), *_repeats(model.journal)]
    present = _finished(client, parent) if expected else {}
    for run in present.values():
        outdated = {tag: value for tag, value in tags.items() if run.data.tags.get(tag) != value}
        client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in outdated.items()])
    for nested in expected:
        if nested.name in present:
            continue
        own = {**tags, MLFLOW_PARENT_RUN_ID: parent.info.run_id, PARENT: model.key, **nested.tags}
        run = client.create_run(parent.info.experiment_id, parent.info.start_time, own, nested.name)
        reached(f"publish run of {nested.name}")
        params = [Param(*param) for param in nested.params.items()]
        client.log_batch(run.info.run_id, _metrics(nested, ended), params)
        reached(f"publish metrics of {nested.name}")
        client.set_terminated(run.info.run_id, "FINISHED", end_time=ended)
        reached(f"publish end of {nested.name}")
    if len(present) < len(expected):
        _finished(client, parent)  # an answer that was lost, so that a run was asked for again, has left another


def _finished(client: MlflowClient, parent: Run) -> dict[str, Run]:
    """Those that are whole, by name; the rest, and what is there twice, is deleted."""
    whole: dict[str, Run] = {}
    for run in sorted(nested_runs(client, parent), key=lambda run: str(run.info.run_id)):
        if run.info.status == "FINISHED" and run.info.run_name not in whole:
            whole[run.info.run_name] = run
        else:
            client.delete_run(run.info.run_id)
    return whole


def _candidates(journal: JournalRecord) -> Iterator[_Nested]:
    for candidate in journal.candidates:
        best = best_epoch(candidate["history"])
        yield _Nested(
            candidate["name"],
            {CANDIDATE: candidate["name"], KIND: "candidate", "chosen": json.dumps(candidate["chosen"])},
            flat(candidate["params"]) | {"phase": candidate["phase"]},
            candidate["history"],
            {name: best[name] for name in FINAL if best},
            best.get("epoch", 0),
        )


def _repeats(journal: JournalRecord) -> Iterator[_Nested]:
    for repeat in journal.repeats:
        yield _Nested(
            repeat["name"],
            {REPEAT: repeat["name"], KIND: "repeat"},
            {"seed": str(repeat["seed"])},
            repeat["history"],
            repeat["metrics"],
            0,
        )


def _metrics(nested: _Nested, moment: int) -> list[Metric]:
    """The curves, and how good it was at last."""
    return [Metric(name, value, moment, nested.step) for name, value in nested.final.items()] + [
        Metric(f"epoch/{name}", value, moment, record["epoch"])
        for record in nested.history
        for name, value in record.items()
        if name not in ("epoch", "phase")
    ]


def nested_runs(client: MlflowClient, parent: Run) -> list[Run]:
    """The candidates and repeats of a model's run; runs that people put there are not among them."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.`{PARENT}` != ''"
    return list(client.search_runs([parent.info.experiment_id], query, max_results=MOST_RUNS))


def tag_nested(client: MlflowClient, parent: Run, tags: Mapping[str, str]) -> None:
    """Set these tags of all that is under a model's run; to be done before the run itself is told the same."""
    for run in nested_runs(client, parent):
        client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        reached("publish nested tags")


def delete_nested(client: MlflowClient, parent: Run) -> None:
    """Delete what is under a model's run; to be done before the run itself is deleted."""
    for run in nested_runs(client, parent):
        client.delete_run(run.info.run_id)
