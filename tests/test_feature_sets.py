from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.artifacts import Manifest
from graft.feature_sets import FeatureSet, Selected, ViewPixels, feature_index, read_features
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError, write_json, write_table


def manifest_of(splits: list[str]) -> Manifest:
    ids = [f"{index:02d}" for index in range(len(splits))]
    rows = pd.DataFrame({"image_id": ids, "label": "a", "split": splits, "group": ids, "source": ""})
    return Manifest(rows.assign(width=8, height=8), ("a",))


MANIFEST = manifest_of(["train", "test", "train"])
VIEWS = pd.DataFrame({"image_id": ["00", "02"] * 3, "view": np.repeat([0, 1, 2], 2)})


def array(folder: Path, values: list[int]) -> Shards:
    with ShardWriter(folder, "images", (2,), np.uint8) as writer:
        writer.append(np.repeat(np.array(values, np.uint8)[:, None], 2, axis=1))
    return Shards(folder, "images")


def test_index_is_the_manifest_then_the_further_views_in_manifest_order() -> None:
    index = feature_index(MANIFEST, VIEWS)
    assert index["image_id"].tolist() == ["00", "01", "02", "00", "02", "00", "02"]
    assert index["view"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert index["split"].tolist() == ["train", "test", "train", *["train"] * 4]


@pytest.mark.parametrize("rows", [slice(None), slice(2, 5), np.array([6, 0, 3, 3])], ids=["all", "across", "any order"])
def test_pixels_stand_in_the_order_of_the_index(rows: slice | np.ndarray, tmp_path: Path) -> None:
    """Prepared images are 10, 11, 12; view v of image i is 100 * v + i, view 0 being a copy of the image."""
    augmented = array(tmp_path / "augmented", [10, 12, 110, 112, 210, 212])
    pixels = ViewPixels(array(tmp_path / "prepared", [10, 11, 12]), augmented, VIEWS)
    assert len(pixels) == 7
    np.testing.assert_array_equal(pixels[rows][:, 0], np.array([10, 11, 12, 110, 112, 210, 212])[rows])


def test_selected_rows_are_counted_among_themselves(tmp_path: Path) -> None:
    rows = Selected(array(tmp_path, [10, 11, 12, 13]), np.array([3, 0, 2]))
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[np.array([2, 0])][:, 0], [12, 13])
    np.testing.assert_array_equal(rows[1:][:, 0], [10, 12])


def write_folder(folder: Path, stored: list[str]) -> FeatureSet:
    index = feature_index(MANIFEST, VIEWS)
    write_table(folder / "index.parquet", index)
    write_json(folder / "plan.json", {"stored": stored})
    for point in stored:
        with ShardWriter(folder, point, (1,), np.float32, index) as writer:
            writer.append(np.arange(7, dtype=np.float32)[:, None])
    return read_features(folder, MANIFEST)


def test_what_the_plan_left_out_is_missing_and_the_nearest_point_is_taken(tmp_path: Path) -> None:
    features = write_folder(tmp_path, ["block1", "block2"])
    assert features.nearest(("image", "block1", "block2", "block3", "top")) == "block2"
    assert features.views == 3
    np.testing.assert_array_equal(features.positions("train", view=2), [5, 6])
    with pytest.raises(ArtifactError, match=r"must hold one of image, block0, received \['block1', 'block2'\]"):
        features.nearest(("image", "block0"))


def test_pixels_are_a_point_like_any_other_where_they_are_given(tmp_path: Path) -> None:
    write_folder(tmp_path / "features", [])
    augmented = array(tmp_path / "augmented", [10, 12, 110, 112, 210, 212])
    pixels = ViewPixels(array(tmp_path / "prepared", [10, 11, 12]), augmented, VIEWS)
    assert read_features(tmp_path / "features", MANIFEST, pixels).nearest(("image", "block1", "top")) == "image"
    short = Selected(pixels, np.arange(5))
    with pytest.raises(ArtifactError, match="has 7 rows, the images have 5 views; rerun features"):
        read_features(tmp_path / "features", MANIFEST, short)


def test_features_of_another_manifest_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, ["top"])
    swapped = Manifest(MANIFEST.rows.iloc[[1, 0, 2]].reset_index(drop=True), ("a",))
    with pytest.raises(ArtifactError, match=r"index.parquet does not list this manifest's images"):
        read_features(tmp_path, swapped)


def test_rows_that_the_plan_names_must_be_there(tmp_path: Path) -> None:
    write_folder(tmp_path, ["top"])
    (tmp_path / "top.json").unlink()
    with pytest.raises(ArtifactError, match=r"top.json is missing"):
        read_features(tmp_path, MANIFEST)


INDEX = feature_index(MANIFEST, VIEWS)


@pytest.mark.parametrize(
    ("index", "rows", "message"),
    [
        (INDEX, 6, "block1 has 6 rows, its index has 7"),
        (INDEX.drop(columns="view"), 7, "must have the columns"),
        (INDEX.assign(label="b"), 7, "rerun features"),
        (INDEX.iloc[[1, 0, 2, 3, 4, 5, 6]], 7, "rerun features"),
    ],
    ids=["too few activations", "no views", "other labels", "another order"],
)
def test_features_of_other_rows_are_refused(index: pd.DataFrame, rows: int, message: str, tmp_path: Path) -> None:
    write_table(tmp_path / "index.parquet", index)
    write_json(tmp_path / "plan.json", {"stored": ["block1"]})
    with ShardWriter(tmp_path, "block1", (1,), np.float32) as writer:
        writer.append(np.zeros((rows, 1), np.float32))
    with pytest.raises(ArtifactError, match=message):
        read_features(tmp_path, MANIFEST)
