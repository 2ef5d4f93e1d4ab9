import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from graft import mlflow_server
from graft.mlflow_server import (
    MlflowException,
    RefusedError,
    UnreachableError,
    collided,
    connect,
    default_tracking_uri,
    reachable,
    shown,
    tracking_uri,
)


def test_the_default_store_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


def test_an_address_is_shown_without_its_password():
    assert shown("https://me:secret@host/path") == "https://host/path"
    assert shown("sqlite:///a@b.db") == "sqlite:///a@b.db"
    assert shown("postgresql+psycopg2://me:p%40ss@host:5432/db") == "postgresql+psycopg2://host:5432/db"
    assert shown("http://me:p@ss@host") == "http://host"
    assert shown("no http://me:secret@a, no http://b/c@d") == "no http://a, no http://b/c@d"


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    uri = f"http://me:secret@127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with pytest.raises(UnreachableError, match=rf"no answer from MLflow at http://127.0.0.1:{port}$"), reachable(uri):
        connect(uri, "graft", tmp_path)
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ  # it holds for the first answer alone


def test_a_server_that_refuses_is_not_taken_for_one_that_is_down():
    with pytest.raises(MlflowException, match=r"^no$"), reachable("http://somewhere"):
        raise MlflowException("no")


@pytest.mark.parametrize("address", ["sqlite:///own/runs.db", "sqlite:///{root}/own/runs.db"])
def test_a_database_of_ones_own_and_its_artifacts_are_not_in_an_experiments_copy(tmp_path, monkeypatch, address):
    root, copy = tmp_path / "project", tmp_path / "copy"
    root.mkdir()
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(root=root))
    uri = tracking_uri(root)
    client, experiment = connect(uri, "graft", root)
    assert uri == f"sqlite:///{root}/own/runs.db"
    assert client.get_experiment(experiment).artifact_location == f"{root}/own/mlartifacts"
    assert not list(copy.iterdir())


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///somewhere", r"must begin with one of http, .*, received file:///somewhere$"),
        ("runs", r"must begin with one of http, .*, received runs$"),
        ("http://me:p/ss@host:5000", r"must be an address such as .*, received something that cannot be read as one$"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_line(tmp_path, monkeypatch, uri, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://unchanged")
    with pytest.raises(RefusedError, match=rf"^MLFLOW_TRACKING_URI {expected}"), reachable(uri):
        connect(uri, "graft", tmp_path)


def test_an_experiment_that_a_person_deleted_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://unchanged")
    client, experiment = connect(default_tracking_uri(tmp_path), "graft", tmp_path)
    client.delete_experiment(experiment)
    with pytest.raises(RefusedError, match=r"has the experiment 'graft' among its deleted ones: restore it there, or"):
        connect(default_tracking_uri(tmp_path), "graft", tmp_path)


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (401, b"log in", r"asks for another login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD$"),
        (403, b"no", r"lets this user not change the experiment or model that `tracking` in params.yaml names; .*"),
    ],
)
def test_a_login_that_does_not_do_is_told_in_one_line(tmp_path, monkeypatch, status, content, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://unchanged")  # set anew by connect
    with (
        answering(status, content) as uri,
        pytest.raises(RefusedError, match=rf"^MLflow at {uri} {expected}"),
        reachable(uri),
    ):
        connect(uri, "graft", tmp_path)


def test_a_server_that_accepts_and_never_answers_is_given_up_after_its_first_silence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://unchanged")
    monkeypatch.setitem(mlflow_server.FIRST_ANSWER, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri, started = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with pytest.raises(UnreachableError), reachable(uri):
            connect(uri, "graft", tmp_path)
    assert time.monotonic() - started < 30  # MLflow alone would try for minutes


@contextmanager
def answering(status, content):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


CONNECT = """\
import sys; from pathlib import Path; from graft.mlflow_server import connect, default_tracking_uri
root = Path(sys.argv[1]); print(connect(default_tracking_uri(root), "graft-" + sys.argv[2], root)[1])
"""


def size(path):
    with suppress(FileNotFoundError):  # it may be renamed at this moment
        return path.stat().st_size
    return 0


def connecting(root, name):
    command = [sys.executable, "-c", CONNECT, str(root), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_that_need_a_database_at_once_make_one(tmp_path):
    """Left to themselves, they would run its migrations at the same time, and fail."""
    processes = [connecting(tmp_path, str(number)) for number in range(3)]
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert sorted(answers) == ["1", "2", "3"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_process_that_is_killed_while_it_makes_the_database_leaves_none_that_is_broken(tmp_path):
    process, partial = connecting(tmp_path, "1"), tmp_path / "mlflow.db.partial"
    while not size(partial):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    assert connect(default_tracking_uri(tmp_path), "graft", tmp_path)[1] == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("module", ["nested_runs", "tracking"])
def test_telemetry_is_off_before_mlflow_is_imported(module):
    code = (
        f"import sys, graft.{module}; from mlflow.telemetry.client import get_telemetry_client\n"
        "sys.exit(get_telemetry_client() is not None or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "CI", "PYTEST"))}
    assert subprocess.run([sys.executable, "-c", code], env=clean).returncode == 0


def test_a_row_that_another_machine_wrote_first_is_told_from_other_errors():
    assert collided(MlflowException('(psycopg2.errors.UniqueViolation) duplicate key value violates "metric_pk"'))
    assert not collided(MlflowException("Invalid value for parameter 'name'"))
