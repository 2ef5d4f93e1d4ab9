"""What crosses stages: the manifest, views and predictions, each checked on load (features: feature_sets.py).

A folder of images or activations is an index (Parquet) beside a sharded array, row i of the one describing row i of
the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from graft.shards import Shards
from graft.storage import ArtifactError, read_json, read_table, write_json, write_table

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
    rows = read_table(folder / "manifest.parquet", MANIFEST_COLUMNS)
    manifest = Manifest(rows, tuple(read_json(folder / "classes.json")))
    if rows["image_id"].duplicated().any():
        raise ArtifactError(f"{folder}/manifest.parquet lists an image twice")
    unknown = sorted(set(rows["split"]) - set(SPLITS))
    if unknown:
        raise ArtifactError(f"{folder}/manifest.parquet: splits must be among {list(SPLITS)}, received {unknown}")
    straddling = rows.groupby("group")["split"].nunique()
    if (straddling > 1).any():
        raise ArtifactError(f"{folder}/manifest.parquet has group {straddling.idxmax()!r} in more than one split")
    class_numbers(rows["label"], manifest.classes)
    return manifest


def read_images(folder: Path, rows: int) -> Shards:
    """The uint8 RGB images of a prepared or augmented folder, whose index has so many rows.

    Raises:
        ArtifactError: images and index do not belong together.
    """
    return read_rows(folder, "images", rows)


def read_rows(folder: Path, name: str, rows: int) -> Shards:
    """A sharded array of a folder whose index has so many rows.

    Raises:
        ArtifactError: array and index do not belong together.
    """
    shards = Shards(folder, name)
    if len(shards) != rows:
        raise ArtifactError(f"{folder}: {name} has {len(shards)} rows, its index has {rows}")
    return shards


def read_views(folder: Path, manifest: Manifest) -> pd.DataFrame:
    """The index of the augmented images: image_id and view, view after view, each in manifest order.

    Raises:
        ArtifactError: the views are not exactly those of the manifest's training images.
    """
    views = read_table(folder / "views.parquet", ("image_id", "view"))
    train = manifest.rows["image_id"].to_numpy()[manifest.positions("train")]
    count = len(views) // max(1, len(train))
    expected_view = np.repeat(np.arange(count), len(train))
    same = len(views) == count * len(train) and (views["image_id"].to_numpy() == np.tile(train, count)).all()
    if not same or (views["view"].to_numpy() != expected_view).any():
        raise ArtifactError(f"{folder} does not hold the views of this manifest's training images; rerun augment")
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
    """

    rows: pd.DataFrame
    probabilities: np.ndarray
    classes: tuple[str, ...]
    temperature: float = 1.0

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
    _check_predictions(predictions, path)
    columns = [f"{PROBABILITY}{name}" for name in predictions.classes]
    probabilities = pd.DataFrame(np.asarray(predictions.probabilities, np.float64), columns=columns)
    rows = predictions.rows[["image_id", "split", "label"]].reset_index(drop=True)
    write_table(path, pd.concat([rows.assign(temperature=float(predictions.temperature)), probabilities], axis=1))


def read_predictions(path: Path) -> Predictions:
    """Read and check predictions.

    Raises:
        ArtifactError: the file is missing or damaged, a row is not a probability distribution, or the temperature is
            not one positive number.
    """
    frame = read_table(path, ("image_id", "split", "label", "temperature"))
    columns = [column for column in frame.columns if column.startswith(PROBABILITY)]
    classes = tuple(column.removeprefix(PROBABILITY) for column in columns)
    temperatures = frame["temperature"].unique().tolist()
    if len(temperatures) != 1:
        raise ArtifactError(f"{path}: temperature must be the same in every row, received {temperatures[:5]}")
    probabilities = frame[columns].to_numpy(np.float64)
    predictions = Predictions(frame[["image_id", "split", "label"]], probabilities, classes, temperatures[0])
    _check_predictions(predictions, path)
    return predictions


def _check_predictions(predictions: Predictions, path: Path) -> None:
    probabilities, temperature = predictions.probabilities, predictions.temperature
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ArtifactError(f"{path}: temperature must be a positive number, received {temperature!r}")
    expected = (len(predictions.rows), len(predictions.classes))
    if probabilities.shape != expected:
        raise ArtifactError(f"{path}: probabilities must have shape {expected}, received {probabilities.shape}")
    valid = np.isfinite(probabilities).all(axis=1) & (probabilities >= 0).all(axis=1)
    valid &= np.abs(probabilities.sum(axis=1) - 1) < 1e-4
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        raise ArtifactError(f"{path}: row {row} is not a probability distribution, received {probabilities[row]}")
