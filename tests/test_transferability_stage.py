from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import tiny_params

from graft import extraction, runtime
from graft.artifacts import Manifest, read_manifest, read_predictions, write_manifest
from graft.feature_sets import FeatureSet, feature_index
from graft.params import ParamsError
from graft.shards import ShardWriter
from graft.stages import transferability
from graft.storage import read_json, write_json, write_table
from graft.transferability import linear_probe, logme

CLASSES = ("ant", "bee", "wasp")
SPLITS = ["train"] * 24 + ["validation"] * 12 + ["test"] * 9
VIEWS = 2


def features_of(manifest: Manifest) -> np.ndarray:
    """Classes in three clouds that overlap; the last rows are the second views of the training images."""
    generator = np.random.default_rng(0)
    labels = np.concatenate([manifest.labels, manifest.labels[manifest.positions("train")]])
    return (generator.normal(size=(len(labels), 6)) + 2 * np.eye(3, 6)[labels]).astype(np.float32)


def write_rows(folder: Path, name: str, rows: np.ndarray, index: pd.DataFrame) -> None:
    with ShardWriter(folder, name, rows.shape[1:], rows.dtype, index) as writer:
        writer.append(rows)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Prepared, augmented and feature folders of 45 images; two training images show the same thing."""
    ids = [f"{k:02d}" for k in range(len(SPLITS))]
    labels = [CLASSES[k % 3] for k in range(len(SPLITS))]
    rows = pd.DataFrame({"image_id": ids, "label": labels, "split": SPLITS, "group": ids, "source": ids})
    rows.loc[3, "group"] = "00"
    manifest = Manifest(rows.assign(width=4, height=4), CLASSES)
    paths = {name: tmp_path / name for name in ("prepared", "augmented", "features", "source", "out")}
    write_manifest(paths["prepared"], manifest)
    write_rows(paths["prepared"], "images", np.zeros((len(ids), 4, 4, 3), np.uint8), rows)
    train = rows["image_id"][rows["split"] == "train"].to_numpy()
    views = pd.DataFrame({"image_id": np.tile(train, VIEWS), "view": np.repeat(range(VIEWS), len(train))})
    write_table(paths["augmented"] / "views.parquet", views)
    write_rows(paths["augmented"], "images", np.zeros((len(views), 4, 4, 3), np.uint8), views)
    index = feature_index(manifest, views)
    write_table(paths["features"] / "index.parquet", index)
    write_json(paths["features"] / "plan.json", {"stored": ["top"]})
    write_rows(paths["features"], "top", features_of(manifest), index)
    return paths


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "timings.json"}


def test_a_base_is_judged_by_the_first_view_of_the_training_images_alone(folders: dict[str, Path]) -> None:
    params = tiny_params()
    transferability.run(params, "vgg16", **folders)
    manifest = read_manifest(folders["prepared"])
    train = manifest.positions("train")
    rows, labels, groups = features_of(manifest)[train], manifest.labels[train], manifest.rows["group"].iloc[train]
    probe = linear_probe(rows, labels, groups.to_numpy(), classes=3, folds=2, seed=params.seed)
    scores = read_json(folders["out"] / "scores.json")
    accuracy = (probe.probabilities.argmax(axis=1) == labels).mean()
    assert scores["logme"] == logme(rows, labels)
    assert scores["linear_probe"] == accuracy
    assert 0.5 < scores["linear_probe_low"] < accuracy < scores["linear_probe_high"] < 1
    assert (scores["n"], scores["folds"]) == (24, 2)
    judged = read_predictions(folders["out"] / "out_of_fold.parquet")
    assert judged.rows["image_id"].tolist() == manifest.rows["image_id"].iloc[train].tolist()
    np.testing.assert_allclose(judged.probabilities, probe.probabilities)
    assert read_json(folders["out"] / "timings.json")["seconds"] > 0


def test_a_group_counts_once_for_the_width_of_the_interval(folders: dict[str, Path]) -> None:
    """Wilson's interval of p = 1/2 and 3 groups, for z = 1.96: 1/2 -+ 1.96 / 2 / sqrt(3 + 1.96^2)."""
    probe = transferability.Probe(np.tile([0.9, 0.1], (6, 1)), 3)
    found = transferability._accuracy(probe, np.arange(6) % 2, np.repeat([0, 1, 2], 2), 0.95)
    half = 1.96 / 2 / np.sqrt(3 + 1.96**2)
    expected = {"linear_probe": 0.5, "linear_probe_low": 0.5 - half, "linear_probe_high": 0.5 + half, "n": 6}
    assert found == pytest.approx(expected, abs=1e-4)


def test_no_test_image_is_on_the_map(folders: dict[str, Path]) -> None:
    transferability.run(tiny_params(), "vgg16", **folders)
    points = pd.read_parquet(folders["out"] / "map.parquet")
    assert list(points.columns) == ["image_id", "split", "label", "pca_x", "pca_y", "tsne_x", "tsne_y"]
    manifest = read_manifest(folders["prepared"]).rows.head(36)
    assert points[["image_id", "split", "label"]].equals(manifest[["image_id", "split", "label"]])
    assert np.isfinite(points.filter(like="_x").to_numpy()).all()


def test_a_second_run_gives_the_same_bytes(folders: dict[str, Path]) -> None:
    transferability.run(tiny_params(), "vgg16", **folders)
    first = results(folders["out"])
    assert sorted(first) == ["map.parquet", "out_of_fold.parquet", "scores.json"]
    transferability.run(tiny_params(), "vgg16", **folders)
    assert results(folders["out"]) == first


def test_features_that_were_not_stored_are_computed(folders: dict[str, Path], monkeypatch: Any) -> None:
    transferability.run(tiny_params(), "vgg16", **folders)
    stored = results(folders["out"])
    write_json(folders["features"] / "plan.json", {"stored": []})
    rows = features_of(read_manifest(folders["prepared"]))

    def top_rows(features: FeatureSet, wanted: np.ndarray, source: Path, row: Any) -> np.ndarray:
        assert source == folders["source"]
        assert row.base.application == "VGG16"
        return rows[wanted]

    monkeypatch.setattr(extraction, "top_rows", top_rows)
    monkeypatch.setattr(runtime, "configure", lambda seed: None)
    transferability.run(tiny_params(), "vgg16", **folders)
    assert results(folders["out"]) == stored


def test_an_unknown_base_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ParamsError, match="backbones has no row 'vgg'; it has: mobilenet, vgg16"):
        transferability.run(tiny_params(), "vgg", **folders)
