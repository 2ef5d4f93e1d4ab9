"""The connection to MLflow's tracking server, or to a database in its place."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read while mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 keep a person waiting for minutes

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from graft.errors import GraftError
from graft.redaction import shown
from graft.runs_page import view_tags

SQLITE = "sqlite:///"
MOST_RUNS = 50_000  # that MLflow lists at once
FIRST_ANSWER = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # seconds, and once
REFUSALS = {
    "UNAUTHENTICATED": "asks for another login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "lets this user not change the experiment or model that `tracking` in params.yaml names; "
    "choose other names, or ask its administrator",
}
SCHEMES = ("http", "https", "databricks", "sqlite", "postgresql", "mysql", "mssql")  # plain folders are given up


class UnreachableError(GraftError):
    """The tracking server does not answer."""


class RefusedError(GraftError):
    """The tracking server knows who asks, or does not, and says no."""


def default_tracking_uri(root: Path) -> str:
    """A database in the project, by an absolute path, since experiments run in other working directories."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def tracking_uri(root: Path) -> str:
    """Where runs go: MLFLOW_TRACKING_URI, else the project's database; a relative path of SQLite is from root on.

    Experiments run in copies of the project, which are deleted, and with them what was written beside them.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(root)
    return SQLITE + str(root.resolve() / uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else uri


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Tell a server that does not answer from one that refuses.

    Raises:
        UnreachableError: it did not answer a call inside the block.
        RefusedError: it wants another login, or the user may not do this.
    """
    silence = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)
    try:
        yield
    except OperationalError as error:  # of a database in a server's place
        raise UnreachableError(f"no answer from MLflow's database at {shown(uri)}") from error
    except (MlflowException, requests.RequestException) as error:
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, requests.exceptions.InvalidURL) for cause in causes):
            raise RefusedError(  # without the address, of which nobody knows where its password ends
                "MLFLOW_TRACKING_URI must be an address such as http://user:password@host:5000, in whose password "
                "/ is written %2F and @ %40, received something that cannot be read as one"
            ) from None
        code = getattr(error, "error_code", None)
        absent = code == "TEMPORARILY_UNAVAILABLE"  # a proxy answers for it
        if absent or any(isinstance(cause, silence) for cause in causes):
            raise UnreachableError(f"no answer from MLflow at {shown(uri)}") from error
        if code in REFUSALS:
            raise RefusedError(f"MLflow at {shown(uri)} {REFUSALS[code]}") from error
        raise


def collided(error: MlflowException) -> bool:
    """Whether another machine wrote the same row to the server's database at the same moment; to be tried again."""
    return any(word in str(error) for word in ("UniqueViolation", "IntegrityError"))


def create_database(uri: str) -> None:
    """Make the SQLite file of an address where it is missing: whole or not at all, whatever ends this process.

    MLflow takes some fifty steps for it, and can neither go on nor begin anew where it was stopped between two.
    """
    path = Path(database) if uri.startswith("sqlite:///") and (database := make_url(uri).database) else None
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")  # which git ignores as it does the database
    with partial.open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if path.exists():  # another process had its turn before
            partial.unlink(missing_ok=True)
            return
        turn.truncate(0)
        SqlAlchemyStore(f"sqlite:///{partial}", str(path.parent / "mlartifacts")).engine.dispose()
        partial.rename(path)


def connect(uri: str, name: str, root: Path) -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment, made where it is missing."""
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    if uri.split(":", 1)[0].split("+")[0] not in SCHEMES:
        raise RefusedError(f"MLFLOW_TRACKING_URI must begin with one of {', '.join(SCHEMES)}, received {shown(uri)}")
    create_database(uri)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    with _environment(FIRST_ANSWER):  # a large model takes longer to upload
        experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            raise RefusedError(
                f"MLflow at {shown(uri)} has the experiment {name!r} among its deleted ones: restore it there, or name "
                "another one by tracking.experiment in params.yaml"
            )
        return client, experiment.experiment_id
    # Not in the working directory, which may be an experiment's.
    artifacts = str(Path(uri.removeprefix(SQLITE)).parent / "mlartifacts") if uri.startswith(SQLITE) else None
    try:
        return client, client.create_experiment(name, artifacts, view_tags())
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client, client.get_experiment_by_name(name).experiment_id  # another machine was faster


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
