"""`graft serve`: which model it serves, and real servers of both kinds of model, asked by real clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_runs import DEFAULT
from image_files import encoded, oriented, scene
from PIL import Image
from served_models import PROMISE, ServedModel, save_pyfunc

from graft import scoring
from graft.mlflow_server import UnreachableError
from graft.scoring import NoModelError, champion, run

CLIENTS, SECONDS = 4, 3
SERVE = {"port": 5001, "max_request_mb": 0.05, "max_images": 5, "max_image_mb": 0.01, "max_pixels": 5_000}


def test_without_a_database_there_is_no_champion_and_none_is_made(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(NoModelError) as caught:
        champion(uri, "graft")
    assert str(caught.value) == f"no champion of the registered model 'graft' at {uri}; `make repro` registers one"
    assert list(tmp_path.iterdir()) == []


def test_a_tracking_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnreachableError, match=r"no answer from MLflow at http://127\.0\.0\.1:9"):
        champion("http://127.0.0.1:9", "graft")


def test_the_server_is_a_fresh_interpreter_with_the_params_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(DEFAULT, "models:/other/3", 6001)
    ((program, (_, option, script, settings), environment),) = called
    assert (program, option, script) == (sys.executable, "-P", str(scoring.PROGRAM))
    assert json.loads(settings) == {
        **{"model": "models:/other/3", "port": 6001, "max_request_bytes": 64_000_000},
        "limits": {"max_images": 256, "max_image_mb": 32, "max_pixels": 100_000_000},
    }
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert environment["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert environment["MALLOC_MMAP_THRESHOLD_"] == "1000000"
    assert environment["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] == "86400"


def test_the_program_imports_no_other_module_of_the_package() -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='program'); "
        "sys.exit(any(name.startswith(('graft', 'tensorflow')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code, str(scoring.PROGRAM)], check=False).returncode == 0


@dataclass(frozen=True)
class Project:
    """A folder with a params.yaml and one model of each kind in models/, and what is registered of them."""

    root: Path
    network: str
    machine: Path

    def model(self, name: str) -> tuple[Path, Path | None]:
        """The model's folder and its base's."""
        return self.root / "models" / name, self.root / "models/source/vgg16" if name == "vgg16-svm" else None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The network is the registered champion; the SVM a folder. The network's copy of the package was changed since."""
    from tiny_models import save_machine, save_network, write_facts

    root = tmp_path_factory.mktemp("served")
    (root / "params.yaml").write_text(yaml.safe_dump(DEFAULT.model_dump(mode="json") | {"serve": SERVE}))
    save_network(write_facts(root / "models" / "cnn", temperature=1.5))
    save_machine(write_facts(root / "models" / "vgg16-svm", temperature=20), root / "models" / "source" / "vgg16")
    save_pyfunc(root / "network", root / "models" / "cnn")
    save_pyfunc(root / "machine", root / "models" / "vgg16-svm", root / "models" / "source" / "vgg16")
    code = root / "network" / "code" / "graft" / "served_images.py"
    code.write_text(code.read_text().replace("a server reads no files", "said by the model's own code"))
    return Project(root, register(root), root / "machine")


def register(root: Path) -> str:
    """Make root/network the champion of root/mlflow.db, beside a model without one; returns the database's URI."""
    from mlflow import MlflowClient

    from graft.mlflow_server import create_database

    uri = f"sqlite:///{root / 'mlflow.db'}"
    create_database(uri)
    client = MlflowClient(uri)
    with pytest.raises(NoModelError, match="no champion of the registered model 'graft'"):
        champion(uri, "graft")
    client.create_registered_model("graft")
    with pytest.raises(NoModelError, match="no champion of the registered model 'graft'"):
        champion(uri, "graft")
    for _ in range(2):
        version = client.create_model_version("graft", str(root / "network"))
    client.set_registered_model_alias("graft", "champion", version.version)
    assert champion(uri, "graft") == "models:/graft/2"
    return uri


@pytest.fixture(scope="module")
def served_network(project: Project) -> Iterator[ServedModel]:
    (project.root / "tmp").mkdir()
    environment = {"MLFLOW_TRACKING_URI": project.network, "TMPDIR": str(project.root / "tmp")}
    with ServedModel(project.root, **environment) as server:
        yield server


@pytest.fixture(scope="module")
def served_machine(project: Project) -> Iterator[ServedModel]:
    with ServedModel(project.root, "--model", str(project.machine)) as server:
        yield server


def pictures() -> dict[str, bytes]:
    """What trips a reader that is not the one of training."""
    pixels = scene(3, 40, 30)
    alpha = np.dstack([pixels, np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)])
    return {
        "rotated.jpg": encoded(pixels, "JPEG", exif=oriented(6), quality=95),
        "alpha.png": encoded(alpha, "PNG"),
        "grey.png": encoded(Image.fromarray(pixels).convert("L"), "PNG"),
    }


def as_evaluated(project: Project, name: str, files: list[bytes]) -> np.ndarray:
    """Calibrated probabilities (n, classes) by the way of prepare and of a training's evaluation."""
    import keras

    from graft.calibration import apply_temperature, read_calibration
    from graft.extraction import load_extractor
    from graft.images import read, resize
    from graft.inference import apply_model
    from graft.storage import read_json
    from graft.svm import load_svm

    folder, source = project.model(name)
    shape = read_json(folder / "input.json")
    stored = np.stack([resize(read(content).pixels, shape["image_size"], shape["resize"]) for content in files])
    if source:
        features = load_extractor(read_json(folder / "base.json"), source)(stored)
        probabilities = load_svm(folder / "svm.skops").predict_proba(features)
    else:
        network = keras.saving.load_model(folder / "model.keras", compile=False)
        ((probabilities,),) = apply_model(network, stored, np.arange(len(stored)), 32)
    return apply_temperature(probabilities.astype(np.float64), read_calibration(folder).temperature)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "vgg16-svm"])
