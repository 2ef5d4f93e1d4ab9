"""How many images a second does `graft serve` answer, how long does a client wait, and what would the model alone do?

    taskset -c 0,1 python benchmarks/serving.py --project ../finished --seconds 60

The project is one whose pipeline has run. Clients are threads of this process, each with a connection of its own, and
share the cores with the server. The model alone runs in this process, while the server waits, on the same images:
decoded beforehand, or from the bytes of their files as the server gets them. Ratios are to the first row.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import children
import numpy as np
import typer
from PIL import Image

from graft import predicting, runtime
from graft.serving import Classifier

SIDE, COUNT = 256, 256  # px and number of the images that are made where none are given


@dataclass
class Waits:
    """Seconds that each request of a client took, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def made_images() -> list[bytes]:
    """Smooth pictures as JPEG files."""
    random, files = np.random.default_rng(0), []
    for _ in range(COUNT):
        buffer = io.BytesIO()
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def requests(files: Sequence[bytes], images: int) -> list[bytes]:
    """Bodies of so many images each; all files occur."""
    encoded = [base64.b64encode(content).decode() for content in files]
    return [
        json.dumps({"inputs": [encoded[(start + offset) % len(encoded)] for offset in range(images)]}).encode()
        for start in range(0, len(encoded), images)
    ]


def save_pyfunc(folder: Path, model: Path, source: Path | None) -> None:
    """The model as MLflow keeps it."""
    import mlflow

    from graft import logged_models, pyfunc_model

    with warnings.catch_warnings(record=True):  # MLflow tells what it makes of type hints
        mlflow.pyfunc.save_model(
            folder,
            python_model=pyfunc_model.__file__,
            artifacts={"model": str(model), **({"source": str(source)} if source else {})},
            code_paths=[str(Path(pyfunc_model.__file__).parent)],
            pip_requirements=logged_models.requirements(),
            model_config={"max_images": COUNT, "max_image_mb": 32, "max_pixels": 100_000_000},
        )


@contextmanager
def served(model: Path, project: Path) -> Iterator[tuple[str, float]]:
    """Address of a server of the model, and the seconds that its start took."""
    command = [sys.executable, "-m", "graft.cli", "serve", "--model", str(model), "--port", "0"]
    started = time.perf_counter()
    server = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if " answers at " not in line:
            raise SystemExit(f"no server: {' '.join(command)}")
        yield line.split(" answers at ")[1].split()[0], time.perf_counter() - started
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait()


def client(url: str, bodies: Sequence[bytes], first: int, ends: float, waits: Waits) -> None:
    """Send one request after another until the time is over."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    number = first
    while time.perf_counter() < ends:
        started = time.perf_counter()
        try:
            connection.request("POST", place.path, bodies[number % len(bodies)], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                waits.errors.append(content.decode())
        except OSError as error:
            waits.errors.append(repr(error))
            connection.close()
        waits.seconds.append(time.perf_counter() - started)
        number += 1
    connection.close()


def load(url: str, bodies: Sequence[bytes], clients: int, seconds: float) -> tuple[Waits, float]:
    """All requests of so many clients at once, and the seconds from the first to the last answer."""
    each, started = [Waits() for _ in range(clients)], time.perf_counter()
    threads = [
        threading.Thread(target=client, args=(url, bodies, number * 7, started + seconds, waits))
        for number, waits in enumerate(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    together = Waits()
    for waits in each:
        together.seconds += waits.seconds
        together.errors += waits.errors
    return together, took


def alone(call: Callable[[int], None], seconds: float) -> tuple[Waits, float]:
    """The same for calls one after another, without a server."""
    call(0)
    waits, started = Waits(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call(len(waits.seconds))
        waits.seconds.append(time.perf_counter() - before)
    return waits, time.perf_counter() - started


def row(name: str, images: int, measured: tuple[Waits, float]) -> dict[str, Any]:
    """A line of the table."""
    waits, took = measured
    half, most, nearly_all = (1000 * float(np.percentile(waits.seconds, share)) for share in (50, 95, 99))
    count = len(waits.seconds)
    facts = {"requests": count, "errors": len(waits.errors), "images/s": count * images / took}
    for error in sorted(set(waits.errors))[:3]:
        print(f"error of {name}: {error}", file=sys.stderr)
    return {"way": name, "images": images, **facts, "p50 ms": half, "p95 ms": most, "p99 ms": nearly_all}


def without_server(classifier: Classifier, files: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    """The model alone, on pixels and on files."""
    pixels = np.stack([classifier.pixels(content) for content in files])
    rows = []
    for size in (1, 64):
        batches = [
            np.take(pixels, range(start, start + size), axis=0, mode="wrap") for start in range(0, len(files), size)
        ]

        def on_pixels(number: int, batches: list[np.ndarray] = batches) -> None:
            classifier.apply(batches[number % len(batches)])

        def on_files(number: int, size: int = size) -> None:
            classifier.classify([files[(number * size + offset) % len(files)] for offset in range(size)])

        rows.append(row("model on pixels", size, alone(on_pixels, seconds)))
        rows.append(row("model on files", size, alone(on_files, seconds)))
    return rows


def main(
    project: Annotated[Path, typer.Option(help="Whose pipeline has run.")] = Path(),
    model: Annotated[str | None, typer.Option(help="Of models/; the champion if not given.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of image files; smooth 256 px JPEGs if not given.")
    ] = None,
    clients: Annotated[int, typer.Option(help="That ask at once.")] = 4,
    seconds: Annotated[float, typer.Option(help="Of the load by single images; a quarter of it for the rest.")] = 60,
) -> None:
    """Print one line per way, and how many images a second relative to the server's."""
    project = project.resolve()
    files = [path.read_bytes() for path in sorted(images.iterdir()) if path.is_file()] if images else made_images()
    name = model or predicting.champion(project / "reports" / "leaderboard.json")
    classifier = predicting.load_model(name, project / "models")
    base = project / "models" / name / "base.json"
    source = project / "models" / "source" / json.loads(base.read_text())["backbone"] if base.exists() else None
    with tempfile.TemporaryDirectory() as folder:
        save_pyfunc(Path(folder) / "served", project / "models" / name, source)
        with served(Path(folder) / "served", project) as (url, start):
            print(f"{name}: the server answered after {start:.1f} s; {clients} clients", flush=True)
            rows = [row("server", 1, load(url, requests(files, 1), clients, seconds))]
            rows.append(row("server", 64, load(url, requests(files, 64), clients, seconds / 4)))
            rows.append(row("server, 1 client", 1, load(url, requests(files, 1), 1, seconds / 4)))
            rows += without_server(classifier, files, seconds / 4)
    for one in rows:
        one["ratio"] = one["images/s"] / rows[0]["images/s"]
    print(children.markdown(rows))


if __name__ == "__main__":
    runtime.configure(0)
    typer.run(main)
