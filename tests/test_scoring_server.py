"""What stands around MLflow's scoring server, with a model that is a few lines long."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException

from graft.scoring_server import build

LIMIT = 1000  # bytes
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
        transport = httpx.ASGITransport(build(Upper(), LIMIT))
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
    for headers in (JSON, {"Content-Type": "application/json; charset=UTF-8"}):
        answer = ask(content=json.dumps({"inputs": ["a", "b"]}), headers=headers)
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
    ],
)
def test_what_is_no_list_of_images_is_refused_in_one_line(body: bytes, message: str) -> None:
    assert refused(ask(content=body, headers=JSON), 400).startswith(message)


def test_lists_nested_without_end_are_refused() -> None:
    content = b'{"inputs": ' + b"[" * 200_000
    app = build(Upper(), 10**6)

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
    assert refused(ask("GET", "/c2VjcmV0"), 404) == "Not Found"
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


@pytest.fixture(autouse=True)
def serving_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow says by the environment that a server runs; not to tests that come later."""
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")
