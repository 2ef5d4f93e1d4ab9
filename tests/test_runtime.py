from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from graft import runtime


def test_configure_seeds_weights_and_layer_names() -> None:
    import keras

    drawn = []
    for seed in (1, 1, 2):
        runtime.configure(seed)
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        drawn.append((layer.name, layer.kernel.numpy().tolist()))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_one_dnn_is_on_before_tensorflow_is_imported() -> None:
    code = "from graft import runtime; runtime.configure(1); import os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    clean = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    result = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1"


def test_tensorflow_imported_too_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow  # noqa: F401

    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    with pytest.raises(RuntimeError, match="must run before tensorflow is imported"):
        runtime.configure(1)


@pytest.fixture
def machine() -> Iterator[Callable[[], dict[str, str]]]:
    """runtime.machine, asked anew each time."""
    yield runtime.machine.__wrapped__
    runtime.machine.cache_clear()


def test_a_machine_is_known_by_packages_processor_and_threads(machine: Callable[[], dict[str, str]]) -> None:
    here = machine()
    assert {"tensorflow", "keras", "processor", "instructions", "threads", "gpus"} <= set(here)
    assert here["threads"].split()[0] == str(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("name", "value"), [("TF_NUM_INTRAOP_THREADS", "1"), ("ONEDNN_MAX_CPU_ISA", "SSE41")])
def test_another_way_of_summing_is_another_machine(
    machine: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    here = machine()
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert machine() == here
    monkeypatch.setenv(name, value)
    assert machine() != here
