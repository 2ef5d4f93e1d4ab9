from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.artifacts import MANIFEST_COLUMNS, Manifest, Predictions
from graft.prediction_checks import check_of_manifest, check_probabilities
from graft.storage import ArtifactError

PATH = Path("predictions.parquet")
ROWS = pd.DataFrame(
    [("a", "x", "train"), ("b", "y", "test"), ("c", "y", "train"), ("d", "x", "validation")],
    columns=["image_id", "label", "split"],
)
MANIFEST = Manifest(
    ROWS.assign(group=ROWS["image_id"], source="", width=1, height=1)[list(MANIFEST_COLUMNS)], ("x", "y")
)


def predictions(rows: list[int]) -> Predictions:
    return Predictions(ROWS.iloc[rows], np.full((len(rows), 2), 0.5), ("x", "y"), 1.0, MANIFEST.digest)


@pytest.mark.parametrize("rows", [[1, 3], [0, 2]], ids=["held out", "training"])
def test_all_held_out_images_or_all_training_images_are_of_a_manifest(rows: list[int]) -> None:
    check_of_manifest(PATH, predictions(rows), MANIFEST)


@pytest.mark.parametrize("rows", [[], [1], [3, 1], [0], [0, 1, 2, 3], [1, 2]])
def test_others_are_not(rows: list[int]) -> None:
    with pytest.raises(ArtifactError, match=r"predictions.parquet.* another run; `dvc repro` makes it anew"):
        check_of_manifest(PATH, predictions(rows), MANIFEST)


def test_the_manifest_is_that_of_all_images_not_of_those_predicted() -> None:
    """The same images are held out, but another image was learned from, or it was in another group."""
    for column in ("label", "group"):
        rows = MANIFEST.rows.copy()
        rows.loc[0, column] = "y"
        with pytest.raises(ArtifactError, match="must be of the manifest with the digest"):
            check_of_manifest(PATH, predictions([1, 3]), Manifest(rows, ("x", "y")))
    moved = Manifest(MANIFEST.rows.assign(source="elsewhere", width=9), ("x", "y"))
    check_of_manifest(PATH, predictions([1, 3]), moved)


@pytest.mark.parametrize("value", [np.nan, -0.1, 0.6, np.inf])
def test_the_first_row_that_is_no_distribution_is_named(value: float) -> None:
    good = predictions([1, 3])
    check_probabilities(PATH, good)
    bad = good.probabilities.copy()
    bad[1, 0] = value
    with pytest.raises(ArtifactError, match=r"predictions.parquet: row 1 is not a probability distribution, received"):
        check_probabilities(PATH, replace(good, probabilities=bad))
