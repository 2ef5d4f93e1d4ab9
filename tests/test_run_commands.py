import os
import subprocess
import sys
from pathlib import Path

import pytest

from graft.commands import runs
from graft.mlflow_server import connect, default_tracking_uri
from graft.team_settings import LOOPBACK_HOSTS


def graft(*arguments, cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, "-m", "graft.cli", *arguments],
        cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_ui_of_a_server_is_the_servers_own(tmp_path):
    done = graft("ui", cwd=tmp_path, MLFLOW_TRACKING_URI="https://me:secret@mlflow.example:443")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "MLFLOW_TRACKING_URI names a server, which shows the runs itself: open https://mlflow.example:443\n"
    )


def test_the_ui_names_the_page_that_lists_the_models(tmp_path, monkeypatch, capsys):
    uri = default_tracking_uri(tmp_path)
    monkeypatch.setattr(os, "execve", lambda *process: None)
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runs.ui(5001)
    assert "at http://127.0.0.1:5001/ (Ctrl-C" in capsys.readouterr().out
    _, experiment = connect(uri, "graft", tmp_path)
    runs.ui(5001)
    address = f"http://127.0.0.1:5001/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert f"at {address}&viewStateShareKey=models (Ctrl-C" in capsys.readouterr().out


@pytest.mark.parametrize(("chosen", "expected"), [("", LOOPBACK_HOSTS), ("ui.example.org", "ui.example.org")])
def test_the_ui_takes_the_hosts_of_this_machine_alone_unless_others_are_named(tmp_path, monkeypatch, chosen, expected):
    become = []
    monkeypatch.setattr(os, "execve", lambda *process: become.append(process))
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", chosen)
    runs.ui(5001)
    ((_, command, environment),) = become
    assert command[1:6] == ["-m", "mlflow", "ui", "--host", "127.0.0.1"]
    store = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/runs.db"}
    assert environment == os.environ | {"MLFLOW_SERVER_ALLOWED_HOSTS": expected} | store


def test_outside_of_a_project_it_is_one_message(tmp_path):
    done = graft("sync", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "graft: params.yaml does not exist; run from the project's top folder or name the file\n"
