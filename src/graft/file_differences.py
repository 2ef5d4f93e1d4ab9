"""The first difference between two files of the same name: where it stands, and both values."""

from __future__ import annotations

import filecmp
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

Compare = Callable[[BinaryIO, BinaryIO, Sequence[str]], "str | None"]
MOST_SHOWN = 80  # characters of a value that is a text


def file_difference(left: Path, right: Path, excluded: Sequence[str] = ()) -> str | None:
    """The first difference of two files, such as `row 3, column p:ants: 0.25 against 0.5`; None where they are equal.

    Tables are compared by row (from 0) and column, JSON by keys, arrays and weights by position, archives entry by
    entry, texts by line (from 1), all else by bytes. Numbers are equal where they are the same; NaN equals NaN.

    Args:
        left: one file.
        right: the other, of the same suffix.
        excluded: patterns of columns, of keys at any depth and of kinds of records that are left out.
    """
    if filecmp.cmp(left, right, shallow=False):
        return None
    with left.open("rb") as one, right.open("rb") as other:
        return _difference(left.name, one, other, excluded)


def value_difference(left: Any, right: Any, excluded: Sequence[str] = ()) -> str | None:
    """As file_difference, of two values that JSON can hold."""
    found = _values(left, right, excluded, ())
    return None if found is None else f"{'.'.join(map(str, found[0])) or 'value'}: {found[1]}"


def is_excluded(name: str, excluded: Sequence[str]) -> bool:
    """Whether a column or key is left out."""
    return any(fnmatchcase(name, pattern) for pattern in excluded)


