"""A learning curve as its stages write it and the comparison reads it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from graft.storage import ArtifactError, new_folder, read_table, write_table

ALL = -1  # in place of a number of images per class
POINT = ["kind", "per_class", "seed"]  # of a fit; kind is baseline, frozen, finetune or svm
PREDICTION_COLUMNS = (*POINT, "split", "image_id", "label", "predicted")
FIT_COLUMNS, TIMING_COLUMNS = (*POINT, "images", "epochs"), (*POINT, "seconds")
PREDICTIONS, FITS, TIMINGS = "predictions.parquet", "fits.csv", "timings.csv"


def write_curve(out: Path, predictions: pd.DataFrame, fits: pd.DataFrame) -> None:
    """Write a curve's folder: predictions.parquet, fits.csv and, apart from these results, timings.csv.

    Args:
        out: the folder.
        predictions: with PREDICTION_COLUMNS, of every fit and held-out image.
        fits: as from read_curve.
    """
    with new_folder(out) as folder:
        write_table(folder / PREDICTIONS, predictions[list(PREDICTION_COLUMNS)])
        write_table(folder / FITS, fits[list(FIT_COLUMNS)])
        write_table(folder / TIMINGS, fits[list(TIMING_COLUMNS)])


def read_curve(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The predictions, and one row per fit: POINT, images (learned from), epochs (0 of an SVM) and seconds.

    Raises:
        ArtifactError: a file is missing or damaged, or the files are of different fits.
    """
    predictions = read_table(folder / PREDICTIONS, PREDICTION_COLUMNS)
    fits, timings = _read_csv(folder / FITS, FIT_COLUMNS), _read_csv(folder / TIMINGS, TIMING_COLUMNS)
    points = [set(table[POINT].itertuples(index=False, name=None)) for table in (predictions, fits, timings)]
    if not points[0] == points[1] == points[2]:
        raise ArtifactError(f"{folder}: {PREDICTIONS}, {FITS} and {TIMINGS} must be of the same fits; rerun the curve")
    return predictions, fits.merge(timings, on=POINT, validate="one_to_one")


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        return pd.read_csv(path, usecols=list(columns))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise ArtifactError(f"{path} must be a CSV file with the columns {list(columns)}: {error}") from None
