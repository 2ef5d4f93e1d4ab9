from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from networks_on_trial import tiny_params

from graft.collection import check_invalid, collect
from graft.images import decode, resize
from graft.records import SourceError
from graft.sections import Data


def data(path: Path) -> Data:
    changes = {"data__source": "folder", "data__path": str(path), "data__image_size": 8}
    return tiny_params(**changes).data


def test_every_record_has_a_row_and_copies_share_their_arrays(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "ants" / "00.png").write_bytes(b"")
    shutil.copy(image_folder / "ants" / "0.png", image_folder / "bees" / "copy.png")
    (image_folder / "bees" / "notes.txt").write_text("one")
    with collect(data(image_folder), 1, tmp_path) as found:
        rows = found.rows.set_index("source")
        assert len(rows) == 26
        assert found.classes == ["ants", "bees", "wasps"]
        assert rows.loc["ants/00.png", ["reason", "position"]].tolist() == ["empty-file", -1]
        assert rows.loc["ants/0.png", "position"] == rows.loc["bees/copy.png", "position"] == 0
        assert found.rejects[["source", "label", "reason"]].to_numpy().tolist() == [
            ["bees/notes.txt", "bees", "unsupported-extension"]
        ]
        assert len(found.pixels) == len(found.thumbnails) == len(found.hashes) == 24
        for source, position in rows["position"].items():
            if position >= 0:
                image = decode((image_folder / str(source)).read_bytes())
                np.testing.assert_array_equal(found.pixels[position], resize(image, 8, "stretch"))
    assert not list(tmp_path.glob(".*")) + [path for path in tmp_path.iterdir() if path != image_folder]


def test_every_record_of_a_table_has_its_attributes_whatever_becomes_of_it(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "ants" / "1.png").write_bytes(b"")
    shutil.copy(image_folder / "ants" / "0.png", image_folder / "ants" / "copy.png")
    names = [f"{label}/{name}.png" for label in ("ants", "bees") for name in (3, 1, 0, 2)]
    lines = [f"{name},{name.split('/')[0]},camera {place}\n" for place, name in enumerate(names)]
    lines[5:5] = ["none.png,bees,never\n", "ants/copy.png,ants,copier\n"]
    (image_folder / "labels.csv").write_text("path,label,camera\n" + "".join(lines))
    settings = data(image_folder)
    columns = settings.table.model_copy(update={"file": "labels.csv"})
    with collect(settings.model_copy(update={"source": "table", "table": columns}), 1, tmp_path) as found:
        cameras = found.attributes["camera"].iloc[found.rows["record"]]
        expected = {name: f"camera {place}" for place, name in enumerate(names)} | {"ants/copy.png": "copier"}
        assert dict(zip(found.rows["source"], cameras, strict=True)) == expected
        assert len(found.rejects) == 1
    with collect(settings, 1, tmp_path) as found:
        assert found.attributes.shape == (len(found.rows), 0)


def test_an_empty_source_has_empty_arrays(image_folder: Path, tmp_path: Path) -> None:
    for path in image_folder.glob("*/*.png"):
        path.write_bytes(b"")
    with collect(data(image_folder), 1, tmp_path) as found:
        assert found.pixels.shape == (0, 8, 8, 3)
        assert found.thumbnails.shape == (0, 32, 32, 3)
        assert found.hashes.shape == (0, 8)
        assert set(found.rows["reason"]) == {"empty-file"}


def test_the_fraction_counts_what_is_no_image_and_not_the_copies(image_folder: Path, tmp_path: Path) -> None:
    for index in range(6):
        shutil.copy(image_folder / "ants" / "0.png", image_folder / "ants" / f"copy{index}.png")
    (image_folder / "bees" / "bad.png").write_bytes(b"text")
    (image_folder / "bees" / "notes.txt").write_text("one")
    with collect(data(image_folder), 1, tmp_path) as collected:
        found = collected
    check_invalid(found, 2 / 32, image_folder, Path("reports/data"))
    with pytest.raises(
        SourceError,
        match=r"photos: 2 of 32 files cannot be used \(6\.2%\), and data.max_invalid_fraction allows 6\.0%: "
        r"1 not-an-image, 1 unsupported-extension; each is listed in reports/data/quarantine.csv",
    ):
        check_invalid(found, 0.06, image_folder, Path("reports/data"))
