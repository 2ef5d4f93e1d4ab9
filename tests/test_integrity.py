"""Everything that crosses stages, damaged in every way that one could think of: each is refused, and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from graft import shards
from graft.artifacts import (
    MANIFEST_COLUMNS,
    Manifest,
    Predictions,
    read_images,
    read_manifest,
    read_predictions,
    write_manifest,
    write_predictions,
)
from graft.attributes import read_attributes, write_attributes
from graft.feature_sets import feature_index, read_features, read_view_pixels
from graft.shards import ShardWriter
from graft.storage import ArtifactError, read_json, write_json, write_table

CLASSES = ("ants", "bees")
SPLITS = ["train", "test", "train", "validation", "train", "train", "validation", "train", "test", "train"]
SIDE, VIEWS = 2, 2
Damage = Callable[[Path], object]


def manifest_of(ids: list[str]) -> Manifest:
    rows = pd.DataFrame({"image_id": ids, "label": np.resize(CLASSES, len(ids)), "split": SPLITS, "group": ids})
    return Manifest(rows.assign(source="a.png", width=4, height=3)[list(MANIFEST_COLUMNS)], CLASSES)


MANIFEST = manifest_of([f"{number:02d}" for number in range(len(SPLITS))])
OTHER = manifest_of([f"{number:02x}" for number in range(90, 90 + len(SPLITS))])  # another run of as many images


def write_rows(folder: Path, name: str, index: pd.DataFrame, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (len(index), SIDE, SIDE, 3), np.uint8)
    with ShardWriter(folder, name, rows.shape[1:], np.uint8, index) as writer:
        writer.append(rows)


def write_run(root: Path, manifest: Manifest) -> None:
    """What the stages leave of some images: prepared, augmented, features, predictions and attributes."""
    write_manifest(root / "prepared", manifest)
    write_rows(root / "prepared", "images", manifest.rows, 0)
    train = manifest.rows["image_id"].to_numpy()[manifest.positions("train")]
    views = pd.DataFrame({"image_id": np.tile(train, VIEWS), "view": np.repeat(range(VIEWS), len(train))})
    write_table(root / "augmented" / "views.parquet", views)
    write_rows(root / "augmented", "images", views, 1)
    index = feature_index(manifest, views)
    write_table(root / "features" / "index.parquet", index)
    write_json(root / "features" / "plan.json", {"stored": ["top"]})
    write_rows(root / "features", "top", index, 2)
    held_out = manifest.rows[manifest.rows["split"] != "train"]
    probabilities = np.random.default_rng(3).dirichlet([1.0, 1.0], len(held_out))
    write_predictions(root / "predictions.parquet", Predictions(held_out, probabilities, CLASSES, 1.5, manifest.digest))
    none = pd.DataFrame(index=range(len(manifest.rows)))
    write_attributes(root, manifest.rows["image_id"], pd.Series(np.arange(len(manifest.rows)) / 2), none)


def read_run(root: Path) -> None:
    """Everything of it, to the last row."""
    manifest = read_manifest(root / "prepared")
    read_images(root / "prepared", manifest.rows)[:]
    pixels = read_view_pixels(root / "prepared", root / "augmented", manifest)
    features = read_features(root / "features", manifest, pixels)
    for rows in features.stored.values():
        assert len(rows[:]) == len(features.index)
    read_predictions(root / "predictions.parquet", manifest=manifest)
    read_attributes(root, manifest)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and, in `other`, another."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(shards, "SHARD_BYTES", 4 * SIDE * SIDE * 3)  # ten images are pieces of 4, 4 and 2
        write_run(folder, MANIFEST)
        write_run(folder / "other", OTHER)
        write_run(folder / "again", MANIFEST)
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(runs, tmp_path / "run"))


def on(name: str, change: Callable[[Path], object]) -> Damage:
    return lambda root: change(root / name)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One bit of the content: of the last row, or the first column."""
    data = bytearray(path.read_bytes())
    data[-5 if path.suffix == ".npy" else 40] ^= 16
    path.write_bytes(data)


