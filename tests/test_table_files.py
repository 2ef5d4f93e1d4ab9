from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.sections import Table
from graft.table_files import LONGEST, MOST_COLUMNS, read_rows
from graft.tables import table

COLUMNS = Table(file=None, image="path", label="label", split=None, group=None)


def further(path: Path, columns: Table = COLUMNS) -> list[dict[str, str | None]]:
    return [cells for _, cells in read_rows(path, columns, contents=True)]


def csv_file(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def parquet(folder: Path, data: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    rows = len(next(iter(data.values())))
    content = pa.table({"path": [f"{place}.png" for place in range(rows)], "label": ["a"] * rows} | data)
    pq.write_table(content.replace_schema_metadata(metadata) if metadata else content, folder / "t.parquet")
    return folder / "t.parquet"


def test_every_column_that_is_not_named_is_a_further_one(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "camera,path,year,label,who,part\nred,1.png,007,ants,anna,train\n , 2.png,NA, bees,,\n")
    assert further(path) == [
        {"camera": "red", "year": "007", "who": "anna", "part": "train"},
        {"camera": None, "year": "NA", "who": None, "part": None},
    ]
    named = COLUMNS.model_copy(update={"split": "part", "group": "who"})
    assert further(path, named) == [{"camera": "red", "year": "007"}, {"camera": None, "year": "NA"}]
    tabs = csv_file(tmp_path, "path\tlabel\tcamera\n1.png\tants\tred, old\n", "t.tsv")
    assert further(tabs) == [{"camera": "red, old"}]


def test_further_columns_without_a_name_of_their_own_are_left_out(tmp_path: Path) -> None:
    path = csv_file(tmp_path, ",path,label,x,x, ,last\n0,1.png,ants,1,2,3,4\n")
    assert further(path) == [{"last": "4"}]


def test_the_index_that_pandas_wrote_is_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["1.png", "2.png"], "label": "ants", "camera": "red"}, index=[5, 3])
    frame.to_parquet(tmp_path / "t.parquet")
    assert further(tmp_path / "t.parquet") == [{"camera": "red"}] * 2


def test_names_and_cells_are_printable_and_long_cells_are_cut(tmp_path: Path) -> None:
    path = csv_file(tmp_path, f'path,label,"a\rb"\n1.png,ants,"x\ny"\n2.png,ants,{"é" * 2 * LONGEST}\n')
    assert further(path) == [{r"a\rb": r"x\ny"}, {r"a\rb": "é" * LONGEST}]


def test_parquet_cells_become_text(tmp_path: Path) -> None:
    noon = datetime.datetime(2020, 1, 2, 12, 30, tzinfo=datetime.UTC)
    data: dict[str, Any] = {
        "text": ["red", None],
        "whole": [3, None],
        "fraction": [3.0, 0.5],
        "single": pa.array([0.1, None], pa.float32()),
        "flag": [True, False],
        "day": [datetime.date(2020, 1, 2), None],
        "stamp": pa.array([datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4)], pa.timestamp("ns")),
        "zoned": pa.array([noon, None], pa.timestamp("us", "Nowhere/Land")),
        "price": [decimal.Decimal("1.50"), None],
        "category": pa.array(["x", "y"]).dictionary_encode(),
        "nothing": pa.nulls(2),
    }
    assert further(parquet(tmp_path, data)) == [
        {
            **{"text": "red", "whole": "3", "fraction": "3", "single": "0.1", "flag": "true", "day": "2020-01-02"},
            **{"stamp": "2020-01-02", "zoned": "2020-01-02 12:30:00", "price": "1.50", "category": "x"},
            "nothing": None,
        },
        {
            **{"text": None, "whole": None, "fraction": "0.5", "single": None, "flag": "false", "day": None},
            **{"stamp": "2020-01-02 03:04:00", "zoned": None, "price": None, "category": "y", "nothing": None},
        },
    ]


def test_parquet_columns_of_bytes_lists_structs_and_long_text_are_left_out(tmp_path: Path) -> None:
    data = {
        "kept": ["1", "2"] * 50,
        "bytes": [b"x", b"y"] * 50,
        "list": [[1], [2, 3]] * 50,
        "struct": [{"a": 1}] * 100,
        "long": [f"{place}" * 3000 for place in range(100)],
    }
    assert further(parquet(tmp_path, data))[:2] == [{"kept": "1"}, {"kept": "2"}]


def test_parquet_text_that_is_none_does_not_stop_the_table(tmp_path: Path) -> None:
    wrong = pa.array([b"B\xe4r"]).view(pa.string())
    assert further(parquet(tmp_path, {"name": wrong, "a.b": ["dotted"]})) == [{"name": r"B\xe4r", "a.b": "dotted"}]


def test_hugging_faces_images_and_names_of_further_classes(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"one", "path": None}, {"bytes": b"two", "path": None}, {"bytes": b"3", "path": None}])
    features = {"label": {"names": ["ants", "bees"]}, "season": {"names": ["dry", "wet"]}}
    content = pa.table({"image": images, "label": [1, 0, 1], "season": [1, -1, 0], "number": [5, 6, 7]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(content.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    columns = COLUMNS.model_copy(update={"image": "image"})
    records = list(table(tmp_path / "t.parquet", columns, []))
    assert [(record.read(), record.label) for record in records] == [(b"one", "bees"), (b"two", "ants"), (b"3", "bees")]
    assert [record.attributes for record in records] == [
        {"season": "wet", "number": "5"},
        {"season": None, "number": "6"},
        {"season": "dry", "number": "7"},
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_of_very_many_columns_the_first_are_read(tmp_path: Path, kind: str) -> None:
    names = [f"c{number:03d}" for number in range(200)]
    if kind == "csv":
        path = csv_file(tmp_path, ",".join(["path", *names, "label"]) + "\n" + ",".join(["1.png", *"7" * 200, "ants"]))
    else:
        path = parquet(tmp_path, {name: [7] for name in names})
    assert further(path) == [dict.fromkeys(names[:MOST_COLUMNS], "7")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_without_contents_no_further_column_is_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "csv":
        path = csv_file(tmp_path, "path,label,camera\n1.png,ants,red\n")
    else:
        path = parquet(tmp_path, {"camera": ["red"]})
    asked, batches = [], pq.ParquetFile.iter_batches

    def record(self: pq.ParquetFile, **options: Any) -> Any:
        asked.extend(options["columns"])
        return batches(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", record)
    assert [cells for _, cells in read_rows(path, COLUMNS, contents=False)] == [{}]
    assert "camera" not in asked
