from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_mlflow import empty_database
from live_training import PARAMS, recorded
from test_live import points, runs

from graft.journal import Journal, read_journal
from graft.live_publisher import MOST_METRICS, Publisher
from graft.mlflow_server import MlflowClient, MlflowException, UnreachableError, default_tracking_uri
from graft.storage import ArtifactError

HEADER = {"key": "k1", "model": "cnn", "kind": "baseline", "backbone": None, "stage": "baseline@cnn", "params": PARAMS}


@pytest.fixture
def root(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    new_server(tmp_path, tmp_path_factory.getbasetemp())
    return tmp_path


def new_server(root: Path, base: Path) -> None:
    """An empty database in the place of what the project had."""
    (root / "mlflow.db").write_bytes(empty_database(base).read_bytes())


@pytest.fixture
def journal(root: Path) -> Journal:
    return Journal.start(root / ".work" / "k1", HEADER)


@pytest.fixture
def publisher(journal: Journal) -> Iterator[Publisher]:
    with (journal.folder / "journal.jsonl").open("rb") as file:
        yield Publisher(file, journal.folder, "graft")


def train(journal: Journal, first: int, last: int) -> None:
    for number in range(first, last + 1):
        journal.epoch(number, "train", {"loss": 1 / number, "val_loss": 2 / number, "val_accuracy": 0.5})


def test_a_call_tells_what_is_new_and_a_journal_that_was_moved_is_read_to_its_end(
    root: Path, journal: Journal, publisher: Publisher
) -> None:
    uri = default_tracking_uri(root)
    publisher.publish()
    (run,) = runs(uri)
    assert (run.info.status, run.data.metrics) == ("RUNNING", {})
    train(journal, 1, 2)
    journal.system({"system/process_memory_megabytes": 5.0})
    publisher.publish()
    publisher.publish()
    assert points(uri, *runs(uri)) == recorded(read_journal(journal.folder / "journal.jsonl"))
    train(journal, 3, 4)
    journal.finish({}, {})
    journal.move_to(root / "journal.jsonl")
    publisher.finish("KILLED")
    (after,) = runs(uri)
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert points(uri, after) == recorded(read_journal(root / "journal.jsonl"))


def test_more_than_mlflow_takes_at_once_is_told_in_parts(root: Path, journal: Journal, publisher: Publisher) -> None:
    train(journal, 1, MOST_METRICS // 3 + 2)
    publisher.publish()
    uri = default_tracking_uri(root)
    assert len(points(uri, *runs(uri))) == 3 * (MOST_METRICS // 3 + 2) > MOST_METRICS


def test_a_line_that_is_being_written_is_told_when_it_is_whole(
    root: Path, journal: Journal, publisher: Publisher
) -> None:
    uri, path = default_tracking_uri(root), journal.folder / "journal.jsonl"
    train(journal, 1, 2)
    whole = path.read_bytes()
    with path.open("r+b") as torn:
        torn.truncate(len(whole) - 9)
    publisher.publish()
    assert len(points(uri, *runs(uri))) == 3
    path.write_bytes(whole)
    publisher.publish()
    assert len(points(uri, *runs(uri))) == 6


def test_the_next_training_that_begins_the_journal_anew_is_none_of_its_business(
    root: Path, journal: Journal, publisher: Publisher
) -> None:
    uri, path = default_tracking_uri(root), journal.folder / "journal.jsonl"
    train(journal, 1, 3)
    publisher.publish()
    start, *_ = path.read_text().splitlines()
    later = json.loads(start) | {"started": "2030-01-01T00:00:00.000+00:00"}
    for content in ("", json.dumps(later)[:20], json.dumps(later) + "\n"):
        path.write_text(content)
        publisher.finish("KILLED")
        (run,) = runs(uri)
        assert (run.info.status, len(points(uri, run))) == ("KILLED", 9)
    path.write_text("")
    with path.open("rb") as file, pytest.raises(ArtifactError, match=r"journal.jsonl must hold one start"):
        Publisher(file, path.parent, "graft")


@pytest.fixture
def interrupted(root: Path, journal: Journal, publisher: Publisher) -> Journal:
    """A journal whose training was killed after three epochs and a sample, of which MLflow knows."""
    train(journal, 1, 3)
    journal.system({"system/process_memory_megabytes": 5.0})
    publisher.publish()
    publisher.finish("KILLED")
    journal.close()
    return journal


@contextmanager
def follow(journal: Journal) -> Iterator[Publisher]:
    with (journal.folder / "journal.jsonl").open("rb") as file:
        yield Publisher(file, journal.folder, "graft")


def test_a_journal_that_goes_on_goes_on_in_the_same_run_and_no_point_is_told_twice(
    root: Path, interrupted: Journal
) -> None:
    uri = default_tracking_uri(root)
    (left,) = runs(uri)
    assert left.info.status == "KILLED"
    again = Journal.start(interrupted.folder, HEADER)
    with follow(again) as publisher:
        publisher.publish()
        (run,) = runs(uri)
        assert (run.info.run_id, run.info.status) == (left.info.run_id, "RUNNING")
        assert run.info.start_time == left.info.start_time
        assert points(uri, run) == points(uri, left)
        train(again, 1, 5)
        again.system({"system/process_memory_megabytes": 6.0})
        publisher.publish()
        again.finish({}, {})
        publisher.finish("KILLED")
    (after,) = runs(uri)
    assert (after.info.run_id, after.info.status) == (left.info.run_id, "FINISHED")
    assert points(uri, after) == recorded(read_journal(again.folder / "journal.jsonl"))
    assert len(points(uri, after)) == 5 * 3 + 2


def test_a_journal_begun_anew_on_another_machine_replaces_the_run(root: Path, interrupted: Journal) -> None:
    uri = default_tracking_uri(root)
    (left,) = runs(uri)
    again = Journal.start(interrupted.folder, HEADER, {"processor": "another"})
    train(again, 1, 1)
    with follow(again) as publisher:
        publisher.publish()
    (run,) = runs(uri)
    assert run.info.run_id != left.info.run_id
    assert len(points(uri, run)) == 3


def test_a_run_that_knows_more_than_its_journal_after_a_power_cut_is_replaced(root: Path, interrupted: Journal) -> None:
    uri, path = default_tracking_uri(root), interrupted.folder / "journal.jsonl"
    (left,) = runs(uri)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))  # two of three epochs
    again = Journal.start(interrupted.folder, HEADER)
    train(again, 1, 3)
    with follow(again) as publisher:
        publisher.publish()
    (run,) = runs(uri)
    assert run.info.run_id != left.info.run_id
    assert points(uri, run) == recorded(read_journal(path))
    assert len(points(uri, run)) == 9


def test_a_run_that_the_next_training_has_deleted_is_let_go(root: Path, journal: Journal, publisher: Publisher) -> None:
    uri = default_tracking_uri(root)
    publisher.publish()
    (run,) = runs(uri)
    MlflowClient(uri).delete_run(run.info.run_id)
    publisher.finish("KILLED")
    train(journal, 1, 1)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        publisher.publish()
    assert runs(uri) == []


def test_another_server_at_the_address_is_told_from_the_first_epoch(
    root: Path,
    journal: Journal,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import graft.live_publisher as module

    uri = default_tracking_uri(root)
    train(journal, 1, 2)
    publisher.publish()
    (old,) = runs(uri)

    def silent(journal: Any) -> None:
        raise UnreachableError(f"no answer from MLflow at {uri}")

    with monkeypatch.context() as down:
        down.setattr(module, "epoch_metrics", silent)
        train(journal, 3, 3)
        with pytest.raises(UnreachableError):
            publisher.publish()
        publisher.finish("KILLED")  # nobody answers that either
    new_server(root, tmp_path_factory.getbasetemp())
    publisher.publish()
    (new,) = runs(uri)
    assert new.info.run_id != old.info.run_id
    assert len(points(uri, new)) == 9
