"""The program that answers HTTP requests with a model: MLflow's scoring server, and what it lacks around it.

It imports no other module of this package and is run by its path: the model brings a copy of the package along, and
that copy has to answer, whatever has become of the modules beside this one since.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import h11
import uvicorn
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HOST = "127.0.0.1"
HOSTS = ("localhost", HOST)  # as which a client may know it; a page of another name that leads here is refused
PATHS = ("/invocations", "/ping", "/health", "/version")  # the pages of FastAPI load scripts from far away
CONTENT_TYPE = "application/json"
DISCARDED = 4  # times the limit that a too large request is read on, for most clients listen only when they have sent
MESSAGE = 300  # characters at most
IN_HAND = 16  # requests whose bodies are held in memory
AT_ONCE = 2  # requests that are parsed and decoded, which takes up to 4 GB each; the model itself takes one at a time
PATIENCE = 60  # seconds in which a body has to come
GRACE = 3  # seconds that a request has to end in once the server has to
LOADER, CODE = "mlflow.pyfunc.loaders.code_model", "pyfunc_model.py"  # of a model as logged_models.py saves it
LOG = logging.getLogger("uvicorn.error")
failures: ContextVar[list[Exception]] = ContextVar("failures")  # of the request that is being answered


class RefusedError(Exception):
    """What the sender of a request has to correct."""

    def __init__(self, status: int, message: str, code: str = "BAD_REQUEST") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Settings:
    """What the command line holds, as JSON.

    Attributes:
        model: URI of the model.
        port: on HOST; 0: any that is free.
        max_request_bytes: of a request's body.
        limits: the model's own configuration: max_images, max_image_mb, max_pixels.
    """

    model: str
    port: int
    max_request_bytes: int
    limits: dict[str, float]


class WatchedModel:
    """A pyfunc model that keeps why it failed, since MLflow's answer holds the request and the stack trace instead."""

    def __init__(self, model: Any) -> None:
        self._model, self.metadata = model, model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """As the model does."""
        try:
            return self._model.predict(data, params=params)
        except MlflowException as error:  # to which MLflow adds the request
            status = error.get_http_status_code()
            failures.get().append(RefusedError(status, error.message, error.error_code) if status < 500 else error)
            raise
        except Exception as error:
            failures.get().append(error)
            raise


class CheckedRequests:
    """Refuses what is too large or no list of images, before MLflow parses it."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_images: float) -> None:
        self._app, self._max_bytes, self._max_images = app, max_bytes, max_images
        self._in_hand, self._turns = 0, asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise RefusedError."""
        if scope["path"] not in PATHS:
            raise RefusedError(404, f"the addresses here are {', '.join(PATHS)}", "NOT_FOUND")
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        _check_type(dict(scope["headers"]).get(b"content-type", b"").decode("latin-1"))
        others = [header for header in scope["headers"] if header[0] != b"content-type"]
        scope["headers"] = [*others, (b"content-type", CONTENT_TYPE.encode())]  # MLflow knows fewer ways to write it
        if self._in_hand >= IN_HAND:
            raise RefusedError(503, f"{IN_HAND} requests are being answered; try again later", "TOO_MANY_REQUESTS")
        self._in_hand += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._in_hand -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                body = await self._body(receive)
        except TimeoutError:
            raise RefusedError(408, f"the request did not come within {PATIENCE} seconds", "REQUEST_TIMEOUT") from None

        async def replay() -> Message:
            return {"type": "http.request", "body": body}

        async with self._turns:
            await asyncio.to_thread(_check_body, body, self._max_images)  # megabytes would hold others up
            await self._app(scope, replay, send)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body; of one that is too large, whatever its header says, nothing stays in memory."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= DISCARDED * self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the request broke off")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self._max_bytes:
                parts.append(part)
            else:
                parts.clear()
        if size > self._max_bytes:
            raise RefusedError(413, f"a request may have {self._max_bytes:,} bytes", "REQUEST_TOO_LARGE")
        return b"".join(parts)


def _check_type(header: str) -> None:
    kind, *parameters = [part.strip().lower() for part in header.split(";")]
    if kind != CONTENT_TYPE or any(parameter not in ("", "charset=utf-8") for parameter in parameters):
        raise RefusedError(415, f"the Content-Type must be {CONTENT_TYPE}", "UNSUPPORTED_MEDIA_TYPE")


