"""What stands around MLflow's scoring server, with a model that is a few lines long."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.exceptions import MlflowException

from graft import scoring_server
from graft.scoring_server import Settings, build

LIMIT = 1000  # bytes
IMAGES = 4
URL = "http://localhost:5001"
JSON = {"Content-Type": "application/json"}
SECRET = "c2VjcmV0"  # in every request that is sent


class Upper:
    """Text in, upper case out; or a failure that the text asks for."""

    metadata = SimpleNamespace(get_input_schema=lambda: None, _is_signature_from_type_hint=lambda: True)

    def predict(self, data: list[str], params: Any = None) -> list[str]:
        if "refuse" in data:
            raise MlflowException.invalid_parameter_value("image 1: not-an-image:\n the bytes are none")
        if "break" in data:
            raise RuntimeError(f"at {data}")
        return [text.upper() for text in data]


def ask(method: str = "POST", path: str = "/invocations", **request: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(build(Upper(), LIMIT, IMAGES))
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, **request)

    return asyncio.run(once())


def refused(answer: httpx.Response, status: int) -> str:
    """The message of an error, once it is sure that nothing else is told."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.count("\n") == 1
    assert SECRET not in answer.text
    error = json.loads(answer.text)
    assert list(error) == ["error_code", "message"]
    assert error["error_code"] == error["error_code"].upper()
    return str(error["message"])


def test_a_good_request_gets_mlflows_answer() -> None:
    kinds = (
        "application/json",
        "application/json; charset=UTF-8",
        "Application/JSON;Charset=utf-8",
        "application/json;",
    )
    for kind in kinds:
        answer = ask(content=json.dumps({"inputs": ["a", "b"]}), headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (200, {"predictions": ["A", "B"]})


def test_health_is_answered_without_a_body() -> None:
    assert ask("GET", "/ping").status_code == 200


EXPECTED = 'the request must be {"inputs": [one base64-encoded image file, ...]}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request must be JSON: Expecting value at character 0"),
        (b'{"inputs": ["c2VjcmV0"]', "the request must be JSON: Expecting ',' delimiter at character 23"),
        (b'{"inputs": ["c2VjcmV0\xff"]}', "the request must be UTF-8; byte 21 is not"),
        (b"[" * 900, "the request must be JSON"),
        (b'["c2VjcmV0"]', f"{EXPECTED} and have no other key"),
        (b'"c2VjcmV0"', f"{EXPECTED} and have no other key"),
        (b"{}", f"{EXPECTED} and have no other key"),
        (b'{"instances": ["c2VjcmV0"]}', f"{EXPECTED} and have no other key"),
        (b'{"inputs": ["a"], "c2VjcmV0": 1}', f"{EXPECTED} and have no other key"),
        (b'{"inputs": ["a"], "params": {}}', f"{EXPECTED} and have no other key"),
        (b'{"inputs": "c2VjcmV0"}', f"{EXPECTED} with at least one image"),
        (b'{"inputs": []}', f"{EXPECTED} with at least one image"),
        (b'{"inputs": {"c2VjcmV0": 1}}', f"{EXPECTED} with at least one image"),
        (b'{"inputs": [1, 2, 3, 4, 5]}', "expected at most 4 images at once, received 5"),
    ],
)
def test_what_is_no_list_of_images_is_refused_in_one_line(body: bytes, message: str) -> None:
    assert refused(ask(content=body, headers=JSON), 400).startswith(message)


def test_lists_nested_without_end_are_refused() -> None:
    content = b'{"inputs": ' + b"[" * 200_000
    app = build(Upper(), 10**6, IMAGES)

    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL) as client:
            return await client.post("/invocations", content=content, headers=JSON)

    assert refused(asyncio.run(once()), 400) == "the request must be JSON that can be parsed"


@pytest.mark.parametrize(
    "kind",
    [None, "text/csv", "application/vnd.apache.parquet", "application/jsonx", "application/json; charset=latin-1"],
)
def test_another_content_type_is_refused(kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert refused(ask(content=SECRET, headers=headers), 415) == "the Content-Type must be application/json"


def test_what_the_model_refuses_is_told_in_its_words() -> None:
    answer = ask(content=json.dumps({"inputs": [SECRET, "refuse"]}), headers=JSON)
    assert refused(answer, 400) == "image 1: not-an-image: the bytes are none"
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"


def test_an_unexpected_failure_is_logged_here_and_told_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        answer = ask(content=json.dumps({"inputs": [SECRET, "break"]}), headers=JSON)
    assert refused(answer, 500) == "the model failed on this request; the server's log says why"
    assert "RuntimeError: at ['c2VjcmV0', 'break']" in caplog.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("localhost:5001", 200), ("127.0.0.1:5001", 200), ("LOCALHOST:1", 200)),
        *(("evil.com", 400), ("localhost.evil.com:5001", 400), ("127.0.0.1.nip.io", 400), ("", 400)),
    ],
)
def test_only_this_machines_names_are_answered(host: str, status: int) -> None:
    answer = ask(content=json.dumps({"inputs": ["a"]}), headers={**JSON, "Host": host})
    assert answer.status_code == status
    if status == 400:
        assert refused(answer, 400) == "the Host header must be one of localhost, 127.0.0.1"


