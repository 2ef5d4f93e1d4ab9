from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from graft.journal import Journal, JournalRecord, read_journal
from graft.system_metrics import sampled

HEADER = dict.fromkeys(("key", "model", "kind", "backbone", "stage", "params"))
MACHINE = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/process_memory_megabytes",
}


def record(folder: Path, seconds: float, interval: float) -> JournalRecord:
    """The journal of a training that takes so long."""
    journal = Journal.start(folder, HEADER)
    with sampled(journal, interval):
        time.sleep(seconds)
    journal.finish({}, {})
    return read_journal(folder / "journal.jsonl")


def test_there_is_a_sample_every_interval_and_one_at_the_end(tmp_path: Path) -> None:
    assert len(record(tmp_path / "short", 0.0, 60.0).system) == 1
    samples = record(tmp_path / "long", 0.5, 0.1).system
    assert len(samples) >= 2
    assert all(before["time"] < after["time"] for before, after in itertools.pairwise(samples))


def test_a_sample_says_what_processor_and_memory_do(tmp_path: Path) -> None:
    (sample,) = record(tmp_path, 0.0, 60.0).system
    metrics = sample["metrics"]
    assert metrics.keys() >= MACHINE
    total = psutil.virtual_memory().total / 1e6
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert 0 < metrics["system/process_memory_megabytes"] < metrics["system/system_memory_usage_megabytes"] < total
    share = metrics["system/system_memory_usage_megabytes"] / total * 100
    assert metrics["system/system_memory_usage_percentage"] == pytest.approx(share)


def test_the_first_sample_counts_the_work_since_the_start(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, HEADER)
    with sampled(journal, 0.3):
        busy_until = time.monotonic() + 0.8
        while time.monotonic() < busy_until:
            pass
    first = read_journal(tmp_path / "journal.jsonl").system[0]["metrics"]
    assert first["system/cpu_utilization_percentage"] > 0


def test_a_sensor_that_fails_ends_the_samples_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("/proc/meminfo is gone")

    monkeypatch.setattr(psutil, "virtual_memory", broken)
    journal = record(tmp_path, 0.4, 0.05)
    assert (journal.system, journal.complete) == ([], True)
    assert capsys.readouterr().out == "system metrics: no more samples of this training: /proc/meminfo is gone\n"


class NVMLError(Exception):
    """As of NVIDIA's library."""


def library(**changes: Any) -> ModuleType:
    """NVIDIA's library on a machine with one GPU of 80 GB that uses 20 of them and 175 of 700 W."""

    def unsupported(handle: object) -> None:
        raise NVMLError("Not Supported")

    facts: dict[str, Any] = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=20e9, total=80e9),
        "nvmlDeviceGetUtilizationRates": unsupported,
        "nvmlDeviceGetPowerUsage": lambda handle: 175_000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
    }
    module = ModuleType("pynvml")
    module.__dict__.update(facts | changes)
    return module


def test_a_gpu_tells_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())
    (sample,) = record(tmp_path, 0.0, 60.0).system
    assert {name: value for name, value in sample["metrics"].items() if "gpu" in name} == {
        "system/gpu_0_memory_usage_megabytes": 20_000.0,
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_power_usage_watts": 175.0,
        "system/gpu_0_power_usage_percentage": 25.0,
    }


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", library(nvmlInit=absent))
    (sample,) = record(tmp_path, 0.0, 60.0).system
    assert sample["metrics"].keys() == MACHINE
