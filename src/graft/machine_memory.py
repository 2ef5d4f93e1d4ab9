"""The memory that this process can have, and how often the kernel took it away from others: what Linux tells of it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graft.errors import GraftError

VARIABLE = "GRAFT_MEMORY_GB"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self/cgroup")
COUNTERS = Path("/proc/vmstat")
# Of version 2 and 1: the bound, what is in use, the counters of which cached files are given back when memory is short.
LIMIT_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
GIVEN_BACK = ("inactive_file", "active_file")
EVENTS = ("memory.events", "memory.oom_control")  # both have a line `oom_kill N`


class MachineMemoryError(GraftError):
    """What was said of the machine's memory is not understood."""


@dataclass(frozen=True)
class Memory:
    """What this process can have.

    Attributes:
        total: bytes of the machine, or of its control group where that allows less.
        available: bytes of that which are free, or given back when they are asked for.
        origin: which of the two.
    """

    total: int
    available: int
    origin: str


def memory(root: Path = CONTROL_GROUPS, process: Path = PROCESS) -> Memory:
    """The machine's memory, or the control group's (a container's, a batch job's) where that has less left.

    The environment variable GRAFT_MEMORY_GB, in 10^9 bytes, says better: where networks lie in a GPU's memory, or
    there is swap.

    Raises:
        MachineMemoryError: the variable is no positive number.
    """
    import psutil

    if said := os.environ.get(VARIABLE):
        return _said(said)
    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available, "the machine's memory")]
    for folder in control_groups(root, process):
        limit = _limit(folder)
        if limit is not None and limit[0] < machine.total:
            bound, used = limit
            found.append(Memory(bound, max(0, bound - used), f"the bound of control group {folder}"))
    return Memory(
        min(item.total for item in found),
        min(item.available for item in found),
        min(found, key=lambda item: item.total).origin,
    )


def _said(gigabytes: str) -> Memory:
    try:
        size = float(gigabytes)
    except ValueError:
        size = 0.0
    if not 0 < size < math.inf:
        raise MachineMemoryError(f"{VARIABLE} must be a positive number of 10^9 bytes, received {gigabytes!r}")
    return Memory(round(size * 10**9), round(size * 10**9), VARIABLE)


def control_groups(root: Path, process: Path) -> list[Path]:
    """The folders of this process's memory control group and of those above it, the innermost first."""
    if not process.exists():
        return []
    folders: list[Path] = []
    for line in process.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        inner = top / path.strip("/")
        above = [inner, *inner.parents]
        folders += [folder for folder in above[: above.index(top) + 1] if folder.is_dir()]
    return folders


def _limit(folder: Path) -> tuple[int, int] | None:
    """The bound of a control group and what it uses of that, without cached files; None where there is no bound."""
    for bound, used in LIMIT_FILES:
        with suppress(OSError, ValueError):  # ValueError: `max`
            limit, current = (int((folder / name).read_text()) for name in (bound, used))
            counters = _counters(folder / "memory.stat")
            return limit, max(0, current - sum(counters.get(name, 0) for name in GIVEN_BACK))
    return None


def _counters(path: Path) -> dict[str, int]:
    """Lines of a name and a number; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def kernel_kills(root: Path = CONTROL_GROUPS, process: Path = PROCESS, counters: Path = COUNTERS) -> int:
    """How many processes the kernel has killed for lack of memory, in this process's control group if it has one."""
    for folder in control_groups(root, process):
        for name in EVENTS:
            if "oom_kill" in (events := _counters(folder / name)):
                return events["oom_kill"]
    return _counters(counters).get("oom_kill", 0)
