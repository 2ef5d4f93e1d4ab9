"""Models as MLflow keeps them, `graft serve` as a process, and what clients send to it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROMISE = 30  # seconds from the start to the first answer
LIMITS = {"max_images": 256, "max_image_mb": 32.0, "max_pixels": 100_000_000}


def save_pyfunc(path: Path, folder: Path, source: Path | None = None) -> None:
    """A model of models/ as MLflow keeps it: with the package's code."""
    import mlflow

    from graft import logged_models, pyfunc_model

    with warnings.catch_warnings(record=True):  # MLflow insists on telling what it makes of type hints
        mlflow.pyfunc.save_model(
            path,
            python_model=pyfunc_model.__file__,
            artifacts={"model": str(folder), **({"source": str(source)} if source else {})},
            code_paths=[str(Path(pyfunc_model.__file__).parent)],
            pip_requirements=logged_models.requirements(),
            model_config=LIMITS,
        )


class ServedModel:
    """`graft serve` in a folder with a params.yaml: entered it answers, left it has gone."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._folder, self._arguments = folder, arguments
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.url, self.seconds = "", 0.0

    def __enter__(self) -> Self:
        started = time.monotonic()
        command = [sys.executable, "-m", "graft.cli", "serve", "--port", "0", *self._arguments]
        with (self._folder / "serve.err").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline(), self.process.stdout.readline()]
        self.seconds = time.monotonic() - started
        if " answers at " not in self.said[0]:
            self.process.wait(PROMISE)
            raise AssertionError(f"no server: {self.log()}")
        self.url = self.said[0].split(" answers at ")[1].split()[0]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PROMISE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def log(self) -> str:
        """Standard error so far."""
        return (self._folder / "serve.err").read_text()

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer."""
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def classify(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """The predictions for image files."""
        encoded = [base64.b64encode(content).decode() for content in files]
        status, body = self.post(json.dumps({"inputs": encoded}).encode())
        assert status == 200, body
        return list(json.loads(body)["predictions"])