def _check_body(body: bytes, max_images: float) -> None:
    try:
        request = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the request must be UTF-8; byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        raise RefusedError(400, f"the request must be JSON: {error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError):  # of nested lists, or of a number with thousands of digits
        raise RefusedError(400, "the request must be JSON that can be parsed") from None
    expected = 'the request must be {"inputs": [one base64-encoded image file, ...]}'
    if not isinstance(request, dict) or list(request) != ["inputs"]:
        raise RefusedError(400, f"{expected} and have no other key")
    if not isinstance(request["inputs"], list) or not request["inputs"]:
        raise RefusedError(400, f"{expected} with at least one image")
    if len(request["inputs"]) > max_images:  # before MLflow parses them all once more
        raise RefusedError(400, f"expected at most {max_images} images at once, received {len(request['inputs'])}")


class OneLineErrors:
    """Every answer from 400 on becomes one line of JSON without what was sent; traces are logged here alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        failures.set([])
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        try:
            await self._app(scope, receive, keep)
        except Exception as error:
            failures.get().append(error)
        failed, status = failures.get(), messages[0]["status"] if messages else 500
        if failed or status >= 400:
            messages = _error_answer(status, failed[-1] if failed else None)
        for message in messages:
            await send(message)


def _error_answer(status: int, failure: Exception | None) -> list[Message]:
    """An error as JSON of a code and a message; without a failure, the status says it all."""
    code, text = HTTPStatus(status).name, HTTPStatus(status).phrase
    if isinstance(failure, RefusedError):
        status, code, text = failure.status, failure.code, str(failure)
    elif failure is not None:
        status, code, text = 500, "INTERNAL_ERROR", "the model failed on this request; the server's log says why"
        LOG.error("a request failed", exc_info=failure)
    elif status == HTTPStatus.BAD_REQUEST:
        text = f"the Host header must be one of {', '.join(HOSTS)}"  # all else was checked here, or failed
    body, headers = _error(code, text)
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]


def _error(code: str, text: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    body = json.dumps({"error_code": code, "message": _one_line(text)}).encode() + b"\n"
    return body, [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE]


class OneLineProtocol(H11Protocol):
    """Answers what is no HTTP as all other errors, where uvicorn would with plain text."""

    def send_400_response(self, msg: str) -> None:
        """End the connection, with an answer unless one has begun already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body, headers = _error("BAD_REQUEST", msg)
            headers.append((b"connection", b"close"))
            start = h11.Response(status_code=400, headers=headers, reason=HTTPStatus(400).phrase.encode())
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class EndingServer(uvicorn.Server):
    """A server that ends although a request is being answered: asyncio would wait for the model's thread."""

    def __init__(self, config: uvicorn.Config, folder: str) -> None:
        super().__init__(config)
        self._folder = folder

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give requests their time, then end the process and remove the folder."""
        await super().shutdown(sockets)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(os.EX_OK)


def build(model: Any, max_request_bytes: int, max_images: float) -> ASGIApp:
    """The whole server of a pyfunc model, from the inside out."""
    from mlflow.pyfunc import scoring_server

    app: ASGIApp = scoring_server.init(WatchedModel(model))
    app = CheckedRequests(app, max_request_bytes, max_images)
    app = TrustedHostMiddleware(app, HOSTS, www_redirect=False)
    return OneLineErrors(app)


def _bind(port: int) -> socket.socket:
    """A socket that does not listen yet; before the model is loaded, so that a busy port is known at once."""
    # Of TCP by name: asyncio looks at it before it switches Nagle's algorithm off, which holds answers up for 40 ms.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _or_end(port, listener.bind, (HOST, port))
    return listener


def _or_end(port: int, call: Callable[..., None], *arguments: Any) -> None:
    try:
        call(*arguments)
    except OSError as error:
        _end(f"port {port} of {HOST} cannot be had: {error.strerror}; name another by --port, or make serve PORT=")


def _load(settings: Settings, folder: str) -> Any:
    """The model, from a copy in the folder; once used, since what a first call imports and traces takes seconds."""
    import mlflow

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        path = mlflow.artifacts.download_artifacts(settings.model, dst_path=folder)
        _check(settings.model, path)
        model = mlflow.pyfunc.load_model(path, model_config=settings.limits)
    except Exception as error:  # of whichever library reads from such an address
        _end(f"{settings.model} cannot be loaded: {_one_line(str(error) or type(error).__name__)}")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    for count in (1, 2):  # TensorFlow traces for one image, and then for any number
        model.predict([encoded] * count)
    return model


def _check(model: str, folder: str) -> None:
    """Refuse what graft did not log, before anything of it is imported or read as a pickle.

    A model that passes runs the code that was logged with it: only a registry of people one trusts may be served from.
    """
    with open(os.path.join(folder, "MLmodel"), encoding="utf-8") as file:
        described = yaml.safe_load(file)["flavors"]["python_function"]
    code = os.path.basename(str(described.get("model_code_path")))
    if described.get("loader_module") != LOADER or code != CODE or "python_model" in described:
        _end(f"{model} is refused: expected a model that graft logged, received one of {described['loader_module']}")


def _end(message: str) -> NoReturn:
    raise SystemExit(f"graft: {message}")


def _welcome(model: str, port: int) -> str:
    url = f"http://{HOST}:{port}/invocations"
    encoded = """{ printf '{"inputs": ["'; base64 < photo.jpg | tr -d '\\n'; printf '"]}'; }"""
    return (
        f"{model} answers at {url} (Ctrl-C ends it); for instance, with a photo.jpg of yours:\n"
        f"  {encoded} | curl -s -H 'Content-Type: {CONTENT_TYPE}' --data-binary @- {url}"
    )


def serve(settings: Settings) -> None:
    """Answer requests until a signal ends it."""
    listener = _bind(settings.port)
    with tempfile.TemporaryDirectory(prefix="graft-serve-") as folder:
        app = build(_load(settings, folder), settings.max_request_bytes, settings.limits["max_images"])
        _or_end(settings.port, listener.listen)  # fails where another server was faster
        print(_welcome(settings.model, listener.getsockname()[1]), flush=True)
        config = uvicorn.Config(
            app,
            http=OneLineProtocol,
            lifespan="off",
            ws="none",
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        EndingServer(config, folder).run(sockets=[listener])


def main() -> None:
    """End without a trace on Ctrl-C and on SIGTERM, and leave nothing behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_OK))
    try:
        serve(Settings(**json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(os.EX_OK)


if __name__ == "__main__":
    main()
