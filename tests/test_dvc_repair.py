from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from graft.dvc_repair import repair

NAMES = ("one", "two", "three")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of three stages that have run."""
    root = tmp_path / "a project"
    root.mkdir()
    Repo.init(str(root), no_scm=True).close()
    (root / "dep").write_text("a dependency\n")
    stages = {name: {"cmd": f"cp dep {name}", "deps": ["dep"], "outs": [name]} for name in NAMES}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    dvc(root, "repro")
    return root


def dvc(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site")}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def stages(root: Path) -> list[str]:
    """As DVC reads them from the lock."""
    with Repo(str(root)) as repo, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what DVC calls
        return list(Lockfile(repo, str(root / "dvc.lock")).load().get("stages", {}))


def test_what_is_whole_is_left_alone(root: Path) -> None:
    (root / ".dvc/tmp/rwlock").write_text('{"write": {}, "read": {}}')
    before = (root / "dvc.lock").read_bytes()
    assert repair(root) == []
    assert (root / "dvc.lock").read_bytes() == before
    (root / "dvc.lock").unlink()
    (root / ".dvc/tmp/rwlock").unlink()
    assert repair(root) == []


def test_a_torn_lock_is_readable_again_wherever_it_was_torn(root: Path) -> None:
    lock, refused = root / "dvc.lock", 0
    whole = lock.read_bytes()
    for size in range(0, len(whole), 7):
        lock.write_bytes(whole[:size])
        try:
            kept = stages(root)
        except DvcException:
            refused += 1
            said = repair(root)
            assert len(said) == 1
            assert str(lock) in said[0]
            kept = stages(root) if lock.exists() else []
        assert kept == list(NAMES[: len(kept)])
        assert repair(root) == []
    assert refused > 5


def test_after_the_repair_nothing_runs_again(root: Path) -> None:
    lock = root / "dvc.lock"
    whole = lock.read_text()
    torn = whole[: whole.index("  two:") + 9]
    lock.write_text(torn)
    assert dvc(root, "repro").startswith("255 ")
    assert repair(root) == [f"{lock} was torn, as by a killed dvc: its 1 whole stages are kept"]
    said = dvc(root, "repro")
    assert said.startswith("0 ")
    assert "Running stage" not in said
    assert lock.read_text() == whole


def test_of_a_lock_with_zeros_in_its_middle_the_stages_before_them_are_kept(root: Path) -> None:
    """As a power cut leaves a file of which a later part had reached the disk."""
    lock = root / "dvc.lock"
    whole = lock.read_bytes()
    begun = whole.index(b"  two:") + 9
    lock.write_bytes(whole[:begun] + bytes(20) + whole[begun + 20 :])
    assert repair(root) == [f"{lock} was torn, as by a killed dvc: its 1 whole stages are kept"]
    assert stages(root) == ["one"]


@pytest.mark.parametrize("torn", ["", '{"write": {"', "[]"])
def test_a_torn_list_of_what_runs_is_removed(root: Path, torn: str) -> None:
    readers = root / ".dvc/tmp/rwlock"
    readers.write_text(torn)
    assert repair(root) == [f"{readers} was torn, as by a killed dvc: it is removed, and DVC makes a new one"]
    assert not readers.exists()
    assert repair(root) == []


def test_nothing_is_touched_while_another_dvc_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.1)
    (root / "dvc.lock").write_text("")
    with Repo(str(root)) as repo, repo.lock:
        assert repair(root) == []
    assert (root / "dvc.lock").read_text() == ""
    assert len(repair(root)) == 1
