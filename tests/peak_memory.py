"""How much memory a process took at most."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")


def peak() -> int:
    """Of this process so far, in KiB; not ru_maxrss, which begins with that of the parent."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def growth(program: str) -> tuple[int, str]:
    """By how many KiB a program raises its peak after `before = peak()`; and what it prints on standard error."""
    if not STATUS.exists():
        pytest.skip(f"{STATUS} is absent")
    code = f"from peak_memory import peak\n{program}\nprint(peak() - before)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "always", "-c", code]
    run = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, text=True, capture_output=True, check=True
    )
    return int(run.stdout), run.stderr
