"""A real MLflow server that can be killed and started again, and a proxy that makes it slow or absent."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
PATIENCE = 90  # seconds for a start on a loaded machine
QUICKER = {  # without what a tracking server does beside tracking
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class RealServer:
    """`mlflow server` on a database and an artifact folder of its own: entered it answers, left it is gone."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """A server that does not run yet.

        Args:
            folder: for the database, the artifacts and server.log; made where it is missing.
            environment: for the server, in addition to this process's own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self._environment = os.environ | QUICKER | (environment or {})
        self._environment.pop("MLFLOW_TRACKING_URI", None)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The same after a restart."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def store(self) -> str:
        """The database's own address, for a look past the server."""
        return f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"

    def start(self) -> None:
        """Start it on its port and database, and return when it answers."""
        arguments = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts")]
        arguments += ["--host", LOOPBACK, "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not answers(self.uri):
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"no MLflow server: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and its children at once, in the middle of what they do; a server that does not run stays so."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


def answers(uri: str) -> bool:
    """Whether a server says at the address that it is well."""
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class DelayingProxy:
    """Stands before a server of this machine; while entered it forwards what it is sent.

    Attributes:
        delay: seconds by which every request is held back.
        refuse: whether connections are broken off, those that are open at their next byte.
    """

    def __init__(self, target_port: int) -> None:
        self.delay, self.refuse = 0.0, False
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self._sockets: set[socket.socket] = {self._listener}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def uri(self) -> str:
        """What to give a client in place of the server's."""
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._closed = True
            for opened in self._sockets:
                reset(opened)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = None if self.refuse else socket.create_connection((LOOPBACK, self._target_port))
        except OSError:
            server = None
        with self._lock:
            kept = server is not None and not self._closed
            self._sockets |= {client, server} if kept and server else set()
        if not kept or server is None:
            reset(client)
            return
        turn = threading.Event()  # set while the client has the word, so that a request is held back only once
        turn.set()
        back = threading.Thread(target=self._pump, args=(server, client, turn, False), daemon=True)
        back.start()
        self._pump(client, server, turn, True)
        back.join()
        with self._lock:
            self._sockets -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket, turn: threading.Event, requests: bool) -> None:
        try:
            while (content := source.recv(65536)) and not self.refuse:
                if requests and turn.is_set():
                    turn.clear()
                    time.sleep(self.delay)
                elif not requests:
                    turn.set()
                sink.sendall(content)
        except OSError:
            pass
        for end in (source, sink):
            reset(end) if self.refuse else close(end)


def close(end: socket.socket) -> None:
    """End a connection after what was sent."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        end.close()


def reset(end: socket.socket) -> None:
    """Break a connection off, as a machine that goes down does."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        end.close()
