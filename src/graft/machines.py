"""What, beside code and inputs, the last bits of floating-point results depend on, but for graphics processors."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

SETTINGS = (  # environment variables that change how sums are taken
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "TF_NUM_INTRAOP_THREADS"),
    *("TF_NUM_INTEROP_THREADS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
)


def describe_machine(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that compute, the processor, its instructions, how many threads may use it, SETTINGS."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    described = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # of the first processor
    processor = {name.strip(): value.strip() for name, value in described.items()}
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        **{name: version(name) for name in packages},
        "processor": f"{platform.machine()} {processor.get('model name', platform.processor())}",
        "instructions": processor.get("flags", processor.get("Features", "")),
        "threads": str(threads),
        "settings": " ".join(f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ),
    }
