"""The server of a registered model: which one it is, and a fresh interpreter for it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from graft.mlflow_server import reachable, shown, tracking_uri  # first: it settles what mlflow reads on import

# isort: split
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from graft.errors import GraftError
from graft.journal import project_root
from graft.params import Params

CHAMPION = "champion"  # alias of the registered model
PROGRAM = Path(__file__).with_name("scoring_server.py")
SERVER_ENVIRONMENT = {
    "TF_ENABLE_ONEDNN_OPTS": "1",  # as in training
    "TF_CPP_MIN_LOG_LEVEL": "3",  # at 2, a machine without a GPU reports an error
    "MALLOC_MMAP_THRESHOLD_": "1000000",  # bytes; the memory of large pictures goes back to the system after a request
    "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "86400",  # s; after 60, MLflow drops the answer, not the work on it
}
NO_PICKLE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


class NoModelError(GraftError):
    """There is no model to serve."""


def run(params: Params, model_uri: str | None, port: int | None) -> NoReturn:
    """Become the server of a model, on the loopback interface, until Ctrl-C.

    The process is replaced: what this one has imported of the package would hide the copy of it that was logged with
    the model, and it is that copy which has to answer.

    Args:
        params: whose sections tracking and serve count.
        model_uri: of a logged or registered model; None: the registered champion.
        port: None: that of the params; 0: any that is free.

    Raises:
        NoModelError: no champion is registered.
        UnreachableError: the tracking server does not answer.
    """
    uri = tracking_uri(project_root())
    serve = params.serve
    settings = {
        "model": model_uri or champion(uri, params.tracking.registered_model),
        "port": serve.port if port is None else port,
        "max_request_bytes": int(serve.max_request_mb * 10**6),
        "limits": serve.model_dump(include={"max_images", "max_image_mb", "max_pixels"}),
    }
    environment = {**SERVER_ENVIRONMENT, **os.environ, **NO_PICKLE, "MLFLOW_TRACKING_URI": uri}
    # -P: else the program's folder would come first among the places of modules, and with it the package's modules.
    os.execve(sys.executable, [sys.executable, "-P", str(PROGRAM), json.dumps(settings)], environment)


def champion(uri: str, name: str) -> str:
    """The URI of the version of a registered model that is its champion now.

    Raises:
        NoModelError: there is none.
        UnreachableError: the tracking server does not answer.
    """
    missing = f"no champion of the registered model {name!r} at {shown(uri)}; `make repro` registers one"
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise NoModelError(missing)  # before MLflow makes an empty database
    try:
        with reachable(uri):
            version = MlflowClient(uri).get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # of the name, or of the alias
            raise NoModelError(missing) from None
        raise
    return f"models:/{name}/{version.version}"
