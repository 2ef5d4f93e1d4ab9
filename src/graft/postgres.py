"""A private PostgreSQL in a folder: made where it is missing, started on this machine alone, stopped at the end."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from graft.errors import GraftError
from graft.locks import ALONE, AT_ONCE, acquire

SUPERUSER = "graft"
HOST = "127.0.0.1"
PATIENCE = 60  # seconds to start or stop in; recovery after a kill included


class PostgresError(GraftError):
    """PostgreSQL is not installed, or does not start."""


def find_binaries(major: str | None = None) -> Path:
    """The newest folder that has PostgreSQL's server programs: of PATH, else where Debian keeps them.

    Args:
        major: the version that it must have, such as "15"; a folder of data belongs to one.

    Raises:
        PostgresError: there is none.
    """
    for folder in _folders():
        if major is None or _major(folder) == major:
            return folder
    found = ", ".join(_major(folder) for folder in _folders()) or "none"
    raise PostgresError(
        f"expected the programs of PostgreSQL{f' {major}' if major else ''} (initdb, pg_ctl) on PATH or under"
        f" /usr/lib/postgresql, found {found}; install it (Debian: apt-get install postgresql)"
    )


def _folders() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -float(folder.parent.name))
    candidates = [Path(on_path).resolve().parent] if on_path else []
    yield from (folder for folder in [*candidates, *debian] if {"initdb", "pg_ctl"} <= set(os.listdir(folder)))


def _major(folder: Path) -> str:
    words = subprocess.check_output([folder / "initdb", "--version"], text=True)
    version = re.search(r"\d+", words)
    return version.group() if version else words.strip()


class Cluster:
    """A PostgreSQL that runs during the block, on the loopback interface, with a password of its own.

    The folder belongs to it: `data`, `password` (readable by the owner alone) and `log`. A server that outlived a
    killed process is stopped first. Under root, which PostgreSQL refuses, it runs as the user `postgres`.

    Attributes:
        port: chosen free at each start.
        password: of SUPERUSER.

    Raises:
        PostgresError: PostgreSQL is not installed in the version of the folder's data, another process runs it, or it
            does not start.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Prepare; nothing is started or written.

        Args:
            folder: made where it is missing.
            durable: whether to wait for the disk; without it, a crash of the machine loses the data.
        """
        self.folder, self._durable = folder.resolve(), durable
        self._data = self.folder / "data"
        self.port, self.password = 0, ""
        self._binaries = Path()
        self._lock = -1

    def uri(self, database: str, *, password: bool = True) -> str:
        """The address of a database for SQLAlchemy; with psycopg2, as its own default changed between versions."""
        login = f"{SUPERUSER}:{quote(self.password, safe='')}" if password else SUPERUSER
        return f"postgresql+psycopg2://{login}@{HOST}:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> None:
        """Make a database where it is missing."""
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                exists = sqlalchemy.text("SELECT 1 FROM pg_database WHERE datname = :name")
                if connection.execute(exists, {"name": name}).first() is None:
                    quoted = engine.dialect.identifier_preparer.quote(name)
                    connection.execute(sqlalchemy.text(f"CREATE DATABASE {quoted}"))
        finally:
            engine.dispose()

    def __enter__(self) -> Cluster:
        """Make the data where it is missing, and start."""
        account = _account()  # first: without it nothing can be made
        self._make_folder(account)
        try:
            self._lock = acquire(self.folder / "lock", ALONE | AT_ONCE)
        except BlockingIOError:
            raise PostgresError(f"another process runs the PostgreSQL of {self.folder}; end it first") from None
        try:
            version = self._data / "PG_VERSION"
            self._binaries = find_binaries(version.read_text().strip() if version.exists() else None)
            if not version.exists():
                self._initialise(account)
            self.password = (self.folder / "password").read_text().strip()
            self._end_left_server()
            self._start()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; clients are disconnected, what they committed stays."""
        try:
            self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", PATIENCE)
        finally:
            self._release()

    def _make_folder(self, account: dict[str, Any]) -> None:
        """The folder, owned by the account that PostgreSQL runs under."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account:
            owner = pwd.getpwnam(account["user"])
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            if subprocess.run(["test", "-w", self.folder], cwd="/", **account).returncode:
                raise PostgresError(
                    f"PostgreSQL does not run as root, and the user {account['user']} cannot reach {self.folder}: run"
                    " this as another user than root, or from a folder that everyone may enter"
                )

    def _initialise(self, account: dict[str, Any]) -> None:
        """The data, under their name only when they are whole."""
        partial, password = self.folder / "data.partial", self.folder / "password"
        shutil.rmtree(partial, ignore_errors=True)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        if account:
            shutil.chown(password, account["user"], account["group"])
        login = [f"--username={SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        options = ["--encoding=UTF8", "--locale=C", *([] if self._durable else ["--no-sync"])]
        self._run("initdb", "-D", partial, *login, *options)
        partial.rename(self._data)

    def _end_left_server(self) -> None:
        """Stop a server whose starter was killed; forget a process id that by now is another program's."""
        import psutil

        file = self._data / "postmaster.pid"
        try:
            process = psutil.Process(int(file.read_text().split("\n")[0]))
            ours = str(self._data) in process.cmdline()
        except (FileNotFoundError, psutil.NoSuchProcess):
            return
        if ours:
            self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", PATIENCE)
        else:
            file.unlink()

    def _start(self) -> None:
        for last in (False, False, True):  # a port that was free may be taken a moment later
            with socket.socket() as free:
                free.bind((HOST, 0))
                self.port = free.getsockname()[1]
            settings = [f"port={self.port}", f"listen_addresses={HOST}", "unix_socket_directories="]
            settings += [] if self._durable else ["fsync=off", "synchronous_commit=off"]
            log, options = self.folder / "log", " ".join(f"-c {setting}" for setting in settings)
            try:
                self._run("pg_ctl", "start", "-D", self._data, "-w", "-t", PATIENCE, "-l", log, "-o", options)
                return
            except PostgresError as error:
                told = log.read_text(errors="replace").splitlines()[-4:] if log.exists() else []
                if last or not any("could not bind" in line for line in told):
                    raise PostgresError("; ".join([str(error), *told])) from None
            except BaseException:  # an interrupt, before it is known whether the server came up
                subprocess.run([self._binaries / "pg_ctl", "stop", "-D", self._data, "-m", "fast"], **_surroundings())
                raise

    def _run(self, program: str, *arguments: str | Path | int) -> None:
        command: Sequence[str] = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_surroundings())
        if done.returncode:
            said = " ".join(done.stdout.split("\n")[-4:]).strip()
            raise PostgresError(f"{program} of PostgreSQL ended with {done.returncode} in {self.folder}: {said}")

    def _release(self) -> None:
        os.close(self._lock)


def _surroundings() -> dict[str, Any]:
    """For a program of PostgreSQL: its account, and an environment without what clients or secrets are set by."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    return {"cwd": "/", "env": environment, "stdin": subprocess.DEVNULL, **_account()}


def _account() -> dict[str, Any]:
    """Arguments of subprocess by which a program runs as an ordinary user."""
    if os.geteuid() != 0:
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise PostgresError(
            "PostgreSQL does not run as root, and there is no user postgres to run it as: run this as another user"
            " than root, or set MLFLOW_BACKEND_STORE_URI to a PostgreSQL that runs already"
        ) from None
    return {"user": "postgres", "group": "postgres", "extra_groups": []}