def _difference(name: str, left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    compare = COMPARE.get(PurePath(name).suffix, _bytes)
    found = compare(left, right, excluded)
    return found or (None if excluded else "the same values in other bytes")


def _parquet(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    return _tables(pd.read_parquet(left), pd.read_parquet(right), excluded)


def _csv(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    one, other = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (left, right))
    return _tables(one, other, excluded)


def _tables(left: pd.DataFrame, right: pd.DataFrame, excluded: Sequence[str]) -> str | None:
    left, right = (
        table[[name for name in table.columns if not is_excluded(name, excluded)]] for table in (left, right)
    )
    if list(left.columns) != list(right.columns):
        return f"columns: {_against(list(left.columns), list(right.columns))}"
    if len(left) != len(right):
        return f"rows: {_against(len(left), len(right))}"
    if list(left.dtypes) != list(right.dtypes):
        return f"types: {_against([str(one) for one in left.dtypes], [str(one) for one in right.dtypes])}"
    unequal = np.array([_unequal(left[name], right[name]) for name in left.columns], bool).reshape(-1, len(left)).T
    if not unequal.any():
        return None
    row, column = (int(place[0]) for place in np.nonzero(unequal))
    name = left.columns[column]
    where = f"row {row}, column {name}: {_against(left[name].iloc[row], right[name].iloc[row])}"
    return where + _more(int(unequal.sum()))


def _unequal(left: pd.Series, right: pd.Series) -> np.ndarray:
    if left.dtype == object:  # such as lists, which have no common missing value
        return np.array([_values(one, other, (), ()) is not None for one, other in zip(left, right, strict=True)], bool)
    return ~((left == right) | (left.isna() & right.isna())).to_numpy(bool)


def _json(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    return value_difference(json.load(left), json.load(right), excluded)


def _records(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    """Of JSON lines; a record whose kind is excluded is not there."""
    kept = []
    for file in (left, right):
        records = map(json.loads, file)
        kept.append([record for record in records if not is_excluded(str(record.get("record")), excluded)])
    for number, pair in enumerate(zip(*kept, strict=False)):
        if found := value_difference(pair[0], pair[1], excluded):
            return f"record {number} ({pair[0].get('record')}), {found}"
    return f"records: {_against(*map(len, kept))}" if len(kept[0]) != len(kept[1]) else None


def _values(
    left: Any, right: Any, excluded: Sequence[str], place: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], str] | None:
    """Where two nested values differ first, and how."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        left, right = left.tolist(), right.tolist()
    pairs: Iterator[tuple[str | int, Any, Any]]
    if isinstance(left, dict) and isinstance(right, dict):
        one, other = ([name for name in value if not is_excluded(name, excluded)] for value in (left, right))
        if one != other:
            return place, f"keys {_against(one, other)}"
        pairs = ((name, left[name], right[name]) for name in one)
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return place, f"{len(left)} against {len(right)} values"
        pairs = ((number, *pair) for number, pair in enumerate(zip(left, right, strict=True)))
    else:
        same = type(left) is type(right) and (left == right or _both_nan(left, right))
        return None if same else (place, _against(left, right))
    return next(
        (found for name, *pair in pairs if (found := _values(pair[0], pair[1], excluded, (*place, name)))), None
    )


def _both_nan(left: Any, right: Any) -> bool:
    return isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)


def _npy(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    return _arrays(np.load(left, allow_pickle=False), np.load(right, allow_pickle=False))


def _arrays(left: np.ndarray, right: np.ndarray) -> str | None:
    kinds = [f"{array.dtype} {array.shape}" for array in (left, right)]
    if kinds[0] != kinds[1]:
        return f"arrays: {kinds[0]} against {kinds[1]}"
    unequal = left != right
    if left.dtype.kind in "fc":
        unequal &= ~(np.isnan(left) & np.isnan(right))
    if not unequal.any():
        return None
    row, *column = (int(place[0]) for place in np.nonzero(np.atleast_1d(unequal)))
    values = np.atleast_1d(left)[(row, *column)], np.atleast_1d(right)[(row, *column)]
    where = f"row {row}, column {tuple(column)}" if column else f"row {row}"
    return f"{where}: {_against(*(value.item() for value in values))}" + _more(int(unequal.sum()))


def _weights(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    import h5py

    with h5py.File(left, "r") as one, h5py.File(right, "r") as other:
        names = [_datasets(file) for file in (one, other)]
        if names[0] != names[1]:
            return f"weights: {_against(*names)}"
        found = ((name, _arrays(np.asarray(one[name][()]), np.asarray(other[name][()]))) for name in names[0])
        return next((f"weight {name}, {text}" for name, text in found if text), None)


def _datasets(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "dtype") else None)
    return sorted(names)


def _zip(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    with zipfile.ZipFile(left) as one, zipfile.ZipFile(right) as other:
        if one.namelist() != other.namelist():
            return f"entries: {_against(one.namelist(), other.namelist())}"
        for name in one.namelist():
            entry, entry_there = one.read(name), other.read(name)
            if entry != entry_there:
                return f"entry {name}, {_difference(name, io.BytesIO(entry), io.BytesIO(entry_there), excluded)}"
    return None


def _text(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    lines = [file.read().decode(errors="replace").splitlines() for file in (left, right)]
    for number, pair in enumerate(zip(*lines, strict=False), start=1):
        if pair[0] != pair[1]:
            start = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
            return f"line {number}, character {start + 1}: {_against(*(line[start:] for line in pair))}"
    return f"lines: {_against(*map(len, lines))}" if len(lines[0]) != len(lines[1]) else None


def _bytes(left: BinaryIO, right: BinaryIO, excluded: Sequence[str]) -> str | None:
    contents = left.read(), right.read()
    if len(contents[0]) != len(contents[1]):
        return f"bytes: {_against(*map(len, contents))}"
    one, other = (np.frombuffer(content, np.uint8) for content in contents)
    place = int(np.flatnonzero(one != other)[0])
    return f"byte {place}: {_against(contents[0][place], contents[1][place])}"


def _against(left: Any, right: Any) -> str:
    return f"{_shown(left)} against {_shown(right)}"


def _shown(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _more(count: int) -> str:
    return "" if count == 1 else f" (the first of {count:,} values that differ)"


COMPARE: dict[str, Compare] = {
    **{".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _records, ".npy": _npy, ".h5": _weights},
    **dict.fromkeys((".keras", ".skops"), _zip),
    **dict.fromkeys((".svg", ".html", ".md", ".txt"), _text),
}
