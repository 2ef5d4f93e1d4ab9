from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from graft.errors import GraftError
from graft.lockfile import parse_dry_run, stale_stages


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of DVC whose two stages ran, and whose outputs and cache are gone, as after a clone."""
    stages = {
        "first": {"cmd": "cp code.py out.txt", "deps": ["code.py"], "outs": ["out.txt"]},
        "compare": {"cmd": "cp out.txt board.txt", "deps": ["out.txt"], "params": ["seed"], "outs": ["board.txt"]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "params.yaml").write_text("seed: 1")
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"], ["repro", "-q"]):
        subprocess.run(["dvc", *command], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "out.txt").unlink()
    (tmp_path / "board.txt").unlink()
    return tmp_path


def test_a_current_lock_needs_no_outputs(project: Path) -> None:
    assert stale_stages(project) == []


def test_changed_code_and_params_are_found(project: Path) -> None:
    (project / "params.yaml").write_text("seed: 2")
    assert stale_stages(project) == ["compare"]
    (project / "code.py").write_text("2")
    assert stale_stages(project)[0] == "first"


def test_a_lock_that_misses_a_stage_is_stale(project: Path) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    del lock["stages"]["compare"]
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert stale_stages(project) == ["compare"]


def test_no_pipeline_is_an_error_and_not_current(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"dvc repro --dry --allow-missing compare.* failed"):
        stale_stages(tmp_path)
    with pytest.raises(GraftError, match="must name its stages, received ''"):
        parse_dry_run("\n")
