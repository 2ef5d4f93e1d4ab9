"""The rows of a CSV or Parquet file, few at a time: the columns that data.table names, and what else they say."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from graft.records import SourceError, printable
from graft.sections import Table

DELIMITERS = {".csv": ",", ".tsv": "\t"}
BATCH = 32  # rows held in memory at a time
MOST_COLUMNS = 50  # further columns that are read; a table of measurements may have thousands
LONGEST = 100  # characters of a further column's cells; the rest is cut off
PANDAS_INDEX = "__index_level_"  # how pandas names a column for the number that a row had
TEXT = (pt.is_string, pt.is_large_string, pt.is_string_view)
BYTES = (pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary)
SCALAR = (*TEXT, pt.is_integer, pt.is_boolean, pt.is_floating, pt.is_null)
NO_TIME = re.compile(r"( 00:00:00)?\.0+$")
FURTHER = (*SCALAR, pt.is_decimal, pt.is_date, pt.is_time, pt.is_timestamp)

Further = dict[str, str | None]
Row = tuple[dict[str, Any], Further]


def read_rows(file: Path, columns: Table, *, contents: bool) -> Iterator[Row]:
    """Each row's cells of the columns that data.table names, and what its further columns say, as text.

    Further columns are the first MOST_COLUMNS others with a name of their own: neither blank nor there twice nor that
    of pandas' index. Of Parquet they must hold text, numbers, booleans, dates or times; bytes, lists, structs and
    columns of long text (more than 4 LONGEST bytes a row) are left out.

    Args:
        file: ends in .csv, .tsv or .parquet.
        columns: data.table.
        contents: False leaves a column of bytes and the further columns unread.

    Raises:
        SourceError: the table cannot be read, or lacks a column.
    """
    delimiter = DELIMITERS.get(file.suffix.lower())
    return _csv_rows(file, columns, delimiter, contents) if delimiter else _parquet_rows(file, columns, contents)


def _wanted(file: Path, present: Sequence[str], columns: Table) -> list[str]:
    """The names of the columns that data.table names, each once.

    Raises:
        SourceError: one is missing or ambiguous.
    """
    wanted = {key: name for key in ("image", "label", "split", "group") if (name := getattr(columns, key)) is not None}
    for key, name in wanted.items():
        if name not in present:
            raise SourceError(
                f"{file} has no column {name!r}; it has: {', '.join(map(str, present))} (data.table.{key})"
            )
        if list(present).count(name) > 1:
            raise SourceError(f"{file} has more than one column {name!r} (data.table.{key})")
    return list(dict.fromkeys(wanted.values()))


def _further(names: Sequence[str], present: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of some names that may be further columns, by what is present and wanted; the first MOST_COLUMNS."""
    count = Counter(present)
    own = [name for name in names if name.strip() and count[name] == 1 and not name.startswith(PANDAS_INDEX)]
    return [name for name in own if name not in wanted][:MOST_COLUMNS]


def _text(cell: str) -> str | None:
    return printable(cell.strip()[:LONGEST]) or None


def _csv_rows(file: Path, columns: Table, delimiter: str, contents: bool) -> Iterator[Row]:
    """The rows as text, exactly as it stands: "007" and "NA" stay what they are, and ragged rows are refused."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
            header = next((cells for cells in lines if cells), None)
            if header is None:
                raise SourceError(f"{file} is empty; its first line must name the columns")
            wanted = _wanted(file, header, columns)
            further = [(name, printable(name)) for name in _further(header, header, wanted)] if contents else []
            for cells in lines:
                if cells and len(cells) != len(header):
                    raise SourceError(
                        f"{file} line {lines.line_num} has {len(cells)} field(s), its header has {len(header)}"
                    )
                if cells:
                    row = dict(zip(header, cells, strict=True))
                    yield row, {shown: _text(row[name]) for name, shown in further}
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise SourceError(f"{file} line {lines.line_num} is not CSV: {error}") from None
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None


def _parquet_rows(file: Path, columns: Table, contents: bool) -> Iterator[Row]:
    """The rows of the columns that are read, few at a time."""
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as source:  # else whole row groups are read
            schema = source.schema_arrow
            wanted = _wanted(file, schema.names, columns)
            _check_types(file, schema, columns)
            further = _further(_short_scalars(source), schema.names, wanted) if contents else []
            if not contents and not is_any(schema.field(columns.image).type, TEXT):
                wanted.remove(columns.image)
            names = {name: _class_names(schema, name) for name in (columns.label, *further)}
            for batch in source.iter_batches(batch_size=BATCH, columns=[*wanted, *further]):
                texts = {printable(name): _texts(batch.column(name), names[name]) for name in further}
                for number, row in enumerate(batch.select(wanted).to_pylist()):
                    row[columns.label] = _class_name(row[columns.label], names[columns.label])
                    yield row, {name: cells[number] for name, cells in texts.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} is not a readable Parquet file: {error}") from None


def _check_types(file: Path, schema: pa.Schema, columns: Table) -> None:
    image = schema.field(columns.image).type
    if pt.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not is_any(image, (*TEXT, *BYTES)):
        raise SourceError(
            f"{file} column {columns.image!r} must hold paths of images or the bytes of image files, "
            f"received {image} (data.table.image)"
        )
    for key in ("label", "split", "group"):
        name = getattr(columns, key)
        if name is not None and not is_any(kind := schema.field(name).type, SCALAR):
            raise SourceError(
                f"{file} column {name!r} must hold text, integers or booleans, received {kind} (data.table.{key})"
            )


def is_any(kind: pa.DataType, checks: Sequence[Any]) -> bool:
    """Whether a type, or that of a dictionary's values, passes one of some of pyarrow's checks."""
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return any(check(kind) for check in checks)


def _short_scalars(source: pq.ParquetFile) -> list[str]:
    """The columns of FURTHER types whose cells are short on average, as the file's footer has it."""
    size: Counter[str] = Counter()
    for group in map(source.metadata.row_group, range(source.metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            size[chunk.path_in_schema] += chunk.total_uncompressed_size
    most = 4 * LONGEST * source.metadata.num_rows
    return [
        field.name for field in source.schema_arrow if is_any(field.type, FURTHER) and size[field.name] <= most + 4096
    ]


def _texts(column: pa.Array, names: list[str] | None) -> list[str | None]:
    r"""A further column's cells: 3.0 is 3, midnight is a date, and a byte that is no UTF-8 becomes `\xe4`."""
    if names is not None:
        return [None if name is None else _text(name) for name in (_class_name(x, names) for x in column.to_pylist())]
    if timestamps := pt.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))  # to UTC, which needs no table of time zones
    cells = pc.binary_slice(column.cast(pa.string()).cast(pa.binary()), 0, 4 * LONGEST).to_pylist()
    texts = [None if cell is None else cell.decode("utf-8", "backslashreplace") for cell in cells]
    return [None if text is None else _text(NO_TIME.sub("", text) if timestamps else text) for text in texts]


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The class names that Hugging Face's data sets write beside a column of numbers."""
    if not pt.is_integer(schema.field(column).type):
        return None
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _class_name(cell: Any, names: list[str] | None) -> Any:
    """What a cell names; Hugging Face writes -1 where it names nothing."""
    if names is None:
        return cell
    return names[cell] if cell is not None and 0 <= cell < len(names) else None