def as_folder(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(content)  # a reader of whole folders would find it


def as_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def exchanged(one: str, other: str) -> Damage:
    def exchange(root: Path) -> None:
        (root / one).rename(root / "aside")
        (root / other).rename(root / one)
        (root / "aside").rename(root / other)

    return exchange


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda root: np.save(root / name, change(np.load(root / name)))


def header(name: str, **changes: Any) -> Damage:
    """Some values of a header; None takes one away."""

    def write(root: Path) -> None:
        content = read_json(root / name) | changes
        write_json(root / name, {key: value for key, value in content.items() if value is not None})

    return write


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame], **facts: str) -> Damage:
    """Rewritten by a program that knows the format, so that the content alone is wrong."""

    def write(root: Path) -> None:
        said = {"manifest": MANIFEST.digest} if name == "predictions.parquet" else {}
        write_table(root / name, change(pd.read_parquet(root / name)), said | facts)

    return write


def metadata(name: str, **changes: Any) -> Damage:
    """What a table says of itself; None takes it all away."""

    def write(root: Path) -> None:
        content = pq.read_table(root / name)
        kept = dict(content.schema.metadata)
        said = json.loads(kept.pop(b"graft")) | changes
        new = kept if None in changes.values() else kept | {b"graft": json.dumps(said).encode()}
        pq.write_table(content.replace_schema_metadata(new), root / name)

    return write


def other(*names: str) -> Damage:
    """Files of another run with as many images."""

    def copy(root: Path) -> None:
        for name in names:
            shutil.copyfile(root / "other" / name, root / name)

    return copy


def put(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].tolist()
        values[row] = value
        return frame.assign(**{column: values})

    return change


def backwards(values: Any) -> Any:
    return values[::-1]


IMAGES = ("prepared/images.json", "prepared/images.crc.npy", *(f"prepared/images-0000{n}.npy" for n in range(3)))
PREDICTIONS = "predictions.parquet"

