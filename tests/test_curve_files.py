from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graft.curve_files import ALL, read_curve, write_curve
from graft.storage import ArtifactError


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two fits of two images."""
    fits = pd.DataFrame({"kind": "svm", "per_class": [5, ALL], "seed": 1, "images": [10, 14], "epochs": 0})
    fits["seconds"] = [0.25, 1 / 3]
    held_out = pd.DataFrame({"split": ["validation", "test"], "image_id": ["a", "b"], "label": "ant"})
    predictions = fits[["kind", "per_class", "seed"]].merge(held_out, how="cross").assign(predicted="bee")
    return predictions, fits


def test_a_curve_is_read_as_it_was_written_and_its_seconds_stand_apart(tmp_path: Path) -> None:
    predictions, fits = tables()
    write_curve(tmp_path / "curve", predictions, fits)
    read = read_curve(tmp_path / "curve")
    pd.testing.assert_frame_equal(read[0], predictions, check_dtype=False)
    pd.testing.assert_frame_equal(read[1], fits, check_dtype=False)
    assert "seconds" not in (tmp_path / "curve/fits.csv").read_text()
    assert (tmp_path / "curve/timings.csv").read_text().startswith("kind,per_class,seed,seconds\n")


def test_files_of_different_fits_are_refused(tmp_path: Path) -> None:
    predictions, fits = tables()
    write_curve(tmp_path, predictions[predictions["per_class"] == 5], fits)
    with pytest.raises(ArtifactError, match="must be of the same fits; rerun the curve"):
        read_curve(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_curve(tmp_path / "curve", *tables())
    (tmp_path / "curve/fits.csv").unlink()
    with pytest.raises(ArtifactError, match=r"curve/fits\.csv is missing"):
        read_curve(tmp_path / "curve")


@pytest.mark.parametrize("content", ["", "kind,per_class,seed\nsvm,5,1\n"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    write_curve(tmp_path / "curve", *tables())
    (tmp_path / "curve/timings.csv").write_text(content)
    with pytest.raises(ArtifactError, match=r"curve/timings\.csv must be a CSV file with the columns .*'seconds'"):
        read_curve(tmp_path / "curve")
