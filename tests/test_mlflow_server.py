import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from graft.mlflow_server import MlflowException, UnreachableError, connect, default_tracking_uri, reachable, shown


def test_the_default_store_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


def test_an_address_is_shown_without_its_password():
    assert shown("https://me:secret@host/path") == "https://host/path"
    assert shown("sqlite:///a@b.db") == "sqlite:///a@b.db"


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


@pytest.mark.parametrize("module", ["nested_runs", "tracking"])
def test_telemetry_is_off_before_mlflow_is_imported(module):
    code = (
        f"import sys, graft.{module}; from mlflow.telemetry.client import get_telemetry_client\n"
        "sys.exit(get_telemetry_client() is not None or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "CI", "PYTEST"))}
    assert subprocess.run([sys.executable, "-c", code], env=clean).returncode == 0
