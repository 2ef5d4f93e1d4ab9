"""Whether predictions are probabilities, and of the images that they are taken for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graft.storage import ArtifactError

if TYPE_CHECKING:
    from graft.artifacts import Manifest, Predictions

RERUN = "it is of another run; `dvc repro` makes it anew"


def check_of_manifest(path: Path, predictions: Predictions, manifest: Manifest) -> None:
    """Refuse predictions that are not of a manifest's validation and test images, or else of its training images.

    Raises:
        ArtifactError: they differ in classes, images, their order, splits or labels, or were made with other ones.
    """
    if predictions.classes != manifest.classes:
        raise ArtifactError(f"{path} must have the classes {manifest.classes}, received {predictions.classes}")
    columns = ["image_id", "split", "label"]
    rows = predictions.rows[columns]
    trained = (manifest.rows["split"] == "train").to_numpy()
    expected = manifest.rows.loc[trained if (rows["split"] == "train").any() else ~trained, columns]
    if len(rows) != len(expected):
        raise ArtifactError(
            f"{path} must have {len(expected)} rows, as the manifest has, received {len(rows)}; {RERUN}"
        )
    differs = (rows.to_numpy(object) != expected.to_numpy(object)).any(axis=1)
    if differs.any():
        row = int(differs.argmax())
        wanted, received = expected.iloc[row].tolist(), rows.iloc[row].tolist()
        raise ArtifactError(f"{path}: row {row} must be {wanted}, as in the manifest, received {received}; {RERUN}")
    if predictions.manifest != manifest.digest:
        said = "none" if predictions.manifest is None else predictions.manifest[:12]
        raise ArtifactError(
            f"{path} must be of the manifest with the digest {manifest.digest[:12]}, received {said}; {RERUN}"
        )


def check_probabilities(path: Path, predictions: Predictions) -> None:
    """Refuse predictions whose rows are no probability distributions, or whose temperature is none.

    Raises:
        ArtifactError: the first such row or value is named.
    """
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
