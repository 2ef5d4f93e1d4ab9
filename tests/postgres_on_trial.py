"""A team's MLflow server on PostgreSQL as `make server` runs it, without waiting for the disk.

pytestmark = [pytest.mark.slow, needs_postgres]

with team_server() as team:  # 10 s
    team.environment()  # by which a client logs in
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_server import LOOPBACK, PATIENCE, free_port

from graft.postgres import Cluster, PostgresError, find_binaries

PASSWORD = "pass: at/least 12%"  # as a person would choose it, hard to put into an address


def _postgres() -> str | None:
    """Why there is no PostgreSQL to test with, or None."""
    try:
        find_binaries()
    except PostgresError as error:
        return str(error)
    return None


needs_postgres = pytest.mark.skipif(_postgres() is not None, reason=str(_postgres()))


@dataclass(frozen=True)
class TeamServer:
    """A running server.

    Attributes:
        uri: of MLflow.
        user: the administrator.
        password: of the user.
        folder: its working directory; artifacts are in `.server/artifacts`.
        store: the database's own address, with its password, for a look past the server.
        process: of `graft.team_server`.
        log: what it and MLflow said.
    """

    uri: str
    user: str
    password: str
    folder: Path
    store: str
    process: subprocess.Popen[bytes]
    log: Path

    def environment(self, user: str | None = None, password: str | None = None) -> dict[str, str]:
        """This process's environment, with a login; the administrator's if no other is given."""
        login = {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user or self.user,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }
        return without_mlflow(os.environ) | login


def without_mlflow(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nothing is set up, but for MLflow's telemetry, which stays off."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("MLFLOW_", "PG", "GRAFT_"))}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def open_folder() -> Iterator[Path]:
    """An empty folder that all users may enter: pytest's own are closed to PostgreSQL's user where this one is root."""
    folder = Path(tempfile.mkdtemp(prefix="graft-server-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def started(
    folder: Path, environment: Mapping[str, str], port: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """`graft server` with an environment in a folder, answering: its process, address and log; ended with the block."""
    port, log = port or free_port(), folder / "server.log"
    log.unlink(missing_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "graft.team_server", "--port", str(port)],
            cwd=folder,
            env=without_mlflow(os.environ) | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while "MLflow answers at" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server: {log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield process, f"http://{LOOPBACK}:{port}", log
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server as a person does; what it started ends with it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@contextmanager
def team_server(settings: Mapping[str, str] | None = None) -> Iterator[TeamServer]:
    """A server with a database of its own; all is gone after the block.

    Args:
        settings: environment variables, in addition to those that it cannot do without.
    """
    with open_folder() as folder, Cluster(folder / "postgres", durable=False) as cluster:
        cluster.create_database("mlflow")
        store = cluster.uri("mlflow")
        needed = {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
        with started(folder, needed | dict(settings or {})) as (process, uri, log):
            yield TeamServer(uri, "admin", PASSWORD, folder, store, process, log)
