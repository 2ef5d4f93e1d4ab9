"""Runs of the whole pipeline against each other, each in a process and an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from graft.artifacts import read_predictions
from graft.run_differences import run_differences
from graft.workspace_differences import output_differences

TESTS = Path(__file__).resolve().parent
RESULTS = ("data", "models", "reports")
LONGEST = 600  # seconds of a run on a loaded machine
DROPPED = ("DVC_", "MLFLOW_", "GRAFT_", "PYTHONHASHSEED", "LC_", "TF_", "ONEDNN_", "DNNL_", "OMP_")
PLAIN = {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
OTHER = {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Kathmandu"}

ONE_PREDICTION = 1e-5  # of a probability, whatever computes it
FEW_EPOCHS = 1e-3  # of a probability, by another number of threads in a training of some twenty steps


@dataclass(frozen=True)
class Run:
    """The environment of a run of the whole pipeline; `last` takes the last processors instead of the first ones."""

    threads: int
    last: bool = False
    umask: int = 0o022
    settings: Mapping[str, str] = field(default_factory=lambda: PLAIN)
    arguments: tuple[str, ...] = ()


RUNS = {
    "one": Run(1),
    "one again": Run(1, last=True),
    "two": Run(2),
    "two elsewhere": Run(2, last=True, umask=0o077, settings=OTHER, arguments=("--shuffled",)),
}
ARITHMETIC: dict[str, tuple[int, int, dict[str, str]]] = {  # threads, images in a batch, environment
    "two threads": (2, 64, {}),
    "one thread": (1, 64, {}),
    "one image at a time": (2, 1, {}),
    "seven images at a time": (2, 7, {}),
    "without oneDNN": (2, 64, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "SSE 4.1": (2, 64, {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "AVX2": (2, 64, {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
}


def cores(threads: int, *, last: bool = False) -> str:
    """Processors of this process, as many as asked for, the first or the last ones, as taskset takes them."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        pytest.skip(f"needs {threads} processors, received {len(allowed)}")
    return ",".join(map(str, allowed[-threads:] if last else allowed[:threads]))


def start(script: str, *arguments: str, on: str, umask: int = 0o022, **settings: str) -> None:
    """Run a script of the tests on some processors to its good end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    own = {"PYTHONPATH": str(TESTS.parent / "src"), "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = ["taskset", "--cpu-list", on, sys.executable, str(TESTS / script), *arguments]
    environment = kept | own | settings
    done = subprocess.run(command, env=environment, umask=umask, timeout=LONGEST, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The workspaces of RUNS, two made at a time."""
    base = tmp_path_factory.mktemp("runs")
    on = [cores(run.threads, last=run.last) for run in RUNS.values()]  # skips here, before anything starts

    def make(name: str, on: str) -> Path:
        run = RUNS[name]
        start("whole_run.py", str(base / name), *run.arguments, on=on, umask=run.umask, **run.settings)
        return base / name

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(RUNS, pool.map(make, RUNS, on), strict=True))


@pytest.mark.slow
def test_one_thread_gives_the_same_results_again(runs: dict[str, Path]) -> None:
    assert list(output_differences(runs["one"], runs["one again"], RESULTS)) == []
    assert list(run_differences(runs["one"], runs["one again"])) == []


@pytest.mark.slow
def test_two_threads_give_the_same_results_in_another_environment(runs: dict[str, Path]) -> None:
    assert list(output_differences(runs["two"], runs["two elsewhere"], RESULTS)) == []
    assert list(run_differences(runs["two"], runs["two elsewhere"])) == []


@pytest.mark.slow
def test_another_number_of_threads_gives_the_same_data_and_nearly_the_same_models(runs: dict[str, Path]) -> None:
    assert list(output_differences(runs["one"], runs["two"], ("data/prepared", "data/augmented", "reports/data"))) == []
    for model in ("cnn", "vgg16", "vgg16-svm"):
        path = Path("reports/runs") / model / "predictions.parquet"
        one, two = (read_predictions(runs[name] / path).uncalibrated() for name in ("one", "two"))
        np.testing.assert_allclose(one, two, rtol=0, atol=FEW_EPOCHS)


@pytest.fixture(scope="module")
def answers(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What the trained networks say of all images, by way of computing and network."""
    base = tmp_path_factory.mktemp("answers")

    def ask(name: str) -> dict[str, np.ndarray]:
        threads, batch, settings = ARITHMETIC[name]
        out = base / f"{name}.npz"
        start("other_arithmetic.py", str(runs["two"]), str(batch), str(out), on=cores(threads), **settings)
        with np.load(out) as said:
            return dict(said)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ARITHMETIC, pool.map(ask, ARITHMETIC), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "vgg16"])
def test_a_trained_network_says_nearly_the_same_in_any_arithmetic(
    answers: dict[str, dict[str, np.ndarray]], model: str
) -> None:
    for name, said in answers.items():
        np.testing.assert_allclose(
            said[model], answers["two threads"][model], rtol=0, atol=ONE_PREDICTION, err_msg=name
        )


@pytest.mark.slow
def test_other_instructions_are_in_fact_used(answers: dict[str, dict[str, np.ndarray]]) -> None:
    usual = answers["two threads"]["vgg16"]
    assert any(not np.array_equal(answers[name]["vgg16"], usual) for name in ("without oneDNN", "SSE 4.1"))
