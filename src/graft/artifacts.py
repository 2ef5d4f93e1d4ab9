"""What crosses stages: the manifest, views and predictions, each checked on load (features: feature_sets.py).

A folder of images or activations is an index (Parquet) beside a sharded array, row i of the one describing row i of
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from graft.prediction_checks import RERUN, check_of_manifest, check_probabilities
from graft.shard_files import index_digest, rows_digest
from graft.shards import Shards
from graft.storage import ArtifactError, read_described, read_json, read_table, write_json, write_table

SPLITS = ("train", "validation", "test")
MANIFEST_COLUMNS = ("image_id", "label", "split", "group", "source", "width", "height")
PROBABILITY = "p:"  # prefix of the probability columns of predictions.parquet


@dataclass(frozen=True)
class Manifest:
    """The images of a prepared data set.

    Attributes:
        rows: one row per image with the columns MANIFEST_COLUMNS; row i is image i of the shards. Images of one group
            show the same thing, or belong together by what the source says; no group is in two splits.
        classes: class names in the order of the probability columns.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """Class numbers of shape (n,), in manifest order."""
        return class_numbers(self.rows["label"], self.classes)

    @cached_property
    def digest(self) -> str:
        """Hash of the classes and of each image's id, label, split and group: what predictions are tied to."""
        return rows_digest(self.rows, ("image_id", "label", "split", "group"), *self.classes)

    def positions(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero((self.rows["split"] == split).to_numpy())


def class_numbers(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Position of each label in classes, of shape (n,).

    Raises:
        ArtifactError: a label is not among the classes.
    """
    numbers = pd.Index(classes).get_indexer(pd.Index(labels))
    if (numbers < 0).any():
        raise ArtifactError(f"labels must be among {list(classes)}, received {labels[numbers < 0].iloc[0]!r}")
    return numbers


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.parquet and classes.json into a prepared folder."""
    write_table(folder / "manifest.parquet", manifest.rows)
    write_json(folder / "classes.json", list(manifest.classes))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a prepared folder.

    Raises:
        ArtifactError: a file is missing or damaged, an id occurs twice, a group is in two splits, or a label or
            split is unknown.
    """
    path = folder / "manifest.parquet"
    rows = read_table(path, MANIFEST_COLUMNS)
    manifest = Manifest(rows, _read_classes(folder / "classes.json"))
    _check_ids(path, rows["image_id"])
    unknown = sorted(set(rows["split"]) - set(SPLITS), key=str)
    if unknown:
        raise ArtifactError(f"{path}: splits must be among {list(SPLITS)}, received {unknown}")
    if rows["group"].isna().any():
        raise ArtifactError(
            f"{path}: every image must have a group, received none in row {rows['group'].isna().argmax()}"
        )
    straddling = rows.groupby("group")["split"].nunique()
    if (straddling > 1).any():
        raise ArtifactError(f"{path} has group {straddling.idxmax()!r} in more than one split")
    _check_labels(path, rows["label"], manifest.classes)
    return manifest


def _read_classes(path: Path) -> tuple[str, ...]:
    classes = read_json(path)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ArtifactError(f"{path} must be a list of class names, received {classes!r}")
    if len(set(classes)) < len(classes):
        raise ArtifactError(f"{path} must name each class once, received {classes}")
    return tuple(classes)


def _check_ids(path: Path, ids: pd.Series) -> None:
    if ids.duplicated().any():
        raise ArtifactError(f"{path} lists an image twice: {ids[ids.duplicated()].iloc[0]!r}")


def _check_labels(path: Path, labels: pd.Series, classes: Sequence[str]) -> None:
    try:
        class_numbers(labels, classes)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def read_images(folder: Path, index: pd.DataFrame) -> Shards:
    """The uint8 RGB images of a prepared or augmented folder: as read_rows.

    Raises:
        ArtifactError: images and index do not belong together.
    """
    return read_rows(folder, "images", index)


def read_rows(folder: Path, name: str, index: pd.DataFrame) -> Shards:
    """A sharded array of a folder, row i of which belongs to line i of an index.

    Args:
        folder: that holds it.
        name: of the array.
        index: with the column image_id and maybe view.

    Raises:
        ArtifactError: array and index do not belong together.
    """
    shards = Shards(folder, name)
    if len(shards) != len(index):
        raise ArtifactError(f"{folder}: {name} has {len(shards)} rows, its index has {len(index)}")
    expected, received = index_digest(index), shards.header.index
    if received != expected:
        said = "none" if received is None else received[:12]
        raise ArtifactError(
            f"{shards.header_path} must be of the images whose list has the digest {expected[:12]}, received "
            f"{said}; {RERUN}"
        )
    return shards


def read_views(folder: Path, manifest: Manifest) -> pd.DataFrame:
    """The index of the augmented images: image_id and view, view after view, each in manifest order.

    Raises:
        ArtifactError: the views are not exactly those of the manifest's training images.
    """
    path = folder / "views.parquet"
    views = read_table(path, ("image_id", "view"))
    train = manifest.rows["image_id"].to_numpy()[manifest.positions("train")]
    count = len(views) // max(1, len(train))
    expected_view = np.repeat(np.arange(count), len(train))
    same = len(views) == count * len(train) and (views["image_id"].to_numpy() == np.tile(train, count)).all()
    if not same or (views["view"].to_numpy() != expected_view).any():
        raise ArtifactError(f"{path} does not hold the views of this manifest's training images; rerun augment")
    return views


def view_rows(views: pd.DataFrame) -> list[np.ndarray]:
    """Row numbers of each view in an index of augmented images, in manifest order."""
    return [np.flatnonzero((views["view"] == view).to_numpy()) for view in range(int(views["view"].max()) + 1)]


@dataclass(frozen=True)
class Predictions:
    """What a model says of the validation and test images.

    Attributes:
        rows: image_id, split and label, in manifest order.
        probabilities: calibrated, of shape (n, classes), each row summing to one.
        classes: class names in the order of the probability columns.
        temperature: what the logarithms of the model's own probabilities were divided by, as calibration.py does.
        manifest: digest of the manifest that lists the images; None where it is not known.
    """

    rows: pd.DataFrame
    probabilities: np.ndarray
    classes: tuple[str, ...]
    temperature: float = 1.0
    manifest: str | None = None

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Class numbers (n,) and probabilities (n, classes) of one split; both empty where the split is."""
        chosen = (self.rows["split"] == name).to_numpy()
        return class_numbers(self.rows["label"][chosen], self.classes), self.probabilities[chosen]

    def uncalibrated(self) -> np.ndarray:
        """The probabilities (n, classes) as the model gave them, which is at temperature one."""
        powers = (self.probabilities / self.probabilities.max(axis=1, keepdims=True)) ** self.temperature
        return powers / powers.sum(axis=1, keepdims=True)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write image id, split, label, temperature (the same in every row) and one probability column per class."""
    check_probabilities(path, predictions)
    columns = [f"{PROBABILITY}{name}" for name in predictions.classes]
    probabilities = pd.DataFrame(np.asarray(predictions.probabilities, np.float64), columns=columns)
    rows = predictions.rows[["image_id", "split", "label"]].reset_index(drop=True)
    facts = {} if predictions.manifest is None else {"manifest": predictions.manifest}
    table = pd.concat([rows.assign(temperature=float(predictions.temperature)), probabilities], axis=1)
    write_table(path, table, facts)


def read_predictions(path: Path, *, manifest: Manifest | None = None, archived: bool = False) -> Predictions:
    """Read and check predictions.

    Args:
        path: of the file.
        manifest: what they must be of: all of its validation and test images, or else all of its training images.
        archived: as of storage.read_described.

    Raises:
        ArtifactError: the file is missing or damaged, an image is there twice, a label is no class, a row is not a
            probability distribution, the temperature is not one positive number, or they are of another manifest.
    """
    frame, facts = read_described(path, ("image_id", "split", "label", "temperature"), archived=archived)
    columns = [column for column in frame.columns if column.startswith(PROBABILITY)]
    classes = tuple(column.removeprefix(PROBABILITY) for column in columns)
    temperatures = frame["temperature"].unique().tolist()
    if len(temperatures) != 1:
        raise ArtifactError(f"{path}: temperature must be the same in every row, received {temperatures[:5]}")
    probabilities = frame[columns].to_numpy(np.float64)
    rows = frame[["image_id", "split", "label"]]
    predictions = Predictions(rows, probabilities, classes, temperatures[0], facts.get("manifest"))
    check_probabilities(path, predictions)
    _check_ids(path, rows["image_id"])
    _check_labels(path, rows["label"], classes)
    if manifest is not None:
        check_of_manifest(path, predictions, manifest)
    return predictions