def test_other_addresses_and_methods_are_refused_in_one_line() -> None:
    for path in ("/c2VjcmV0", "/docs", "/redoc", "/openapi.json", "/ping/", "/"):
        message = refused(ask("GET", path), 404)
        assert message == "the addresses here are /invocations, /ping, /health, /version"
    assert refused(ask("GET"), 405) == "Method Not Allowed"


def test_a_request_of_the_limit_is_answered_and_one_byte_more_is_not() -> None:
    content = json.dumps({"inputs": ["a" * (LIMIT - 16)]})
    assert len(content) == LIMIT
    assert ask(content=content, headers=JSON).status_code == 200
    assert refused(ask(content=content + " ", headers=JSON), 413) == "a request may have 1,000 bytes"


def test_chunks_count_together_and_what_is_too_long_is_not_read_for_ever() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * LIMIT:
            sent += 100
            yield b" " * 100

    assert refused(ask(content=chunks(), headers=JSON), 413) == "a request may have 1,000 bytes"
    assert sent < 10 * LIMIT


def test_a_body_that_breaks_off_is_not_answered_with_what_came_of_it() -> None:
    sent: list[Any] = []
    messages = iter(
        [
            {"type": "http.request", "body": b'{"inputs": ["a"]}', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers}
    asyncio.run(build(Upper(), LIMIT, IMAGES)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["message"] == "the request broke off"


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    monkeypatch.setattr(scoring_server, "PATIENCE", 0.1)
    assert refused(ask(content=never(), headers=JSON), 408) == "the request did not come within 0.1 seconds"


def test_more_requests_than_memory_holds_are_sent_away_and_the_others_answered() -> None:
    app = build(Upper(), LIMIT, IMAGES)
    count = scoring_server.IN_HAND

    async def together() -> list[httpx.Response]:
        full = asyncio.Event()

        async def body(number: int) -> AsyncIterator[bytes]:
            yield b'{"inputs": '
            await full.wait()
            yield f'["a{number}"]}}'.encode()

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL) as client:
            tasks = [
                asyncio.create_task(client.post("/invocations", content=body(number), headers=JSON))
                for number in range(count + 1)
            ]
            (first,), _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            full.set()
            others = await asyncio.gather(*[task for task in tasks if task is not first])
            return [await first, *others]

    turned_away, *answered = asyncio.run(together())
    assert refused(turned_away, 503) == f"{count} requests are being answered; try again later"
    assert [answer.json() for answer in answered] == [{"predictions": [f"A{number}"]} for number in range(count)]


PROGRAM = """
import os, tempfile, time
from test_scoring_server import Upper
from graft import scoring_server
class Slow(Upper):
    def predict(self, data, params=None):
        print("working", flush=True)
        time.sleep(60)
scoring_server._load = lambda settings, folder: Slow()
scoring_server.serve(scoring_server.Settings("slow", 0, 1000, {"max_images": 4}))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server whose model takes a minute for an image, and its port."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    port = int(process.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
    process.stdout.readline()
    yield process, port
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_although_a_request_is_being_answered(
    server: tuple[subprocess.Popen[str], int], tmp_path: Path, way: signal.Signals
) -> None:
    process, port = server
    assert list(tmp_path.glob("graft-serve-*"))
    body = b'{"inputs": ["a"]}'
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(way)
        assert process.wait(20) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sent",
    [
        b"c2VjcmV0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nc2VjcmV0\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_one_line(server: tuple[subprocess.Popen[str], int], sent: bytes) -> None:
    process, port = server
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(1000), b"")).decode()
    head, body = answer.split("\r\n\r\n")
    assert head.splitlines()[0] == "HTTP/1.1 400 Bad Request"
    assert "content-type: application/json" in head
    assert body == '{"error_code": "BAD_REQUEST", "message": "Invalid HTTP request received."}\n'
    process.terminate()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module\n named 'boto3'"), OSError("no route"), MlflowException("no such run")]
)
def test_a_model_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    with pytest.raises(SystemExit) as caught:
        scoring_server._load(Settings("s3://bucket/model", 0, LIMIT, {}), "folder")
    reason = " ".join(str(error).split())
    assert caught.value.code == f"graft: s3://bucket/model cannot be loaded: {reason}"


@pytest.fixture(autouse=True)
def serving_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow says by the environment that a server runs; not to tests that come later."""
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
