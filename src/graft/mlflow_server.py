"""The connection to MLflow's tracking server, or to a database in its place."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
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

from graft.errors import GraftError

FIRST_TIMEOUT = 5  # seconds to wait for a server's first answer


class UnreachableError(GraftError):
    """The tracking server does not answer."""


def default_tracking_uri(root: Path) -> str:
    """A database in the project, by an absolute path, since experiments run in other working directories."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def shown(uri: str) -> str:
    """The address without a password."""
    return re.sub(r"^(https?://)[^/@]*@", r"\1", uri)


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Tell a server that does not answer from one that refuses.

    Raises:
        UnreachableError: it did not answer a call inside the block.
    """
    silence = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        absent = getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE"  # a proxy answers for it
        if absent or any(isinstance(cause, silence) for cause in (error, error.__cause__, error.__context__)):
            raise UnreachableError(f"no answer from MLflow at {shown(uri)}") from error
        raise


def connect(uri: str, name: str, root: Path) -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment, made where it is missing."""
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    patience = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(FIRST_TIMEOUT))
    try:
        experiment = client.get_experiment_by_name(name)
    finally:
        if patience is None:  # a large model takes longer to upload
            del os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    if experiment is not None:
        return client, experiment.experiment_id
    artifacts = str(root.resolve() / "mlartifacts") if uri == default_tracking_uri(root) else None
    return client, client.create_experiment(name, artifacts, {"mlflow.experimentKind": "custom_model_development"})
