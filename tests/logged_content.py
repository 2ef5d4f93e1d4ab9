"""What a tracking server or its database holds of a project, and that it is what the journals hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from graft.journal import JournalRecord
from graft.mlflow_server import MlflowClient  # first: it settles what mlflow reads while it is imported

# isort: split
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

EXPERIMENT = REGISTERED = "graft"  # as in params.yaml


def key_of(journal: JournalRecord) -> str:
    """Which training it is of."""
    return str(journal.header["key"])


def logged_runs(store: str) -> list[Run]:
    """Every run that is not deleted, of models and nested ones, of the experiment in a database or on a server."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def model_runs(store: str) -> dict[str, Run]:
    """The runs of models by key.

    Raises:
        AssertionError: two have the same key.
    """
    runs = [run for run in logged_runs(store) if "graft.key" in run.data.tags]
    counts = Counter(run.data.tags["graft.key"] for run in runs)
    assert set(counts.values()) <= {1}, f"runs of one training: {counts}"
    return {run.data.tags["graft.key"]: run for run in runs}


def assert_logged_once(store: str, journals: Iterable[JournalRecord]) -> None:
    """MLflow holds these journals and no others, each as one whole run, and not a number more than they do."""
    expected = {key_of(journal): journal for journal in journals}
    runs = model_runs(store)
    assert set(runs) == set(expected)
    client = MlflowClient(store)
    for key, journal in expected.items():
        run = runs[key]
        assert run.info.run_name == journal.header["model"]
        assert run.info.status == "FINISHED"
        assert run.data.tags.get("graft.complete") == "true"
        assert_epochs(client, run, journal.epochs)
        for name, rows in system_rows(journal).items():
            assert len(client.get_metric_history(run.info.run_id, name)) == len(rows), name
        assert len(run.outputs.model_outputs) == 1
        assert_nested_once(client, run, journal)


def assert_epochs(client: MlflowClient, run: Run, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Every number of every epoch is there once, and nothing else of that kind."""
    expected = {
        name: [(epoch["epoch"], epoch["metrics"][name]) for epoch in epochs if name in epoch["metrics"]]
        for name in {name for epoch in epochs for name in epoch["metrics"]}
    }
    logged = {name.removeprefix("epoch/") for name in run.data.metrics if name.startswith("epoch/")}
    assert logged == set(expected)
    for name, points in expected.items():
        history = client.get_metric_history(run.info.run_id, f"epoch/{name}")
        assert sorted((point.step, point.value) for point in history) == points, f"{run.info.run_name} {name}"


def system_rows(journal: JournalRecord) -> dict[str, list[float]]:
    """The journal's samples of the machine by metric."""
    rows: dict[str, list[float]] = {}
    for record in journal.system:
        for name, value in record["metrics"].items():
            rows.setdefault(name, []).append(value)
    return rows


def assert_nested_once(client: MlflowClient, run: Run, journal: JournalRecord) -> None:
    """One nested run for every candidate and every repeat of the journal, each with all of its epochs."""
    runs = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    expected = {record["name"]: record for record in [*journal.candidates, *journal.repeats]}
    assert sorted(nested.info.run_name.split("/")[-1] for nested in runs) == sorted(expected)
    for nested in runs:
        record = expected[nested.info.run_name.split("/")[-1]]
        curves = [name for name in nested.data.metrics if name.startswith("epoch/")]
        assert curves
        for name in curves:
            assert len(client.get_metric_history(nested.info.run_id, name)) == len(record["history"]), name


def everything(store: str) -> Any:
    """What MLflow holds of runs and versions, for a comparison."""
    client = MlflowClient(store)
    found = [client.get_model_version(one.name, one.version) for one in client.search_model_versions()]
    versions = [(v.version, v.run_id, sorted(v.aliases), sorted(v.tags.items())) for v in found]
    runs = [(run.info.run_id, json.dumps(run.to_dictionary(), sort_keys=True)) for run in logged_runs(store)]
    return sorted(runs), sorted(versions)


def champion_version(store: str) -> tuple[str, str] | None:
    """Number and run of the version that the alias names."""
    try:
        version = MlflowClient(store).get_model_version_by_alias(REGISTERED, "champion")
    except MlflowException:
        return None
    return str(version.version), version.run_id


def states(store: str) -> dict[str, str]:
    """What the project has to do with each run now, by key."""
    return {key: run.data.tags["graft.state"] for key, run in model_runs(store).items()}


def key(journal: JournalRecord) -> str:
    return str(journal.header["key"])


def live_epochs(store: str) -> int:
    """How many epochs of trainings that still run MLflow shows."""
    runs = [run for run in logged_runs(store) if run.info.status == "RUNNING"]
    client = MlflowClient(store)
    return sum(len(client.get_metric_history(run.info.run_id, "epoch/val_loss")) for run in runs)
