from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from graft.second_workspace import environment, reproduce


def test_its_commands_see_nothing_of_the_project_but_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "PYTHONPATH"):
        monkeypatch.setenv(name, "the project's")
    monkeypatch.setenv("KERAS_HOME", "weights")
    seen = environment(tmp_path / "one")
    assert "the project's" not in seen.values()
    assert seen["KERAS_HOME"] == "weights"
    assert seen["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'one' / 'mlflow.db'}"


def test_it_says_how_dvc_ended(tmp_path: Path) -> None:
    Repo.init(str(tmp_path), no_scm=True).close()
    stages = {"good": {"cmd": "echo 1 > out", "outs": ["out"]}, "bad": {"cmd": "false"}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert reproduce(tmp_path, ["good"]) == 0
    assert (tmp_path / "out").read_text() == "1\n"
    assert reproduce(tmp_path, ["bad"]) != 0
