"""The activations that a features stage wrote, row by row beside the images and views that they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, class_numbers, read_images, read_rows, read_views
from graft.shards import Shards
from graft.storage import ArtifactError, read_json, read_table

IMAGE, TOP = "image", "top"  # where a base begins and, pooled, ends; between them stand names of layers
SVM = "svm"  # the vectors of a support vector machine that stands on other layers than the top alone
ROWS, PLAN = "index.parquet", "plan.json"


class Rows(Protocol):
    """An array of rows read by slice or by an array of row numbers, in memory or not."""

    row_shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...


class Selected:
    """Some rows of another array, in the asked order."""

    def __init__(self, rows: Rows, chosen: np.ndarray) -> None:
        self._rows, self._chosen = rows, chosen
        self.row_shape, self.dtype = rows.row_shape, rows.dtype

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows by their numbers among the chosen ones."""
        return self._rows[self._chosen[rows]]


def feature_index(manifest: Manifest, views: pd.DataFrame) -> pd.DataFrame:
    """The order of a features folder: every image in manifest order, then the further views of the training images."""
    columns = ["image_id", "split", "label"]
    first = manifest.rows[columns].assign(view=0)
    further = views[views["view"] > 0].merge(manifest.rows[columns], on="image_id", how="left", validate="many_to_one")
    return pd.concat([first, further[[*columns, "view"]]], ignore_index=True)


class ViewPixels:
    """The pixels behind a feature index: prepared images, then the augmented views after the first."""

    def __init__(self, prepared: Shards, augmented: Shards, views: pd.DataFrame) -> None:
        self._prepared, self._augmented = prepared, augmented
        self._further = np.flatnonzero((views["view"] > 0).to_numpy())
        self.row_shape, self.dtype = prepared.row_shape, prepared.dtype

    def __len__(self) -> int:
        return len(self._prepared) + len(self._further)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """uint8 RGB of shape (n, height, width, 3), in the asked order."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        pixels = np.empty((len(wanted), *self.row_shape), self.dtype)
        first = wanted < len(self._prepared)
        pixels[first] = self._prepared[wanted[first]]
        pixels[~first] = self._augmented[self._further[wanted[~first] - len(self._prepared)]]
        return pixels


def read_view_pixels(prepared: Path, augmented: Path, manifest: Manifest) -> ViewPixels:
    """The pixels of every image and further view of a manifest.

    Raises:
        ArtifactError: a folder is missing or damaged, or does not belong to the manifest.
    """
    views = read_views(augmented, manifest)
    return ViewPixels(read_images(prepared, manifest.rows), read_images(augmented, views), views)


@dataclass(frozen=True)
class FeatureSet:
    """Activations of a frozen base.

    Attributes:
        index: image_id, split, label and view of each row: first every image in manifest order (view 0), then the
            further views of the training images, view after view, each in manifest order.
        stored: rows by where in the base they stand: `top`, pooled, of shape (n, features); a layer's name, of shape
            (n, height, width, channels); `image`, the pixels, where they were asked for; and `svm`, as with_vectors
            adds it. What the plan of the features stage left out is missing.
        classes: class names in the order of the class numbers.
    """

    index: pd.DataFrame
    stored: Mapping[str, Rows]
    classes: tuple[str, ...]

    def positions(self, split: str, view: int = 0) -> np.ndarray:
        """Row numbers of one view of a split, in manifest order."""
        return np.flatnonzero(((self.index["split"] == split) & (self.index["view"] == view)).to_numpy())

    @property
    def labels(self) -> np.ndarray:
        """Class numbers of shape (n,), in index order."""
        return class_numbers(self.index["label"], self.classes)

    @property
    def views(self) -> int:
        """Views of each training image."""
        return int(self.index["view"].max()) + 1

    def nearest(self, points: Sequence[str]) -> str:
        """The last of some points, listed from the image on, whose rows are stored.

        Raises:
            ArtifactError: none of them is.
        """
        for point in reversed(points):
            if point in self.stored:
                return point
        raise ArtifactError(f"the features folder must hold one of {', '.join(points)}, received {list(self.stored)}")


def read_features(folder: Path, manifest: Manifest, pixels: Rows | None = None) -> FeatureSet:
    """Read and check the features of a manifest's images; with the pixels behind them where a plan left some out.

    Raises:
        ArtifactError: a file is missing or damaged, or rows, index and manifest do not belong together.
    """
    index = read_table(folder / ROWS, ("image_id", "split", "label", "view"))
    _check_index(folder / ROWS, index, manifest)
    stored: dict[str, Rows] = {} if pixels is None else {IMAGE: pixels}
    if pixels is not None and len(pixels) != len(index):
        raise ArtifactError(f"{folder} has {len(index)} rows, the images have {len(pixels)} views; rerun features")
    stored |= {point: read_rows(folder, point, index) for point in _stored_points(folder / PLAN)}
    return FeatureSet(index, stored, manifest.classes)


def with_vectors(
    features: FeatureSet, folder: Path | None, manifest: Manifest, layers: Sequence[Mapping[str, str]]
) -> FeatureSet:
    """The same with the vectors of a support vector machine that a features stage kept in a folder of their own.

    Args:
        features: of the manifest's images.
        folder: of the vectors, where the plan may have left them out; None: there is none.
        manifest: of the images.
        layers: that the machine stands on, each with its pooling.

    Raises:
        ArtifactError: as read_features; or the folder is of other layers or poolings.
    """
    if folder is None:
        return features
    kept = read_features(folder, manifest)
    there = read_json(folder / PLAN).get("layers")
    if there != list(layers):
        raise ArtifactError(f"{folder / PLAN} must be of the layers {list(layers)}, received {there}; rerun features")
    if len(kept.index) != len(features.index):
        raise ArtifactError(
            f"{folder} has {len(kept.index)} rows, the features have {len(features.index)}; rerun features"
        )
    return replace(features, stored={**features.stored, **kept.stored})


def _check_index(path: Path, index: pd.DataFrame, manifest: Manifest) -> None:
    """Refuse an index that feature_index does not make of this manifest and some number of views."""
    columns, train = ["image_id", "split", "label"], manifest.positions("train")
    further = np.tile(train, max(0, len(index) - len(manifest.rows)) // max(1, len(train)))
    expected = manifest.rows[columns].iloc[np.concatenate([np.arange(len(manifest.rows)), further])]
    views = np.concatenate([np.zeros(len(manifest.rows), int), 1 + np.arange(len(further)) // max(1, len(train))])
    same = len(index) == len(expected) and (index["view"].to_numpy() == views).all()
    if not same or (index[columns].to_numpy(object) != expected.to_numpy(object)).any():
        raise ArtifactError(f"{path} does not list this manifest's images and their views in order; rerun features")


def _stored_points(path: Path) -> list[str]:
    plan = read_json(path)
    points = plan.get("stored") if isinstance(plan, dict) else None
    if not isinstance(points, list) or not all(isinstance(point, str) for point in points):
        raise ArtifactError(f"{path} must list the stored points, received {plan!r}; rerun features")
    return points
