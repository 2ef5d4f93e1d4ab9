from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def graft(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graft.cli", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_a_mistake_in_params_is_one_message_without_a_trace(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["data"]["validaton"] = 0.2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    result = graft("check", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines() == [
        "graft: params.yaml has 1 fault(s):",
        "  data.validaton is not a known key",
    ]


def test_init_without_a_folder_says_what_is_wanted(tmp_path: Path) -> None:
    result = graft("init", str(tmp_path / "none"), cwd=tmp_path)
    assert result.returncode == 1
    assert "does not exist; it must be a folder, a table or an archive of images" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command", ["check", "check-lock", "curve", "cv", "init", "plan", "predict", "report", "track", "ui"]
)
def test_help_names_every_command(command: str) -> None:
    assert command in graft("--help").stdout


def test_a_stage_called_with_a_wrong_row_is_one_message(tmp_path: Path) -> None:
    names = ("prepared", "augmented", "source", "out", "timings")
    result = subprocess.run(
        [sys.executable, "-m", "graft.stages.features", "vgg", "--params", str(ROOT / "params.yaml")]
        + [part for name in names for part in (f"--{name}", str(tmp_path / name))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "backbones has no row 'vgg'; it has: inceptionv3, mobilenet, resnet50, vgg16" in result.stderr
    assert "Traceback" not in result.stderr
