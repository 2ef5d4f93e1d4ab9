from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from networks_on_trial import ROOT

from graft.errors import GraftError
from graft.mlflow_server import MlflowClient, connect, create_database, default_tracking_uri
from graft.run_differences import run_differences


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a database without runs, which takes seconds to make."""
    root = tmp_path_factory.mktemp("empty")
    create_database(default_tracking_uri(root))
    shutil.copy2(ROOT / "params.yaml", root / "params.yaml")
    return root


def told(empty: Path, root: Path, *, started: int = 0, losses: tuple[float, ...] = (0.5, 0.25), runs: int = 1) -> Path:
    """A workspace whose database holds the run of a network, as often as asked for, with one run under it."""
    shutil.copytree(empty, root)
    client, experiment = connect(default_tracking_uri(root), "graft", root)
    for _ in range(runs):
        tags = {"graft.key": "k" * 64, "graft.started": str(started), "model": "cnn"}
        run = client.create_run(experiment, started, tags, "cnn").info.run_id
        for step, loss in enumerate(losses):
            client.log_metric(run, "epoch/loss", loss, started + step, step)
        client.log_metric(run, "train_seconds", started)
        client.log_metric(run, "system/cpu", started)
        client.set_terminated(run)
    nested = client.create_run(experiment, started, {"mlflow.parentRunId": run, "kind": "repeat"}, "repeat-02")
    client.set_terminated(nested.info.run_id)
    return root


def test_runs_of_other_moments_and_numbers_are_equal(empty: Path, tmp_path: Path) -> None:
    one, other = told(empty, tmp_path / "one"), told(empty, tmp_path / "other", started=1000)
    assert list(run_differences(one, other)) == []


def test_a_value_of_an_epoch_is_named(empty: Path, tmp_path: Path) -> None:
    one, other = told(empty, tmp_path / "one"), told(empty, tmp_path / "other", losses=(0.5, 0.125))
    assert list(run_differences(one, other)) == [
        "MLflow, run cnn of key kkkkkkkkkkkk: 0.metrics.epoch/loss.1.1: 0.25 against 0.125"
    ]


def test_a_run_that_is_there_twice_differs(empty: Path, tmp_path: Path) -> None:
    one, other = told(empty, tmp_path / "one"), told(empty, tmp_path / "other", runs=2)
    assert list(run_differences(one, other)) == ["MLflow, run cnn of key kkkkkkkkkkkk: value: 1 against 2 values"]


def test_a_run_that_one_lacks_and_another_version_are_named(empty: Path, tmp_path: Path) -> None:
    one, other = told(empty, tmp_path / "one"), told(empty, tmp_path / "other")
    client = MlflowClient(default_tracking_uri(one))
    (run,) = client.search_runs(["1"], "tags.kind = 'repeat'")
    client.set_tag(run.info.run_id, "mlflow.runName", "repeat-03")
    client.create_registered_model("graft")
    client.create_model_version("graft", str(one), run.info.run_id)
    above = "MLflow, run cnn of key kkkkkkkkkkkk, run"
    assert list(run_differences(one, other)) == [
        "MLflow, registry: value: 1 against 0 values",
        f"{above} repeat-02: only in {other}",
        f"{above} repeat-03: only in {one}",
    ]


def test_a_workspace_without_a_database_or_an_experiment_is_refused(empty: Path, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="must hold the experiment 'graft', received one without it"):
        list(run_differences(empty, empty))
    shutil.copy2(ROOT / "params.yaml", tmp_path / "params.yaml")
    with pytest.raises(GraftError, match=r"mlflow\.db is missing"):
        list(run_differences(tmp_path, tmp_path))
