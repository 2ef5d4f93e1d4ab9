"""What the machine has, read from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from graft import machine_memory
from graft.machine_memory import MachineMemoryError, Memory, memory


@pytest.fixture
def groups(tmp_path: Path) -> tuple[Path, Path]:
    """Folder of control groups, and a file that says in which of them this process is: version 2, below a job's."""
    (tmp_path / "groups/job/step").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    return tmp_path / "groups", tmp_path / "cgroup"


def write_group(folder: Path, limit: str, used: int, cached: int, kills: int = 0) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\ninactive_file {cached}\nactive_file 0\n")
    (folder / "memory.events").write_text(f"low 0\noom 3\noom_kill {kills}\n")


def test_without_a_bound_the_machine_s_memory_counts(groups: tuple[Path, Path]) -> None:
    root, process = groups
    write_group(root / "job/step", "max", 100, 0)
    found = machine_memory.memory(root, process)
    assert (found.total, found.origin) == (psutil.virtual_memory().total, "the machine's memory")
    assert machine_memory.memory(root, root / "absent").origin == "the machine's memory"


def test_the_tightest_bound_of_the_groups_above_counts_and_cached_files_are_free(groups: tuple[Path, Path]) -> None:
    root, process = groups
    write_group(root / "job", "60000000", 50_000_000, 20_000_000)  # 30 MB in use that is not given back
    write_group(root / "job/step", "80000000", 10_000_000, 0)
    found = machine_memory.memory(root, process)
    assert (found.total, found.available) == (60_000_000, 30_000_000)
    assert found.origin == f"the bound of control group {root / 'job'}"


def test_control_groups_of_version_1_are_read_too(tmp_path: Path) -> None:
    folder = tmp_path / "memory/docker"
    folder.mkdir(parents=True)
    (tmp_path / "process").write_text("5:cpu:/\n4:memory:/docker\n0::/\n")
    (folder / "memory.limit_in_bytes").write_text("50000000")
    (folder / "memory.usage_in_bytes").write_text("20000000")
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    found = machine_memory.memory(tmp_path, tmp_path / "process")
    assert (found.total, found.available) == (50_000_000, 30_000_000)
    assert machine_memory.kernel_kills(tmp_path, tmp_path / "process") == 2


def test_kills_are_counted_by_the_group_else_by_the_machine(groups: tuple[Path, Path], tmp_path: Path) -> None:
    root, process = groups
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 9\n")
    assert machine_memory.kernel_kills(root, process, tmp_path / "vmstat") == 9
    write_group(root / "job/step", "max", 0, 0, kills=4)
    assert machine_memory.kernel_kills(root, process, tmp_path / "vmstat") == 4
    assert machine_memory.kernel_kills(root, tmp_path / "absent", tmp_path / "absent") == 0


def test_the_environment_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_MEMORY_GB", "2.5")
    assert memory() == Memory(2_500_000_000, 2_500_000_000, "GRAFT_MEMORY_GB")


@pytest.mark.parametrize("said", ["much", "0", "-1", "inf", "nan"])
def test_an_environment_that_says_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("GRAFT_MEMORY_GB", said)
    with pytest.raises(MachineMemoryError, match=r"GRAFT_MEMORY_GB must be a positive number of 10\^9 bytes, received"):
        memory()
