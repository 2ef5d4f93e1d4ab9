from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from graft.curve_rows import name_every_row
from graft.params import ParamsError

ROOT = Path(__file__).resolve().parents[1]
BACKBONES = ["vgg16", "resnet50", "inceptionv3", "mobilenet"]
BASELINES = list(yaml.safe_load((ROOT / "params.yaml").read_text())["baselines"])
OFF = "  backbones: []\n  baselines: []\n"


def params_file(folder: Path, lists: str = OFF) -> Path:
    """The committed params.yaml with other lists in `curve`."""
    text = (ROOT / "params.yaml").read_text()
    head, tail = text.split("\ncurve:")
    values = yaml.safe_load(f"curve:{tail}")["curve"]
    first, last = tail.index("  backbones:"), tail.index("  per_class:")
    assert {"backbones", "baselines"} <= set(values)
    path = folder / "params.yaml"
    path.write_text(f"{head}\ncurve:{tail[:first]}{lists}{tail[last:]}")
    return path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OFF, f"  backbones: [vgg16, resnet50, inceptionv3, mobilenet]\n  baselines: [{', '.join(BASELINES)}]\n"),
        (
            "  baselines: [cnn]  # ours\n  backbones: [ mobilenet ]  # small\n",
            f"  baselines: [{', '.join(BASELINES)}]  # ours\n"
            "  backbones: [ mobilenet, vgg16, resnet50, inceptionv3 ]  # small\n",
        ),
        (
            "  backbones:\n    - resnet50  # deep\n    # and\n    - vgg16  # wide\n  baselines:\n  - cnn\n",
            "  backbones:\n    - resnet50  # deep\n    # and\n    - vgg16  # wide\n    - inceptionv3\n    - mobilenet\n"
            "  baselines:\n" + "".join(f"  - {name}\n" for name in BASELINES),
        ),
    ],
)
def test_rows_are_added_and_nothing_else_changes(tmp_path: Path, before: str, after: str) -> None:
    path = params_file(tmp_path, before)
    text = path.read_text()
    name_every_row(path)
    assert path.read_text() == text.replace(before, after)
    curve = yaml.safe_load(path.read_text())["curve"]
    assert (sorted(curve["backbones"]), curve["baselines"]) == (sorted(BACKBONES), BASELINES)


def test_what_is_named_already_stays_as_it_is(tmp_path: Path) -> None:
    path = params_file(tmp_path)
    assert name_every_row(path) == {"baselines": BASELINES, "backbones": BACKBONES}
    stamp = path.stat().st_mtime_ns
    assert name_every_row(path) == {"baselines": [], "backbones": []}
    assert path.stat().st_mtime_ns == stamp


def test_a_list_that_stands_elsewhere_is_refused(tmp_path: Path) -> None:
    path = params_file(tmp_path, "  backbones: &none []\n  baselines: *none\n")
    text = path.read_text()
    with pytest.raises(ParamsError, match=r"rows cannot be added to curve\.backbones and curve\.baselines; name them"):
        name_every_row(path)
    assert path.read_text() == text


def test_the_command_names_the_rows_and_ends_as_dvc_repro_does(tmp_path: Path) -> None:
    path = params_file(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "graft.cli", "curve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    named = ", ".join([*BASELINES, *BACKBONES])
    assert f"curve: named {named} in the section curve of params" in result.stdout
    assert yaml.safe_load(path.read_text())["curve"]["backbones"] == BACKBONES
    assert "not inside of a DVC repository" in result.stderr
    assert result.returncode == 253
