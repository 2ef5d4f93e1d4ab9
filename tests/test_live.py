from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_training import LiveTraining, milliseconds, recorded
from real_server import DelayingProxy, RealServer, free_port

from graft.mlflow_server import default_tracking_uri
from graft.publisher_process import published_live

# isort: split
from mlflow import MlflowClient
from mlflow.entities import Run

AT_ONCE = 3.0  # seconds: no epoch waits for a server
AT_THE_END = 8.0  # seconds that a training lives on at most; 3 by its own clock
NOTICE = "; the training goes on and track publishes what is missing"


def runs(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("graft")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def points(uri: str, run: Run) -> list[tuple[str, int, int, float]]:
    """What MLflow holds, as live_training.recorded."""
    client = MlflowClient(uri)
    history = [point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)]
    return sorted((point.key, point.step, point.timestamp, point.value) for point in history)


def eventually(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def followed(uri: str, training: LiveTraining) -> bool:
    """Whether MLflow holds all that the training recorded by now, in one run."""
    found = runs(uri)
    return len(found) == 1 and points(uri, found[0]) == recorded(training.journal())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def experiment(server: RealServer) -> Iterator[RealServer]:
    """The server, without an experiment of that name afterwards."""
    yield server
    if (found := MlflowClient(server.store).get_experiment_by_name("graft")) is not None:
        MlflowClient(server.store).rename_experiment(found.experiment_id, f"graft {found.experiment_id}")


def test_curves_are_there_while_the_training_runs_and_its_run_is_finished_by_its_end(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path)
    with LiveTraining(tmp_path) as training:
        training.epochs(3)
        eventually(lambda: (tmp_path / "mlflow.db").exists() and followed(uri, training))
        (run,) = runs(uri)
        assert (run.info.status, run.data.tags["graft.state"]) == ("RUNNING", "training")
        assert run.data.params["train.learning_rate"] == "0.001"
        training.say("sample")
        training.epochs(2)
        eventually(lambda: followed(uri, training))
        training.epochs(4, pause=0)
        assert training.end() < AT_THE_END
        assert not training.published()
    (after,) = runs(uri)
    journal = training.journal()
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert after.info.start_time == milliseconds(journal.header["started"])
    assert after.info.end_time == milliseconds(journal.ended)
    assert points(uri, after) == recorded(journal)
    assert len(recorded(journal)) == 9 * 4 + 1
    assert "graft.complete" not in after.data.tags
    assert training.printed == []


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_training_that_breaks_off_leaves_no_run_that_seems_to_go_on(tmp_path: Path, status: str) -> None:
    uri = default_tracking_uri(tmp_path)
    with LiveTraining(tmp_path) as training:
        training.epochs(2)
        eventually(lambda: (tmp_path / "mlflow.db").exists() and followed(uri, training))
        training.epochs(1)
        if status == "KILLED":
            training.kill()
        else:
            training.end("fail")
        training.publisher.wait(timeout=10)
    (run,) = runs(uri)
    assert run.info.status == status
    assert run.info.end_time is not None
    assert points(uri, run) == recorded(training.journal())
    assert training.printed == ([] if status == "KILLED" else ["the loss must stay finite"])


@pytest.mark.slow
@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_training_that_goes_on_after_an_interruption_goes_on_in_the_same_run(tmp_path: Path, status: str) -> None:
    uri = default_tracking_uri(tmp_path)
    with LiveTraining(tmp_path) as first:
        first.epochs(5)
        eventually(lambda: (tmp_path / "mlflow.db").exists() and followed(uri, first))
        first.say("sample")
        if status == "KILLED":
            first.kill()
        else:
            first.end("fail")
        first.publisher.wait(timeout=10)
        (left,) = runs(uri)
        assert left.info.status == status
    with LiveTraining(tmp_path) as second:
        eventually(lambda: runs(uri)[0].info.status == "RUNNING")
        second.epochs(7)  # five of them once more
        eventually(lambda: followed(uri, second))
        second.end()
    (run,) = runs(uri)
    assert (run.info.run_id, run.info.status) == (left.info.run_id, "FINISHED")
    assert points(uri, run) == recorded(second.journal())
    assert len(points(uri, run)) == 7 * 4 + 1
    assert run.info.start_time == left.info.start_time
    (said,) = second.printed
    assert said.endswith(": 5 epochs recorded")


@pytest.mark.slow
def test_a_run_that_is_complete_is_not_touched_by_another_training_of_its_key(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path)
    with LiveTraining(tmp_path) as first:
        first.epochs(2)
        eventually(lambda: (tmp_path / "mlflow.db").exists() and followed(uri, first))
        first.end()
    (run,) = runs(uri)
    MlflowClient(uri).set_tag(run.info.run_id, "graft.complete", "true")
    before = [run.to_dictionary() for run in runs(uri)]
    with LiveTraining(tmp_path) as second:
        second.epochs(3)
        eventually(lambda: not second.published())  # it has nothing to do
        second.epochs(1)
        second.end()
    assert [run.to_dictionary() for run in runs(uri)] == before
    assert second.printed == []


def test_a_server_that_is_down_costs_a_notice_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with LiveTraining(tmp_path, f"http://me:secret@127.0.0.1:{port}") as training:
        assert training.epochs(60) < AT_ONCE
        eventually(lambda: training.say("nothing") < AT_ONCE and bool(training.printed))
        time.sleep(2)  # it tries again meanwhile
        assert training.end() < AT_THE_END
    assert training.printed == [f"live: no answer from MLflow at http://127.0.0.1:{port}{NOTICE}"]
    assert training.journal().complete


def test_a_publisher_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with LiveTraining(tmp_path) as training:
        training.publisher.suspend()
        training.epochs(2)
        assert training.end() < AT_THE_END
        assert not training.published()
    assert training.journal().complete


def test_a_machine_that_can_start_no_further_process_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*arguments: Any, **options: Any) -> None:
        raise OSError("[Errno 11] Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", exhausted)
    with published_live(tmp_path, "graft"):
        pass
    reason = "live: [Errno 11] Resource temporarily unavailable"
    assert capsys.readouterr().out == f"{reason}; the training goes on and track publishes it\n"


