"""Commands about the runs in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer


def track() -> None:
    """Tell MLflow what it does not know yet, for instance after its server was down."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "track"]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def sync() -> None:
    """Tell a tracking server everything that this project knows of its runs, for instance one that is empty."""
    from graft import syncing

    typer.echo(syncing.sync())


def ui(port: Annotated[int, typer.Option(help="On the loopback interface.")] = 5000) -> None:
    """Open MLflow's UI on the pipeline's runs."""
    from graft.journal import project_root
    from graft.mlflow_server import MlflowClient, create_database, shown, tracking_uri
    from graft.params import load_params
    from graft.runs_page import runs_page
    from graft.stages import PARAMS_FILE
    from graft.team_settings import LOOPBACK_HOSTS

    uri = tracking_uri(project_root())
    if uri.startswith("http"):
        typer.echo(f"MLFLOW_TRACKING_URI names a server, which shows the runs itself: open {shown(uri)}")
        return
    create_database(uri)
    page = runs_page(MlflowClient(uri), load_params(PARAMS_FILE).tracking.experiment)
    typer.echo(f"MLflow shows {shown(uri)} at http://127.0.0.1:{port}{page} (Ctrl-C ends it)")
    arguments = ["ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    hosts = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS") or LOOPBACK_HOSTS
    # The address in the environment: a command line, and a password in it, is seen by all users of the machine.
    environment = os.environ | {"MLFLOW_SERVER_ALLOWED_HOSTS": hosts, "MLFLOW_BACKEND_STORE_URI": uri}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *arguments], environment)
