from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import MACHINE, in_many_lives
from networks_on_trial import tiny_params

from graft import pretraining, runtime
from graft.glyphs import GLYPH_CLASSES
from graft.pretraining import source_images, train_on_source, write_source
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
    card = train_on_source(base, row, from_folder, seed=1, work=tmp_path, machine={})
    assert card["source_classes"] == ["ants", "bees", "wasps"]
    assert (card["source_images"], card["source_val_n"], card["source_unreadable"]) == (15, 6, 0)
    assert 0 <= card["source_val_accuracy"] <= 1
    assert any((old != new).any() for old, new in zip(before, base.get_weights(), strict=True))


def trained(settings: Pretrain, work: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The card and the base's weights, of a base that is built anew."""
    row = tiny_params(backbones__mobilenet__pretrain__epochs=2).backbones["mobilenet"]
    runtime.configure(1)
    base = obtain_base(row.base)
    card = train_on_source(base, row, settings, seed=1, work=work, machine=MACHINE)
    return card, base.get_weights()


def test_an_interrupted_training_goes_on_and_decodes_no_image_twice(
    from_folder: Pretrain, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(from_folder, tmp_path / "whole")
    decoded: list[Path] = []
    write = pretraining.write_source

    def counted(folder: Path, *arguments: Any) -> Any:
        decoded.append(folder)
        return write(folder, *arguments)

    monkeypatch.setattr(pretraining, "write_source", counted)
    work = tmp_path / "work"
    (card, weights), interruptions = in_many_lives(lambda _: trained(from_folder, work), work, monkeypatch)
    assert interruptions == 1
    assert len(decoded) == 1
    assert card == expected[0]
    for mine, theirs in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_images_are_decoded_whole_or_once_more(
    from_folder: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = source_images(from_folder, 1, tmp_path)
    pixels = whole.images[:]
    (piece,) = (tmp_path / "source").glob("images-*.npy")
    piece.write_bytes(piece.read_bytes()[:-10])
    again = source_images(from_folder, 1, tmp_path)
    assert capsys.readouterr().out.endswith("the source images are made once more\n")
    np.testing.assert_array_equal(again.images[:], pixels)
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert again.unreadable == whole.unreadable == 0
    (tmp_path / "source").rename(tmp_path / ".source.partial")  # as a killed process leaves it
    np.testing.assert_array_equal(source_images(from_folder, 1, tmp_path).images[:], pixels)


def test_glyphs_are_a_source(tmp_path: Path) -> None:
    settings = tiny_params().pretrain
    labels, unreadable = write_source(tmp_path, settings, seed=1)
    assert set(labels) == set(GLYPH_CLASSES)
    assert len(labels) == settings.images_per_class * len(GLYPH_CLASSES)
    assert unreadable == 0