class Refusal(BaseHTTPRequestHandler):
    """Answers as a server whose password the training does not know."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated.\nAsk <b>me:secret@</b>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


def test_a_server_that_refuses_is_left_alone_and_its_reason_told_in_one_line(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusal) as refusing:
        thread = threading.Thread(target=refusing.serve_forever)
        thread.start()
        with LiveTraining(tmp_path, f"http://127.0.0.1:{refusing.server_port}") as training:
            training.epochs(1)
            eventually(lambda: not training.published())
            assert training.epochs(1) < AT_ONCE
            assert training.end() < AT_THE_END
        refusing.shutdown()
        thread.join()
    (notice,) = training.printed
    assert notice.startswith("live: ")
    assert "asks for another login" in notice
    assert notice.endswith(NOTICE)


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_word_and_it_says_that_the_training_is_over(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path)
    with LiveTraining(tmp_path) as training:
        training.epochs(2)
        eventually(lambda: (tmp_path / "mlflow.db").exists() and followed(uri, training))
        assert os.getpgid(training.publisher.pid) != os.getpgid(training.publisher.ppid())
        training.publisher.send_signal(signal.SIGINT)  # for good measure: a terminal's does not reach its group
        psutil.Process(training.publisher.ppid()).send_signal(signal.SIGINT)
        assert training.end() < AT_THE_END
        training.publisher.wait(timeout=10)
    assert [run.info.status for run in runs(uri)] == ["KILLED"]
    assert training.printed[-1] == "KeyboardInterrupt"
    assert sum(line.startswith("Traceback") for line in training.printed) == 1  # the training's own


@pytest.mark.slow
def test_curves_go_on_in_the_same_run_after_the_server_was_killed_and_came_back(
    tmp_path: Path, experiment: RealServer
) -> None:
    server = experiment
    with LiveTraining(tmp_path, server.uri) as training:
        training.epochs(3)
        eventually(lambda: followed(server.store, training))
        (run,) = runs(server.store)
        server.kill()
        assert training.epochs(40) < AT_ONCE
        eventually(lambda: training.say("nothing") < AT_ONCE and bool(training.printed))
        server.start()
        training.epochs(2)
        eventually(lambda: followed(server.store, training))
        assert training.end() < AT_THE_END
    (after,) = runs(server.store)
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert len(points(server.store, after)) == 45 * 4
    assert points(server.store, after) == recorded(training.journal())
    assert training.printed == [f"live: no answer from MLflow at {server.uri}{NOTICE}"]


@pytest.mark.slow
def test_a_server_that_comes_up_late_is_told_everything(tmp_path: Path) -> None:
    server = RealServer(tmp_path / "server")
    with LiveTraining(tmp_path, server.uri) as training:
        training.epochs(3)
        eventually(lambda: training.say("nothing") < AT_ONCE and bool(training.printed))
        with server:
            eventually(lambda: followed(server.store, training))
            training.end()
            assert followed(server.store, training)
    assert training.printed == [f"live: no answer from MLflow at {server.uri}{NOTICE}"]


@pytest.mark.slow
def test_a_server_that_answers_too_late_holds_nothing_up_and_gets_nothing_twice(
    tmp_path: Path, experiment: RealServer
) -> None:
    """What it was asked in vain it does later, when it has been asked again."""
    server = experiment
    with DelayingProxy(server.port) as proxy, LiveTraining(tmp_path, uri := proxy.uri) as training:
        training.epochs(2)
        eventually(lambda: followed(server.store, training))
        proxy.delay = 10.0
        assert training.epochs(5) < AT_ONCE
        eventually(lambda: training.say("nothing") < AT_ONCE and bool(training.printed))
        assert training.epochs(5) < AT_ONCE
        proxy.delay = 0.0
        training.epochs(5)
        eventually(lambda: followed(server.store, training))
        proxy.delay = 10.0
        training.epochs(1)
        time.sleep(1.5)
        assert training.end() < AT_THE_END
    time.sleep(10)
    (run,) = runs(server.store)
    known, expected = points(server.store, run), recorded(training.journal())
    assert set(known) <= set(expected)
    assert len(known) == len(set(known))
    assert len(known) >= 17 * 4
    assert training.printed == [f"live: no answer from MLflow at {uri}{NOTICE}"]


@pytest.mark.slow
def test_a_server_that_is_too_slow_from_the_start_makes_one_run_once_it_is_not(
    tmp_path: Path, experiment: RealServer
) -> None:
    server = experiment
    with DelayingProxy(server.port) as proxy:
        proxy.delay = 6.0
        with LiveTraining(tmp_path, uri := proxy.uri) as training:
            assert training.epochs(5) < AT_ONCE
            eventually(lambda: training.say("nothing") < AT_ONCE and bool(training.printed))
            proxy.delay = 0.0
            eventually(lambda: followed(server.store, training))
            assert training.end() < AT_THE_END
    assert training.printed == [f"live: no answer from MLflow at {uri}{NOTICE}"]
