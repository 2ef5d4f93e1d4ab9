"""`dvc plots show` works without a network: pictures in a page of our own."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_comparison import fake_comparison
from fake_runs import fake_params
from PIL import Image

from graft.reporting.comparison import Comparison
from graft.reporting.dvc_plots import draw_dvc_plots

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ["confusion.png", "learning_curves.png"]


def dvc(cwd: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def colours(content: bytes) -> set[tuple[int, ...]]:
    return set(map(tuple, pixels(content)[..., :3].reshape(-1, 3).tolist()))


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return fake_comparison(fake_params(2))


def test_pictures_are_opaque_on_white_and_the_same_each_time(comparison: Comparison) -> None:
    pictures = draw_dvc_plots(comparison)
    assert sorted(pictures) == PICTURES
    assert pictures == draw_dvc_plots(comparison)
    for content in pictures.values():
        assert (pixels(content)[..., 3] == 255).all()
        assert (pixels(content)[0, 0] == 255).all()


def test_every_network_has_a_colour_of_its_own_on_the_one_plot(comparison: Comparison) -> None:
    found = colours(draw_dvc_plots(comparison)["learning_curves.png"])
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= found  # vgg16, cnn, resnet50; SVMs have none
    assert (0xCC, 0x79, 0xA7) not in found


@pytest.mark.parametrize(
    "settings",
    [
        {"test": False},
        {"classes": [f"class {number}" for number in range(30)], "per_class": 2},
        {"classes": ["a $5 note", "a\\b"], "per_class": 3},
    ],
)
def test_other_comparisons_are_drawn_too(settings: dict[str, Any]) -> None:
    assert sorted(draw_dvc_plots(fake_comparison(fake_params(1), **settings))) == PICTURES


def test_one_model_and_one_epoch_are_drawn() -> None:
    alone = fake_comparison(fake_params(0))
    (run,) = alone.runs.values()
    assert run.history is not None
    short = replace(alone, runs={run.model: replace(run, history=run.history.iloc[:1])})
    assert (0x00, 0x72, 0xB2) in colours(draw_dvc_plots(short)["learning_curves.png"])


def test_dvc_shows_them_without_a_network(tmp_path: Path, comparison: Comparison) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", tmp_path / ".dvc" / "plots")
    folder = tmp_path / "reports" / "figures" / "plots"
    folder.mkdir(parents=True)
    for name, content in draw_dvc_plots(comparison).items():
        (folder / name).write_bytes(content)
    stage = {"cmd": "true", "plots": ["reports/figures/plots"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"compare": stage}}))
    dvc(tmp_path, "plots", "show")
    page = (tmp_path / "dvc_plots" / "index.html").read_text()
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert sorted(source.rpartition("plots_")[2] for source in sources) == PICTURES
    for source in sources:
        assert (tmp_path / "dvc_plots" / source).read_bytes().startswith(b"\x89PNG")
    assert not re.search(r"https?://|<script|<link|url\(|@import", page)


def test_the_pipeline_declares_no_plot_that_dvc_would_draw_with_a_script() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stages = [stage.get("do", stage) for stage in pipeline["stages"].values()]
    declared = [plot for owner in (pipeline, *stages) for plot in owner.get("plots", [])]
    assert declared
    assert all(isinstance(plot, str) and not plot.endswith((".csv", ".json", ".tsv", ".yaml")) for plot in declared)
