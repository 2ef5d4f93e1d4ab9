from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from graft.errors import GraftError
from graft.scanning import NO_TABLE, guess_columns, recognise, scan
from graft.sections import Data


def data(kind: str, path: Path, table: object = NO_TABLE) -> Data:
    return Data.model_construct(source=kind, path=path, table=table)


def test_a_folder_is_counted_and_measured(image_folder: Path) -> None:
    Image.new("L", (100, 40)).save(image_folder / "ants" / "grey.png")
    (image_folder / "ants" / "broken.png").write_bytes(b"no image")
    (image_folder / "ants" / "notes.txt").write_text("one")
    found = scan(data("folder", image_folder))
    assert dict(found.classes) == {"ants": 10, "bees": 8, "wasps": 8}
    assert found.images == 26  # the broken one has the name of an image; prepare will see what is in it
    assert not found.splits
    assert dict(found.rejects) == {"unsupported-extension": 1}
    assert (found.median_width, found.median_height) == (12, 10)
    assert (max(found.widths), max(found.heights)) == (100, 40)
    assert len(found.widths) == 25
    assert found.grey == pytest.approx(1 / 25)
    assert found.imbalance == 10 / 8
    assert not found.groups


def test_its_own_splits_are_seen(image_folder: Path) -> None:
    for name in ("train", "val"):
        shutil.copytree(image_folder, image_folder.parent / "split" / name)
    found = scan(data("folder", image_folder.parent / "split"))
    assert dict(found.splits) == {"train": 24, "validation": 24}
    assert found.counts["validation", "ants"] == 8


@pytest.fixture
def table(image_folder: Path) -> Path:
    files = sorted(path.relative_to(image_folder).as_posix() for path in image_folder.glob("*/*.png"))
    rows = pd.DataFrame({"filename": files, "Class": [file.split("/")[0] for file in files], "patient": range(24)})
    rows.to_csv(image_folder / "labels.csv", index=False)
    return image_folder / "labels.csv"


def test_a_table_is_recognised_with_its_columns_and_the_folder_that_dvc_watches(table: Path) -> None:
    kind, path, columns = recognise(table)
    assert (kind, path) == ("table", table.parent.resolve())
    assert columns.model_dump() == {
        "file": "labels.csv", "image": "filename", "label": "Class", "split": None, "group": "patient",
    }  # fmt: skip
    found = scan(data(kind, path, columns))
    assert found.images == 24
    assert found.groups == {"ants": 8, "bees": 8, "wasps": 8}


def test_a_table_that_holds_its_images_is_itself_the_source(image_folder: Path) -> None:
    contents = [path.read_bytes() for path in sorted(image_folder.glob("*/*.png"))]
    path = image_folder / "all.parquet"
    pd.DataFrame({"image": contents, "label": ["a", "b"] * 12}).to_parquet(path)
    kind, place, columns = recognise(path)
    assert (kind, place, columns.file) == ("table", path.resolve(), None)
    assert scan(data(kind, place, columns)).images == 24


def test_an_archive_is_looked_into(image_folder: Path) -> None:
    path = Path(shutil.make_archive(str(image_folder.parent / "photos"), "zip", image_folder))
    kind, place, columns = recognise(path)
    assert kind == "archive"
    assert scan(data(kind, place, columns)).images == 24


def test_columns_that_no_one_can_guess_are_asked_for() -> None:
    with pytest.raises(
        GraftError, match=r"t.csv has no column that looks like the label .*; it has: path, weight; ren"
    ):
        guess_columns(Path("t.csv"), ["path", "weight"])


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="none does not exist; it must be a folder, a table or an archive"):
        recognise(tmp_path / "none")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(GraftError, match=r"bad.parquet is not a readable table"):
        recognise(tmp_path / "bad.parquet")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(GraftError, match=r"empty.csv is not a readable table"):
        recognise(tmp_path / "empty.csv")


def test_a_folder_of_files_that_are_no_images_is_refused(image_folder: Path) -> None:
    for path in image_folder.glob("*/*.png"):
        path.write_bytes(b"<html>")
    with pytest.raises(GraftError, match="24 files with the names of images, and none that is one"):
        scan(data("folder", image_folder))