BAD = {
    # The rows: damage comes to light when they are read.
    "a truncated shard": (on("prepared/images-00001.npy", cut), "images-00001.npy is damaged"),
    "an empty shard": (on("augmented/images-00000.npy", emptied), "images-00000.npy is damaged"),
    "a missing shard": (on("features/top-00001.npy", Path.unlink), "top-00001.npy is missing"),
    "a shard that is a folder": (on("prepared/images-00000.npy", as_folder), "images-00000.npy is damaged"),
    "a shard that links to itself": (on("prepared/images-00000.npy", as_loop), "images-00000.npy is damaged"),
    "a flipped bit in an image": (on("prepared/images-00001.npy", flipped), "images-00001.npy is damaged: row 7 "),
    "a flipped bit in a view": (on("augmented/images-00002.npy", flipped), "images-00002.npy is damaged: row 11 "),
    "a flipped bit in an activation": (on("features/top-00003.npy", flipped), "top-00003.npy is damaged: row 15 "),
    "rows that changed places": (array("prepared/images-00000.npy", backwards), "images-00000.npy is damaged: row 0 "),
    "shards that changed places": (
        exchanged("prepared/images-00000.npy", "prepared/images-00001.npy"),
        "images-00000.npy is damaged: row 0 ",
    ),
    "a shard of the views among the images": (
        lambda root: shutil.copyfile(root / "augmented/images-00000.npy", root / "prepared/images-00000.npy"),
        "images-00000.npy is damaged: row 0 ",
    ),
    "a shard of floats": (
        array("features/top-00000.npy", lambda rows: rows.astype(np.float32)),
        r"top-00000.npy must hold uint8 \(4, 2, 2, 3\), received float32",
    ),
    "a shard of another shape": (
        array("prepared/images-00002.npy", lambda rows: rows[..., :1]),
        r"images-00002.npy must hold uint8 \(2, 2, 2, 3\), received uint8 \(2, 2, 2, 1\)",
    ),
    "a shard stored by columns": (
        array("prepared/images-00000.npy", np.asfortranarray),
        "images-00000.npy must hold .* row by row",
    ),
    "a shard of Python objects": (
        lambda root: np.save(root / "prepared/images-00000.npy", np.array([{}], object), allow_pickle=True),
        "images-00000.npy is damaged",
    ),
    "a shard that grew": (
        on("prepared/images-00002.npy", lambda path: path.write_bytes(path.read_bytes() + b"more")),
        "images-00002.npy must have 152 bytes, received 156",
    ),
    # Their headers and checksums.
    "no header": (on("prepared/images.json", Path.unlink), "images.json is missing"),
    "a header that is no JSON": (on("prepared/images.json", cut), "images.json is not JSON"),
    "a header that is a list": (
        lambda root: write_json(root / "prepared/images.json", []),
        "images.json must be of schema 1, received none",
    ),
    "a header without a schema": (header("prepared/images.json", schema=None), "schema 1, received none"),
    "a header of a later schema": (header("augmented/images.json", schema=2), "images.json .* schema 1, received 2"),
    "a header without its rows": (header("prepared/images.json", rows=None), "images.json is no header of shards: "),
    "a header with a negative number": (header("features/top.json", rows=-1), "top.json is no header of shards"),
    "a header with something else": (header("features/top.json", more=1), "top.json is no header of shards"),
    "a header of no type": (header("features/top.json", dtype="uint7"), "top.json is no header of shards"),
    "a header of objects": (header("features/top.json", dtype="object"), "top.json must have a dtype of numbers"),
    "a header that promises more rows": (header("prepared/images.json", rows=11), r"images.crc.npy must hold .*\(11,"),
    "checksums that are missing": (on("prepared/images.crc.npy", Path.unlink), "images.crc.npy is missing"),
    "a flipped bit in the checksums": (
        on("prepared/images.crc.npy", flipped),
        r"images.crc.npy does not belong to \S+images.json, or is damaged",
    ),
    # What belongs together.
    "images of another run": (other(*IMAGES), "prepared/images.json must be of the images .* digest .* another run"),
    "a manifest of another run": (other("prepared/manifest.parquet"), "prepared/images.json must be of the images"),
    "images of a shorter list": (
        table("prepared/manifest.parquet", lambda frame: frame[:-1]),
        "prepared: images has 10 rows, its index has 9",
    ),
    "images in the order of another list": (
        table("prepared/manifest.parquet", backwards),
        "prepared/images.json must be of the images",
    ),
    "views of other images": (other("augmented/views.parquet"), "views.parquet does not hold the views of this"),
    "views in another order": (
        table("augmented/views.parquet", backwards),
        "views.parquet does not hold the views of this manifest's training images",
    ),
    "features of another run": (other("features/index.parquet"), "index.parquet does not list this manifest's images"),
    "further views in another order": (
        table("features/index.parquet", lambda frame: pd.concat([frame[:10], frame[:9:-1]])),
        "index.parquet does not list this manifest's images and their views in order",
    ),
    "an index of other labels": (table("features/index.parquet", put("label", 3, "ants")), "index.parquet does not"),
    "an index of other views": (table("features/index.parquet", put("view", 0, 1)), "index.parquet does not list"),
    "activations of another index": (
        header("features/top.json", index="0" * 64),
        "top.json must be of the images whose list has the digest .* received 000000000000; it is of another run",
    ),
    "a plan without points": (
        lambda root: write_json(root / "features/plan.json", {"stored": "top"}),
        r"plan.json must list the stored points, received \{'stored': 'top'\}",
    ),
    "attributes of other images": (other("attributes.parquet"), "attributes.parquet is not of the images of this"),
    # The manifest.
    "no manifest": (on("prepared/manifest.parquet", Path.unlink), "manifest.parquet is missing"),
    "a truncated manifest": (on("prepared/manifest.parquet", cut), "manifest.parquet is not a readable Parquet file"),
    "an empty manifest": (on("prepared/manifest.parquet", emptied), "manifest.parquet is not a readable Parquet file"),
    "a manifest that is a folder": (on("prepared/manifest.parquet", as_folder), "manifest.parquet is not a readable"),
    "a manifest that links to itself": (on("prepared/manifest.parquet", as_loop), "manifest.parquet is not a readable"),
    "a flipped bit in the manifest": (on("prepared/manifest.parquet", flipped), "manifest.parquet is not a readable"),
    "a manifest from before there were schemas": (
        metadata("prepared/manifest.parquet", schema=None),
        "manifest.parquet must be of schema 1, received none, as from before .*; `dvc repro` makes it anew",
    ),
    "a manifest of a later schema": (metadata("prepared/manifest.parquet", schema=2), "schema 1, received 2"),
    "a manifest that says another number of rows": (
        metadata("prepared/manifest.parquet", rows=11),
        "manifest.parquet must have the rows that it says, 11, received 10",
    ),
    "an image twice": (
        table("prepared/manifest.parquet", put("image_id", 1, "00")),
        "manifest.parquet lists an image twice: '00'",
    ),
    "a group in two splits": (
        table("prepared/manifest.parquet", put("group", 1, "00")),
        "manifest.parquet has group '00' in more than one split",
    ),
    "no group": (
        table("prepared/manifest.parquet", put("group", 4, None)),
        "must have a group, received none in row 4",
    ),
    "an unknown split": (
        table("prepared/manifest.parquet", put("split", 0, "holdout")),
        r"manifest.parquet: splits must be among .* received \['holdout'\]",
    ),
    "an unknown label": (
        table("prepared/manifest.parquet", put("label", 0, "wasps")),
        r"manifest.parquet: labels must be among \['ants', 'bees'\], received 'wasps'",
    ),
    "a manifest without labels": (
        table("prepared/manifest.parquet", lambda frame: frame.drop(columns="label")),
        "manifest.parquet must have the columns",
    ),
    "classes that are no list": (
        lambda root: write_json(root / "prepared/classes.json", {"ants": 0}),
        r"classes.json must be a list of class names, received \{'ants': 0\}",
    ),
    "a class twice": (
        lambda root: write_json(root / "prepared/classes.json", [*CLASSES, "ants"]),
        "classes.json must name each class once",
    ),
    # The predictions.
    "a probability that is NaN": (table(PREDICTIONS, put("p:ants", 2, np.nan)), "row 2 is not a probability distrib"),
    "a probability below zero": (
        table(PREDICTIONS, lambda frame: put("p:ants", 1, -0.5)(put("p:bees", 1, 1.5)(frame))),
        "predictions.parquet: row 1 is not a probability distribution",
    ),
    "probabilities that do not sum to one": (table(PREDICTIONS, put("p:bees", 0, 0.999)), "row 0 is not a probab"),
    "a class without its column": (
        table(PREDICTIONS, lambda frame: frame.drop(columns="p:bees")),
        "predictions.parquet: row 0 is not a probability distribution",
    ),
    "classes in another order": (
        table(PREDICTIONS, lambda frame: frame[[*frame.columns[:4], "p:bees", "p:ants"]]),
        r"predictions.parquet must have the classes \('ants', 'bees'\), received \('bees', 'ants'\)",
    ),
    "a temperature of zero": (
        table(PREDICTIONS, lambda frame: frame.assign(temperature=0.0)),
        "predictions.parquet: temperature must be a positive number",
    ),
    "predictions in another order": (
        table(PREDICTIONS, backwards),
        r"predictions.parquet: row 0 must be \['01', 'test', 'bees'\], as in the manifest, received \['08', ",
    ),
    "a prediction twice": (
        table(PREDICTIONS, lambda frame: pd.concat([frame, frame[:1]])),
        "predictions.parquet lists an image twice: '01'",
    ),
    "a prediction too few": (
        table(PREDICTIONS, lambda frame: frame[:-1]),
        "predictions.parquet must have 4 rows, as the manifest has, received 3",
    ),
    "a label that the manifest has otherwise": (
        table(PREDICTIONS, put("label", 0, "ants")),
        r"predictions.parquet: row 0 must be .*'bees'\], as in the manifest, received .*'ants'\]; it is of another run",
    ),
    "a label that is no class": (table(PREDICTIONS, put("label", 0, "wasps")), "predictions.parquet: labels must be"),
    "predictions of other images": (other(PREDICTIONS), "predictions.parquet: row 0 must be .*, as in the manifest"),
    "predictions by what learned from other images": (
        table(PREDICTIONS, lambda frame: frame, manifest=OTHER.digest),
        f"predictions.parquet must be of the manifest with the digest {MANIFEST.digest[:12]}, received",
    ),
    "predictions that do not say whose they are": (
        lambda root: write_table(root / PREDICTIONS, pd.read_parquet(root / PREDICTIONS)),
        "predictions.parquet must be of the manifest with the digest .*, received none",
    ),
    "predictions from before there were schemas": (
        metadata(PREDICTIONS, schema=None),
        "predictions.parquet must be of schema 1, received none",
    ),
}


def test_a_whole_run_is_read_and_written_again_with_equal_bytes(runs: Path) -> None:
    read_run(runs)
    names = [path.relative_to(runs / "again") for path in (runs / "again").rglob("*.*")]
    assert len(names) == 23
    for name in names:
        assert (runs / "again" / name).read_bytes() == (runs / name).read_bytes()


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD)
def test_a_bad_artifact_is_refused_by_name(damage: Damage, message: str, run: Path) -> None:
    damage(run)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_run(run)
    assert str(run) in str(caught.value)
