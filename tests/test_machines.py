from __future__ import annotations

import os
from importlib.metadata import version

import pytest

from graft.machines import SETTINGS, describe_machine


def test_versions_processor_and_threads_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5}, raising=False)
    described = describe_machine(("numpy", "scikit-learn"))
    assert described["numpy"] == version("numpy")
    assert described["scikit-learn"] == version("scikit-learn")
    assert described["threads"] == "2"
    assert described["settings"] == "OMP_NUM_THREADS=3 OPENBLAS_CORETYPE=Haswell"
    assert described["processor"].split()
    assert set(described) == {"numpy", "scikit-learn", "processor", "instructions", "threads", "settings"}
