from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graft.looks import Look, Tile, read_looks, write_looks
from graft.storage import ArtifactError, read_json, write_json

LOOKS = [
    Look("filters", "First filters", "What they are.", [Tile(b"one", ""), Tile(b"two", "", "conv, filter 1")]),
    Look("grad_cam", "Where", "What it says.", [Tile(b"three", "97 %", "é.jpg", "ant", "bee")], 4),
    Look("feature_maps", "Maps", "None.", []),
]


def test_looks_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_looks(tmp_path, LOOKS)
    assert read_looks(tmp_path) == LOOKS
    assert {path.name for path in tmp_path.iterdir()} == {
        "looks.json", "filters-00.png", "filters-01.png", "grad_cam-00.png",
    }  # fmt: skip
    assert read_json(tmp_path / "looks.json")[1] == {
        "name": "grad_cam",
        "title": "Where",
        "text": "What it says.",
        "columns": 4,
        "tiles": [{"file": "grad_cam-00.png", "caption": "97 %", "title": "é.jpg", "true": "ant", "predicted": "bee"}],
    }


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"looks.json is missing; `dvc repro` makes it"):
        read_looks(tmp_path)
    write_looks(tmp_path, LOOKS)
    (tmp_path / "filters-01.png").unlink()
    with pytest.raises(ArtifactError, match=r"filters-01.png is missing; `dvc repro` makes it"):
        read_looks(tmp_path)
    for damaged in ([{"name": "filters"}], {"name": 1}, [3]):
        write_json(tmp_path / "looks.json", damaged)
        with pytest.raises(ArtifactError, match=r"looks.json must hold looks as the inspect stages write them"):
            read_looks(tmp_path)


def test_a_picture_is_read_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "looks").mkdir()
    write_looks(tmp_path / "looks", LOOKS)
    record = read_json(tmp_path / "looks" / "looks.json")
    record[0]["tiles"][0]["file"] = "../secret"
    write_json(tmp_path / "looks" / "looks.json", record)
    with pytest.raises(ArtifactError, match="secret is missing"):
        read_looks(tmp_path / "looks")


def test_reading_needs_no_tensorflow() -> None:
    code = "import sys, graft.looks; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
