from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graft.learned_filters import FirstLayer, LearnedFilter, read_first_layer, write_first_layer
from graft.storage import ArtifactError, read_json, write_json

GREY = LearnedFilter(3, np.array([[[0.5], [-1.25]]]), b"map of 3")
COLOURED = LearnedFilter(0, np.arange(12.0).reshape(2, 2, 3), b"map of 0")
LAYER = FirstLayer("conv", 9, (16, 20), False, [GREY, COLOURED])


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_first_layer(tmp_path, LAYER)
    found = read_first_layer(tmp_path)
    assert found is not None
    assert (found.layer, found.count, found.size, found.summed) == ("conv", 9, (16, 20), False)
    for one, written in zip(found.filters, LAYER.filters, strict=True):
        assert (one.number, one.png) == (written.number, written.png)
        np.testing.assert_array_equal(one.weights, written.weights)
    assert {path.name for path in tmp_path.iterdir()} == {
        "first_layer.json", "first_layer-00.png", "first_layer-01.png",
    }  # fmt: skip


def test_that_there_is_no_convolution_is_written_too(tmp_path: Path) -> None:
    write_first_layer(tmp_path, None)
    assert read_json(tmp_path / "first_layer.json") is None
    assert read_first_layer(tmp_path) is None


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"first_layer.json is missing; `dvc repro` makes it"):
        read_first_layer(tmp_path)
    write_first_layer(tmp_path, LAYER)
    record = read_json(tmp_path / "first_layer.json")
    flat = record | {"filters": [record["filters"][0] | {"weights": [1, 2]}]}
    for damaged in ({"layer": "conv"}, [3], record | {"size": 3}, record | {"filters": [{}]}, flat):
        write_json(tmp_path / "first_layer.json", damaged)
        with pytest.raises(ArtifactError, match=r"first_layer.json must hold filters as the inspect stages write them"):
            read_first_layer(tmp_path)
    write_first_layer(tmp_path, LAYER)
    (tmp_path / "first_layer-01.png").unlink()
    with pytest.raises(ArtifactError, match=r"first_layer-01.png is missing; `dvc repro` makes it"):
        read_first_layer(tmp_path)


def test_a_picture_is_read_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    write_first_layer(tmp_path / "inside", LAYER)
    record = read_json(tmp_path / "inside" / "first_layer.json")
    record["filters"][0]["file"] = "../secret"
    write_json(tmp_path / "inside" / "first_layer.json", record)
    with pytest.raises(ArtifactError, match="secret is missing"):
        read_first_layer(tmp_path / "inside")


def test_reading_needs_no_tensorflow() -> None:
    code = "import sys, graft.learned_filters; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
