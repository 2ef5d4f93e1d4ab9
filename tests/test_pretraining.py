from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks_on_trial import tiny_params

from graft import runtime
from graft.glyphs import GLYPH_CLASSES
from graft.pretraining import train_on_source, write_source
from graft.sections import Pretrain
from graft.shards import Shards
from graft.weights import obtain_base


@pytest.fixture
def from_folder(image_folder: Path) -> Pretrain:
    values = tiny_params().pretrain.model_dump() | {"source": "folder", "path": image_folder, "images_per_class": 5}
    return Pretrain(**values | {"validation": 0.4})


def test_a_folder_is_capped_per_class_and_unreadable_files_are_counted(
    from_folder: Pretrain, image_folder: Path, tmp_path: Path
) -> None:
    (image_folder / "ants" / "0.png").write_bytes(b"no image")
    labels, unreadable = write_source(tmp_path / "work", from_folder, seed=1)
    assert {name: int((labels == name).sum()) for name in np.unique(labels)} == {"ants": 4, "bees": 5, "wasps": 5}
    assert unreadable == 1
    images = Shards(tmp_path / "work", "images")
    assert images.shape == (14, 32, 32, 3)
    strongest = images[:].mean(axis=(1, 2)).argmax(axis=1)
    assert strongest.tolist() == [["ants", "bees", "wasps"].index(label) for label in labels]


def test_the_base_learns_from_the_source_and_the_card_says_what(from_folder: Pretrain, tmp_path: Path) -> None:
    row = tiny_params().backbones["mobilenet"]
    runtime.configure(1)
    base = obtain_base(row.base)
    before = base.get_weights()
    card = train_on_source(base, row, from_folder, seed=1, work=tmp_path)
    assert card["source_classes"] == ["ants", "bees", "wasps"]
    assert (card["source_images"], card["source_val_n"], card["source_unreadable"]) == (15, 6, 0)
    assert 0 <= card["source_val_accuracy"] <= 1
    assert any((old != new).any() for old, new in zip(before, base.get_weights(), strict=True))


def test_glyphs_are_a_source(tmp_path: Path) -> None:
    settings = tiny_params().pretrain
    labels, unreadable = write_source(tmp_path, settings, seed=1)
    assert set(labels) == set(GLYPH_CLASSES)
    assert len(labels) == settings.images_per_class * len(GLYPH_CLASSES)
    assert unreadable == 0
