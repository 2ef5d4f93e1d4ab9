from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from graft.file_differences import file_difference, value_difference

TABLE = pd.DataFrame({"image_id": ["a", "b", "c"], "p:ants": [0.1, 0.25, np.nan], "seconds": [1.0, 2.0, 3.0]})


@pytest.fixture
def difference(tmp_path: Path) -> Callable[..., str | None]:
    """The difference of two files of a name, each written by a function."""

    def of(name: str, one: Callable[[Path], Any], other: Callable[[Path], Any], *excluded: str) -> str | None:
        paths = tmp_path / "left" / name, tmp_path / "right" / name
        for path, write in zip(paths, (one, other), strict=True):
            path.parent.mkdir(exist_ok=True)
            write(path)
        return file_difference(*paths, excluded)

    return of


def table(suffix: str, **changes: list[Any]) -> Callable[[Path], Any]:
    frame = TABLE.assign(**{name.replace("_ants", ":ants"): values for name, values in changes.items()})
    return lambda path: frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_differs_in_a_row_and_a_column(difference: Any, suffix: str) -> None:
    name = f"table.{suffix}"
    assert difference(name, table(suffix), table(suffix)) is None
    other = table(suffix, p_ants=[0.1, 0.5, 0.75])
    expected = {
        "parquet": "row 1, column p:ants: 0.25 against 0.5 (the first of 2 values that differ)",
        "csv": "row 1, column p:ants: '0.25' against '0.5' (the first of 2 values that differ)",
    }
    assert difference(name, table(suffix), other) == expected[suffix]


def test_the_smallest_difference_of_a_number_is_one(difference: Any) -> None:
    other = table("parquet", p_ants=[0.1, float(np.nextafter(0.25, 1)), np.nan])
    found = difference("table.parquet", table("parquet"), other)
    assert found == "row 1, column p:ants: 0.25 against 0.25000000000000006"


def test_an_excluded_column_is_not_compared(difference: Any) -> None:
    other = table("parquet", seconds=[9.0, 9.0, 9.0])
    assert "column seconds: 1.0 against 9.0" in difference("table.parquet", table("parquet"), other)
    assert difference("table.parquet", table("parquet"), other, "*seconds") is None


def test_tables_of_other_shapes_differ_by_what_they_hold(difference: Any) -> None:
    longer, wider, typed = pd.concat([TABLE, TABLE]), TABLE.assign(more=1), TABLE.assign(seconds=[1, 2, 3])
    found = [
        difference("table.parquet", table("parquet"), frame.reset_index(drop=True).to_parquet)
        for frame in (longer, wider, typed)
    ]
    assert found[0] == "rows: 3 against 6"
    assert found[1].startswith("columns: ['image_id', 'p:ants', 'seconds'] against [")
    assert found[2].startswith("types: ")


def text(content: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content, encoding="utf-8")


def test_json_differs_at_a_place(difference: Any) -> None:
    one, other = {"a": [1, {"b": 2.0}], "seconds": 1}, {"a": [1, {"b": 2.5}], "seconds": 2}
    assert difference("x.json", text(json.dumps(one)), text(json.dumps(other))) == "a.1.b: 2.0 against 2.5"
    other["a"] = one["a"]
    assert difference("x.json", text(json.dumps(one)), text(json.dumps(other)), "seconds") is None


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (float("nan"), float("nan"), None),
        (1, 1.0, "value: 1 against 1.0"),
        ({"a": 1}, {"b": 1}, "value: keys ['a'] against ['b']"),
        ({"a": [1, 2]}, {"a": [1]}, "a: 2 against 1 values"),
        ([True], [1], "0: True against 1"),
    ],
)
def test_values_are_equal_where_kind_and_value_are(left: Any, right: Any, expected: str | None) -> None:
    assert value_difference(left, right) == expected


def test_a_journal_is_compared_record_by_record(difference: Any) -> None:
    start, epoch, sample = {"record": "start", "time": 1}, {"record": "epoch", "loss": 0.5}, {"record": "system"}
    lines = ["\n".join(map(json.dumps, records)) for records in ([start, sample, epoch], [start, epoch])]
    assert difference("j.jsonl", text(lines[0]), text(lines[1]), "system") is None
    changed = "\n".join(map(json.dumps, [start | {"time": 2}, epoch | {"loss": 0.25}]))
    assert difference("j.jsonl", text(lines[1]), text(changed), "time") == "record 1 (epoch), loss: 0.5 against 0.25"
    assert difference("j.jsonl", text(lines[1]), text(json.dumps(start)), "time") == "records: 2 against 1"


def test_an_array_differs_at_a_place_and_not_where_both_are_no_number(difference: Any) -> None:
    one = np.array([[1, np.nan], [3, 4]], np.float32)
    other = one.copy()
    other[1, 1] = 5
    found = difference("x.npy", lambda path: np.save(path, one), lambda path: np.save(path, other))
    assert found == "row 1, column (1,): 4.0 against 5.0"
    doubles = one.astype(float)
    found = difference("x.npy", lambda path: np.save(path, one), lambda path: np.save(path, doubles))
    assert found == "arrays: float32 (2, 2) against float64 (2, 2)"


def weights(path: Path, last: float) -> Path:
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.array([1, last], np.float32)
    return path


def test_a_model_differs_by_entry_and_weight(difference: Any, tmp_path: Path) -> None:
    def model(last: float) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            with zipfile.ZipFile(path, "w") as target:
                target.writestr(zipfile.ZipInfo("config.json"), "{}")
                target.writestr(
                    zipfile.ZipInfo("model.weights.h5"), weights(tmp_path / "model.weights.h5", last).read_bytes()
                )

        return write

    found = difference("model.keras", model(2), model(3))
    assert found == "entry model.weights.h5, weight layers/dense/vars/0, row 1: 2.0 against 3.0"
    assert difference("model.keras", model(2), model(2)) is None


def test_a_text_differs_at_a_character_and_other_files_at_a_byte(difference: Any) -> None:
    found = difference("x.svg", text("<svg>\n<a x='1'/>"), text("<svg>\n<a x='2'/>"))
    assert found == 'line 2, character 7: "1\'/>" against "2\'/>"'
    found = difference("x.png", lambda path: path.write_bytes(b"\x00\x01"), lambda path: path.write_bytes(b"\x00\x02"))
    assert found == "byte 1: 1 against 2"
    assert difference("x.png", text("ab"), text("abc")) == "bytes: 2 against 3"


def test_the_same_values_in_other_bytes_are_a_difference(difference: Any) -> None:
    assert difference("x.json", text('{"a": 1}'), text('{"a":1}')) == "the same values in other bytes"
