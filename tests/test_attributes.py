from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.artifacts import MANIFEST_COLUMNS, Manifest
from graft.attributes import MOST_VALUES, AttributeColumns, as_number, read_attributes, write_attributes
from graft.storage import ArtifactError


def collected(*rows: dict[str, str | None] | None) -> pd.DataFrame:
    columns = AttributeColumns()
    for row in rows:
        columns.add(row)
    return columns.frame()


def manifest(*ids: str) -> Manifest:
    rows = pd.DataFrame({column: ["x"] * len(ids) for column in MANIFEST_COLUMNS})
    return Manifest(rows.assign(image_id=ids), ("x",))


def test_texts_stay_as_they_stand_in_their_order() -> None:
    frame = collected({"camera": "red", "year": "007"}, {"camera": None, "year": "2020"}, {"camera": "red", "year": ""})
    assert frame["camera"].astype(object).where(frame["camera"].notna(), None).tolist() == ["red", None, "red"]
    assert frame["year"].tolist() == ["007", "2020", ""]


def test_sources_without_attributes_have_no_columns() -> None:
    assert collected(None, None).shape == (2, 0)
    assert collected({}, {}).shape == (2, 0)
    assert collected().shape == (0, 0)


def test_more_different_values_than_are_kept_become_numbers() -> None:
    texts = [f"{place / 7:.4f}" for place in range(MOST_VALUES)]
    rows = [*texts, None, "NA", "1e3", "inf", texts[3]]
    frame = collected(*({"seconds": text} for text in rows))
    assert frame["seconds"].dtype == np.float64
    expected = [*map(float, texts), np.nan, np.nan, 1000, np.nan, float(texts[3])]
    np.testing.assert_array_equal(frame["seconds"], expected)


@pytest.mark.parametrize("odd", [0, 500, MOST_VALUES, MOST_VALUES + 5])
def test_very_many_different_texts_say_nothing_of_kinds_wherever_they_stand(odd: int) -> None:
    texts = [str(place) for place in range(MOST_VALUES + 10)]
    texts[odd] = "a caption"
    frame = collected(*({"caption": text, "year": str(place % 3)} for place, text in enumerate(texts)))
    assert frame.columns.tolist() == ["year"]
    assert len(frame) == MOST_VALUES + 10


def test_columns_are_lean() -> None:
    tracemalloc.start()
    columns = AttributeColumns()
    for place in range(20_000):
        columns.add({f"c{name}": f"{name} {place * 31 % 97}" if name % 2 else str(place / 3) for name in range(10)})
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 20_000 * 10 * 10


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), (" -0.5e2 ", -50), ("007", 7), ("red", None), ("3 m", None), ("2020-01-02", None), ("3,5", None)],
)
def test_numbers(text: str, number: float | None) -> None:
    assert as_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "NA", "n/a", "None", "null", "nan", "-inf"])
def test_words_for_no_number(text: str) -> None:
    number = as_number(text)
    assert number is not None
    assert np.isnan(number)


def test_what_was_written_is_read_and_belongs_to_the_manifest(tmp_path: Path) -> None:
    further = collected(*({"camera": name, "note": None} for name in ("red", "blue", None)))
    ids = pd.Series(["1", "2", "3"], index=[7, 5, 9])
    write_attributes(tmp_path, ids, pd.Series([0.0, 127.5, 255.0], index=[7, 5, 9]), further.iloc[[2, 0, 1]])
    frame = read_attributes(tmp_path, manifest("1", "2", "3"))
    assert frame.columns.tolist() == ["image_id", "brightness", "table:camera", "table:note"]
    assert frame["brightness"].tolist() == [0, 127.5, 255]
    assert frame["table:camera"].isna().tolist() == [True, False, False]
    assert frame["table:camera"].tolist()[1:] == ["red", "blue"]
    assert frame["table:note"].isna().all()
    for other in (manifest("1", "3", "2"), manifest("1", "2")):
        with pytest.raises(ArtifactError, match=r"attributes.parquet is not of the images of this manifest"):
            read_attributes(tmp_path, other)


def test_the_bytes_do_not_depend_on_the_sources_order(tmp_path: Path) -> None:
    names = ["red", "blue", "green"]
    for place, order in enumerate(([0, 1, 2], [2, 0, 1])):
        further = collected(*({"camera": names[number]} for number in order)).iloc[np.argsort(order)]
        (tmp_path / str(place)).mkdir()
        write_attributes(tmp_path / str(place), pd.Series(names), pd.Series([1.0, 2.0, 3.0]), further)
    first, second = ((tmp_path / name / "attributes.parquet").read_bytes() for name in "01")
    assert first == second


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"attributes.parquet is missing; `dvc repro` makes it"):
        read_attributes(tmp_path, manifest("1"))