def test_evaluation_prediction_and_server_say_the_same(
    project: Project, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from graft.operation_sections import Serve
    from graft.predicting import load_model, predict

    files = pictures()
    expected = as_evaluated(project, name, list(files.values()))
    turned = as_evaluated(project, name, [encoded(scene(3, 40, 30), "JPEG", quality=95)])
    assert abs(turned - expected[0]).max() > 1e-3  # the orientation counts
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    answers = list(
        predict(load_model(name, project.root / "models"), [tmp_path / file for file in files], Serve(**SERVE))
    )
    predicted = np.array([list((answer.probabilities or {}).values()) for answer in answers])
    np.testing.assert_allclose(predicted, expected, atol=1e-5)

    served: ServedModel = request.getfixturevalue("served_network" if name == "cnn" else "served_machine")
    answered = served.classify(list(files.values()))
    given = np.array([list(answer["probabilities"].values()) for answer in answered])
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert [answer["class"] for answer in answered] == [answer.predicted and answer.predicted[0] for answer in answers]
    assert [answer["abstain"] for answer in answered] == [answer.abstains for answer in answers]


@pytest.mark.slow
def test_the_champion_answers_in_time_with_the_code_that_was_logged_with_it(served_network: ServedModel) -> None:
    assert served_network.seconds < PROMISE
    assert served_network.said[0].startswith("models:/graft/2 answers at http://127.0.0.1:")
    status, body = served_network.post(b'{"inputs": ["photo.jpg"]}')
    assert status == 400
    assert "said by the model's own code" in json.loads(body)["message"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is absent")
def test_the_command_it_prints_works_when_pasted(served_network: ServedModel, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(pictures()["rotated.jpg"])
    command = served_network.said[1]
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)["predictions"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def inputs(*files: bytes) -> bytes:
    import base64

    return json.dumps({"inputs": [base64.b64encode(content).decode() for content in files]}).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{", {}, 400, "the request must be JSON"),
        (b'{"inputs": []}', {}, 400, "with at least one image"),
        (b'{"inputs": ["no base64!"]}', {}, 400, "image 0: not base64"),
        (inputs(b"no picture"), {}, 400, "image 0: not-an-image"),
        (inputs(pictures()["grey.png"], encoded(scene(1), "PNG")[:200]), {}, 400, "image 1: truncated"),
        (inputs(encoded(scene(1, 100, 51), "PNG")), {}, 400, "too-large: 100 x 51 px are more than 5,000 pixels"),
        (inputs(bytes(10_001)), {}, 400, "too-large"),
        (inputs(*[pictures()["grey.png"]] * 6), {}, 400, "at most 5 images"),
        (b'{"inputs": [[[[0, 0, 300]]]]}', {}, 400, "image 0: expected whole numbers 0..255"),
        (b" " * 50_001, {}, 413, "a request may have 50,000 bytes"),
        (b" " * 150_000, {}, 413, "a request may have 50,000 bytes"),
        (b"{}", {"Content-Type": "text/csv"}, 415, "the Content-Type must be application/json"),
        (inputs(pictures()["grey.png"]), {"Host": "evil.com"}, 400, "the Host header must be one of"),
    ],
)
def test_a_bad_request_gets_one_line(
    served_network: ServedModel, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    given, answer = served_network.post(body, **headers)
    assert (given, answer.count(b"\n")) == (status, 1)
    error = json.loads(answer)
    assert set(error) == {"error_code", "message"}
    assert message in error["message"]
    assert "Traceback" not in served_network.log()


@pytest.mark.slow
def test_several_clients_at_once_get_their_own_answers(served_machine: ServedModel) -> None:
    files = list(pictures().values())
    expected = served_machine.classify(files)
    wrong: list[Any] = []
    answered = [0] * CLIENTS

    def client(number: int) -> None:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            position = (number + answered[number]) % len(files)
            try:
                (answer,) = served_machine.classify([files[position]])
                given, known = (list(one["probabilities"].values()) for one in (answer, expected[position]))
                same = np.allclose(given, known, atol=1e-5)
                wrong.extend([] if same else [answer])
            except Exception as error:
                wrong.append(error)
            answered[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(answered) > 0


@pytest.mark.slow
def test_a_busy_port_is_one_line(served_network: ServedModel, project: Project) -> None:
    port = served_network.url.rsplit(":", 1)[1].split("/")[0]
    command = [sys.executable, "-m", "graft.cli", "serve", "--model", str(project.machine), "--port", port]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"graft: port {port} of 127.0.0.1 cannot be had: Address already in use; name another by --port, "
        "or make serve PORT=\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["models:/graft/7", "http://127.0.0.1:9/model", "sftp://127.0.0.1:9/model", "nowhere"])
def test_a_model_that_is_not_there_is_one_line(project: Project, uri: str) -> None:
    command = [sys.executable, "-m", "graft.cli", "serve", "--model", uri, "--port", "0"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": project.network, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"graft: {uri} cannot be loaded: ")


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_without_a_trace_or_a_rest(project: Project, tmp_path: Path, way: signal.Signals) -> None:
    with ServedModel(project.root, "--model", str(project.machine), TMPDIR=str(tmp_path)) as server:
        assert list(tmp_path.glob("graft-serve-*"))
        os.killpg(server.process.pid, way)
        assert server.process.wait(PROMISE) == 0
        assert "Traceback" not in server.log()
        assert list(tmp_path.glob("graft-serve-*")) == []
