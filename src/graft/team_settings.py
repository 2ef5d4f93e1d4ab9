"""How a team's MLflow server is set up: from a team's environment variables to the checked ones of the server.

Names are MLflow's own where MLflow has one (docs/server.md). A password stands neither on a command line, where all
users of the machine see it, nor in an address, which ends up in logs.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graft.errors import GraftError
from graft.postgres import Cluster

if TYPE_CHECKING:
    from sqlalchemy import URL

DATABASE = "mlflow"
ADMIN = "admin"
PASSWORD_LENGTH = 12  # the least that MLflow takes
KNOWN_PASSWORD = "password1234"  # of older MLflow's settings; MLflow refuses it
PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "NO_PERMISSIONS")
REMEMBERED = 60  # seconds in which a login that was checked is not checked again, which would cost 0.1 s of CPU
FORM = "postgresql://user@host/database"
# Names of this machine, with and without a port. MLflow's own also have 10.* and 192.168.*, which match 10.evil.com.
LOOPBACK_HOSTS = "localhost,127.0.0.1,[::1],localhost:*,127.0.0.1:*,[[]::1]:*"


class ServerError(GraftError):
    """The server cannot be started as it is set up, or ended by itself."""


@dataclass(frozen=True)
class Backend:
    """A database.

    Attributes:
        url: for SQLAlchemy, with the driver, without a password.
        password: for libpq's PGPASSWORD; None where there is none.
    """

    url: URL
    password: str | None


def admin(settings: Mapping[str, str]) -> str:
    """The name of the user that the first start makes."""
    return settings.get("MLFLOW_AUTH_ADMIN_USERNAME") or ADMIN


def check_settings(settings: Mapping[str, str], host: str) -> None:
    """Refuse what would leave the server open, before anything is started.

    Raises:
        ServerError: it listens beyond this machine without naming its hosts, allows hosts of others, has MLflow's
            checks switched off, or has an unknown permission.
    """
    hosts = _names(settings.get("MLFLOW_SERVER_ALLOWED_HOSTS", ""))
    if wide := [name for name in hosts if _matches_others(name)]:
        raise ServerError(
            f"MLFLOW_SERVER_ALLOWED_HOSTS must name the hosts, or patterns of one domain such as *.example.org;"
            f" received {wide[0]}, which would let web pages of others reach the server"
        )
    if not hosts and not _only_this_machine(host):
        raise ServerError(
            f"--host {host} listens beyond this machine: set MLFLOW_SERVER_ALLOWED_HOSTS to the names under which"
            " browsers and clients reach it, with the port, such as mlflow.example.org,mlflow.example.org:5000"
        )
    if settings.get("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "").lower() not in {"false", "0", ""}:
        raise ServerError("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE turns the check of hosts off; unset it")
    permission = settings.get("GRAFT_DEFAULT_PERMISSION") or PERMISSIONS[0]
    if permission not in PERMISSIONS:
        raise ServerError(f"GRAFT_DEFAULT_PERMISSION must be one of {', '.join(PERMISSIONS)}, received {permission!r}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _matches_others(pattern: str) -> bool:
    """Whether a pattern of hosts does not end in a domain; 10.0.* matches 10.0.evil.com as well."""
    name = re.sub(r":(\*|\d+)$", "", pattern)
    if re.fullmatch(r"(\[|\[\[\])[0-9A-Fa-f:.]+\]", name):  # IPv6, whose bracket a pattern writes as [[]
        return False
    domain = name.split(".")[-2:]
    is_domain = len(domain) == 2 and all(label and not re.search(r"[*?[]", label) for label in domain)
    return bool(re.search(r"[*?[]", name)) and not is_domain


def _only_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def database(settings: Mapping[str, str], folder: Path) -> Iterator[Backend]:
    """The team's PostgreSQL; where none is set, a private one in the folder, which runs during the block.

    Raises:
        ServerError: MLFLOW_BACKEND_STORE_URI is no address of a PostgreSQL.
        PostgresError: none is set, and PostgreSQL is not installed or does not start.
    """
    import sqlalchemy

    uri = settings.get("MLFLOW_BACKEND_STORE_URI")
    if uri:
        yield _given_database(uri, settings.get("PGPASSWORD"))
        return
    with Cluster(folder) as cluster:
        cluster.create_database(DATABASE)
        yield Backend(sqlalchemy.make_url(cluster.uri(DATABASE, password=False)), cluster.password)


def _given_database(uri: str, password: str | None) -> Backend:
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(uri)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise ServerError(f"MLFLOW_BACKEND_STORE_URI must be {FORM}, received no such address") from None
    if url.drivername not in {"postgresql", "postgresql+psycopg2"}:
        raise ServerError(
            f"MLFLOW_BACKEND_STORE_URI must be {FORM}, received {url.drivername}://...; many who write at once need a"
            " database server. For yourself alone there is `make ui`"
        )
    written = url.password or url.query.get("password") or password
    # The driver by its name: SQLAlchemy 2.1 made another the default, which is not installed.
    bare = url.set(drivername="postgresql+psycopg2").difference_update_query(["password"])._replace(password=None)
    return Backend(bare, str(written) if written else None)


def check_first_start(settings: Mapping[str, str], backend: Backend) -> None:
    """Refuse a first start without a password for its administrator, and a database that does not answer.

    Raises:
        ServerError: the message says which.
    """
    import sqlalchemy

    name, password = admin(settings), settings.get("MLFLOW_AUTH_ADMIN_PASSWORD", "")
    engine = sqlalchemy.create_engine(backend.url, connect_args={"password": backend.password, "connect_timeout": 10})
    known = sqlalchemy.text("SELECT 1 FROM users WHERE username = :name")
    try:
        with engine.connect() as connection:
            has_users = sqlalchemy.inspect(connection).has_table("users")
            first = not (has_users and connection.execute(known, {"name": name}).first())
    except sqlalchemy.exc.DBAPIError as error:
        raise ServerError(f"PostgreSQL cannot be used: {' '.join(str(error.orig).split())}") from None
    finally:
        engine.dispose()
    if first and (len(password) < PASSWORD_LENGTH or password == KNOWN_PASSWORD):
        raise ServerError(
            f"the first start makes the user {name}: set MLFLOW_AUTH_ADMIN_PASSWORD to at least {PASSWORD_LENGTH}"
            f" characters, other than {KNOWN_PASSWORD}; received {len(password)} characters"
        )


def server_environment(settings: Mapping[str, str], backend: Backend, folder: Path) -> dict[str, str]:
    """The environment of the server; the files that it names are written, readable by their owner alone.

    Args:
        settings: what the team set, which goes before what is chosen here.
        backend: where runs and users are.
        folder: for the files.
    """
    address = backend.url.render_as_string(hide_password=False)  # it has none, and ***** would be taken for one
    chosen = {
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # evaluation of language models: eight processes more
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_WORKERS": "2",
    }
    if not settings.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        chosen["MLFLOW_FLASK_SERVER_SECRET_KEY"] = _kept_key(folder / "secret_key")
    hosts = _names(settings.get("MLFLOW_SERVER_ALLOWED_HOSTS", ""))
    if hosts:
        # The pages of this server ask it for their data, which MLflow takes for requests of a foreign site.
        origins = [f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")]
        chosen["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins)
    decided = {"MLFLOW_BACKEND_STORE_URI": address, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini")}
    decided["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(hosts) or LOOPBACK_HOSTS
    if backend.password is not None:
        decided["PGPASSWORD"] = backend.password
    _write_login_settings(folder / "auth.ini", settings, address)
    return {**chosen, **{name: value for name, value in settings.items() if value}, **decided}


def _write_login_settings(path: Path, settings: Mapping[str, str], address: str) -> None:
    login = {
        "default_permission": settings.get("GRAFT_DEFAULT_PERMISSION") or PERMISSIONS[0],
        "database_uri": address,
        "admin_username": admin(settings),
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(REMEMBERED),
    }
    parser = configparser.ConfigParser()
    parser["mlflow"] = {name: value.replace("%", "%%") for name, value in login.items()}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        parser.write(file)


def _kept_key(path: Path) -> str:
    """The key that signs forms: the same after a restart."""
    if not path.exists() or not path.read_text():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text()
