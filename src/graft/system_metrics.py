"""What the machine does while a model trains, under the names that MLflow gives such metrics."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil

from graft.journal import Journal

INTERVAL = 10.0  # seconds between samples
FIRST = 1.0  # seconds until the first, which counts the processor's work since the start; later ones since the last
PATIENCE = 5.0  # seconds for a sample that is being taken when the training ends


@contextmanager
def sampled(journal: Journal, interval: float = INTERVAL) -> Iterator[None]:
    """Record a sample soon, every so many seconds, and when the block ends.

    A sensor that fails ends the samples with a notice, and nothing else.
    """
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(journal, interval, over), name="system metrics", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        over.set()
        sampler.join(PATIENCE)


def _sample(journal: Journal, interval: float, over: threading.Event) -> None:
    try:
        psutil.cpu_percent()  # counts from here
        graphics = _Graphics()
        pause, ended = min(FIRST, interval), False
        while not ended:
            ended = over.wait(pause)
            journal.system(_machine() | graphics.measured())
            pause = interval
    except Exception as error:  # of whatever kind: the training must not end by it
        if not over.is_set():
            print(f"system metrics: no more samples of this training: {error}", flush=True)


def _machine() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.used / memory.total * 100,
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }


class _Graphics:
    """The GPUs, where NVIDIA's management library is installed and finds some; else none."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        try:
            self._nvml: ModuleType = importlib.import_module("pynvml")
        except ImportError:
            return
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._nvml.NVMLError:  # no driver
            return

    def measured(self) -> dict[str, float]:
        """Memory, use and power of each; what a model of GPU does not tell is left out."""
        metrics: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            for look in (self._memory, self._use, self._power):
                try:
                    values = look(handle)
                except self._nvml.NVMLError:
                    continue
                metrics |= {f"system/gpu_{index}_{name}": value for name, value in values.items()}
        return metrics

    def _memory(self, handle: Any) -> dict[str, float]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        share = memory.used / memory.total * 100
        return {"memory_usage_megabytes": memory.used / 1e6, "memory_usage_percentage": share}

    def _use(self, handle: Any) -> dict[str, float]:
        return {"utilization_percentage": self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu}

    def _power(self, handle: Any) -> dict[str, float]:
        milliwatts = self._nvml.nvmlDeviceGetPowerUsage(handle)
        share = milliwatts / self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 100
        return {"power_usage_watts": milliwatts / 1000, "power_usage_percentage": share}
