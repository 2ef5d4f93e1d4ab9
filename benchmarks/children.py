"""Measured work runs in a process of its own, pinned to a few cores; this is both ends of it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOOK_EVERY = 0.05  # seconds between two looks at a child's memory


def pin(cores: int) -> None:
    """Bind this process, and with it all that it starts, to the first so many cores; TensorFlow's threads follow."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


@dataclass(frozen=True)
class Measured:
    """What a child process took.

    Attributes:
        seconds: wall time from its start to its end, imports included.
        cpu: seconds of all its threads and processes.
        peak_mib: most memory resident at once in the child, mapped files included.
        anonymous_mib: the same without mapped files, which the system may drop at any time.
        parts: wall seconds of each part that the child timed itself.
        cpu_parts: its CPU seconds.
        facts: whatever else it reported.
    """

    seconds: float
    cpu: float
    peak_mib: float
    anonymous_mib: float
    parts: dict[str, float]
    cpu_parts: dict[str, float]
    facts: dict[str, Any]


def measure(script: str, *arguments: object, environment: Mapping[str, str]) -> Measured:
    """Run a script of this folder with `--result FILE` as a child, and wait for it.

    Raises:
        SystemExit: it failed; its output is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log"
        command = [sys.executable, str(HERE / script), *map(str, arguments), "--result", str(result)]
        started = time.perf_counter()
        with log.open("wb") as stream:
            child = subprocess.Popen(command, env=dict(environment), stdout=stream, stderr=subprocess.STDOUT)
            anonymous, status, usage = _watch(child.pid)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            tail = log.read_text(errors="replace")[-5000:]
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{tail}")
        report = json.loads(result.read_text())
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(seconds, cpu, report.pop("peak_mib"), anonymous, report.pop("parts"), report.pop("cpu"), report)


def _watch(pid: int) -> tuple[float, int, resource.struct_rusage]:
    """Wait for a child; its highest anonymous memory in MiB, its status and what it used."""
    most = 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return most / 1024, status, usage
        most = max(most, _status(pid, "RssAnon"))
        time.sleep(LOOK_EVERY)


def _status(pid: int | str, field_name: str) -> int:
    """A size in KiB of /proc/<pid>/status; 0 where the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field_name}:")), 0)


@dataclass
class Stopwatch:
    """A child's own timings, by part; written where the parent reads them."""

    parts: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the wall and CPU time of a block to a part."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0.0) + _cpu_seconds() - cpu

    def write(self, path: Path, **facts: Any) -> None:
        """Hand timings, this process's peak memory and other facts to the parent."""
        peak = _status("self", "VmHWM") / 1024
        path.write_text(json.dumps({"parts": self.parts, "cpu": self.cpu, "peak_mib": peak, **facts}))


def _cpu_seconds() -> float:
    """Of this process, of its children that have ended, and of those that live, such as joblib's workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) + sum(map(_ticks, _descendants(os.getpid())))


def _descendants(pid: int) -> Iterator[int]:
    """Processes below one that live."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _descendants(child)


def _ticks(pid: int) -> float:
    """CPU seconds of a process that lives; 0 of one that has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime
    return 0.0


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; columns are the first row's keys, numbers stand to the right."""
    columns = list(rows[0])
    numeric = [all(isinstance(row[column], int | float) or row[column] == "" for row in rows) for column in columns]
    lines = [columns, ["--:" if right else "---" for right in numeric]]
    lines += [[_text(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
