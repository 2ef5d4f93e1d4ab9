"""MLflow for a team: runs in PostgreSQL, artifacts that the server hands out, and a login for everyone."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from graft.errors import GraftError
from graft.team_settings import (
    Backend,
    ServerError,
    admin,
    check_first_start,
    check_settings,
    database,
    server_environment,
)

FOLDER = ".server"
PROCESS = "mlflow.pid"  # in the folder: the ids of MLflow's first process and of its starter
LOGIN = ("--app-name", "basic-auth")
GRACE = 15  # seconds that MLflow has to end


class _EndedBySignal(BaseException):
    """Somebody asked the server to end."""


def run(host: str, port: int) -> None:
    """Run MLflow until SIGINT, SIGTERM or SIGHUP ends it, and with it whatever it started.

    Args:
        host: the interface to listen on.
        port: 1..65535.

    Raises:
        ServerError: a setting is missing or wrong, the database or the port cannot be had, another server runs in
            this folder, or MLflow ended by itself.
        PostgresError: no database is set, and PostgreSQL is not installed or does not start.
    """
    settings, folder = dict(os.environ), Path.cwd() / FOLDER
    check_settings(settings, host)
    try:
        with _signals_end_it():
            _end_left_server(folder / PROCESS)
            _check_port(host, port)
            _make_private(folder)
            with database(settings, folder / "postgres") as backend:
                check_first_start(settings, backend)
                _serve(host, port, server_environment(settings, backend, folder), backend, folder / PROCESS)
    except _EndedBySignal:
        print("server: ended", flush=True)


def command(host: str, port: int) -> list[str]:
    """What is run; everything else is in the environment."""
    address = ["--host", host, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", *LOGIN, *address]


def _make_private(folder: Path) -> None:
    """The folder, closed to the other users of this machine: MLflow's login protects what it hands out alone."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)  # PostgreSQL's user passes through it where this one is root
    (folder / "artifacts").mkdir(exist_ok=True)
    (folder / "artifacts").chmod(0o700)


def _end_left_server(file: Path) -> None:
    """End the MLflow of a starter that was killed; an id that by now is another program's is left alone."""
    try:
        left, starter = map(int, file.read_text().split())
    except (FileNotFoundError, ValueError):  # none was started, or its starter was killed while writing
        return
    try:
        import psutil
    except ModuleNotFoundError:  # in a container, whose processes end with it
        return
    try:
        process = psutil.Process(left)
        ours = set(LOGIN) <= set(process.cmdline()) and Path(process.cwd()) == Path.cwd()
        if not ours:
            return
        if process.ppid() == starter:
            raise ServerError(f"another server runs in {Path.cwd()}, as process {starter}; end it first")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return
    print(f"server: ending process {left} of a server that was killed", flush=True)
    members = [one for one in psutil.process_iter() if _group(one.pid) == left]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(left, number)
        psutil.wait_procs(members, GRACE)


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise ServerError(f"cannot listen on {host}, port {port}: {error.strerror}; give another --port") from None


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """The block is left by _EndedBySignal; while it is being left, more signals change nothing."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        for ending in before:
            signal.signal(ending, signal.SIG_IGN)
        raise _EndedBySignal

    endings = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {ending: signal.getsignal(ending) for ending in endings}
    before = {ending: handler for ending, handler in before.items() if handler is not signal.SIG_IGN}  # as under nohup
    for ending in before:
        signal.signal(ending, leave)
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


def _serve(host: str, port: int, environment: Mapping[str, str], backend: Backend, file: Path) -> None:
    """MLflow's processes, from their start to the end of the last; the file says meanwhile which they are."""
    process = subprocess.Popen(command(host, port), env=environment, start_new_session=True)
    try:
        file.write_text(f"{process.pid} {os.getpid()}\n")
        uri = f"http://{_reached_at(host)}:{port}"
        while process.poll() is None and not _answers(uri):
            time.sleep(0.2)
        if process.poll() is None:
            print(_welcome(uri, environment, backend), flush=True)
        raise ServerError(f"MLflow ended by itself, with {process.wait()}; its messages are above")
    finally:
        _end_group(process)
        file.unlink(missing_ok=True)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the server's session, first by asking."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)  # it waits for the others itself
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reached_at(host: str) -> str:
    """An address of this machine at which the interface is reached."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = everywhere.get(host, host)
    return f"[{host}]" if ":" in host else host


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _welcome(uri: str, environment: Mapping[str, str], backend: Backend) -> str:
    name = admin(environment)
    add = (
        "import getpass; from mlflow.server.auth.client import AuthServiceClient as Users;"
        f" Users('{uri}').create_user(input('name: '), getpass.getpass())"
    )
    return f"""server: MLflow answers at {uri}
  runs and users: PostgreSQL, database {backend.url.database} at {backend.url.host}:{backend.url.port or 5432}
  artifacts:      {environment["MLFLOW_ARTIFACTS_DESTINATION"]}
A client logs in by its environment:
  export MLFLOW_TRACKING_URI={uri} MLFLOW_TRACKING_USERNAME={name}
  read -rs MLFLOW_TRACKING_PASSWORD && export MLFLOW_TRACKING_PASSWORD
{name} adds users in a browser at {uri}/signup, or in such a shell:
  python -c "{add}"
"""


def main() -> None:
    """Run the server where the rest of the package is not installed (docker/Dockerfile)."""
    parser = argparse.ArgumentParser(prog="python -m graft.team_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    try:
        run(arguments.host, arguments.port)
    except GraftError as error:
        raise SystemExit(f"server: {error}") from None


if __name__ == "__main__":
    main()
