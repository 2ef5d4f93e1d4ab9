"""The table source: a CSV or Parquet file whose rows name images, or hold their bytes."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from graft.records import SPLIT_NAMES, Record, RecordError, Reject, SourceError, check_suffix, printable, real_path
from graft.sections import Table

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SPLIT_WORDS = SPLIT_NAMES | {"training": "train", "dev": "validation"}
BATCH = 32  # rows held in memory at a time
TEXT = (pt.is_string, pt.is_large_string, pt.is_string_view)
BYTES = (pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary)
SCALAR = (*TEXT, pt.is_integer, pt.is_boolean, pt.is_floating, pt.is_null)


def table(path: Path, columns: Table, rejects: list[Reject], *, contents: bool = True) -> Iterator[Record]:
    """The images of a table's rows, in their order; blanks around labels, splits and groups do not count.

    Paths are relative to the folder of data.path. Parquet may hold the bytes of image files instead, also as the
    structs of Hugging Face's data sets, whose class names are used.

    Args:
        path: the folder that holds the table and its images, or the table itself where it holds the images' bytes.
        columns: which file and which of its columns.
        rejects: receives the rows that name no image or no class.
        contents: False leaves a column of bytes unread; its records are then empty.

    Raises:
        SourceError: the table cannot be read, or lacks a column.
    """
    file, root = _locate(path, columns)
    delimiter = DELIMITERS.get(file.suffix.lower())
    rows = _csv_rows(file, columns, delimiter) if delimiter else _parquet_rows(file, columns, contents)
    for number, row in enumerate(rows):
        place = f"{file.name}:{number:06d}"
        image = _image(row.get(columns.image, b""))
        if isinstance(image, str):
            if root is None:
                raise SourceError(
                    f"{file} holds paths of images: set data.path to {file.parent} and data.table.file to {file.name}, "
                    "so that DVC watches the images too"
                )
            place = printable(image)
        label = _word(row[columns.label])
        try:
            yield _record(row, columns, image, root or file.parent, place)
        except RecordError as error:
            rejects.append(Reject(place, label or "", error.reason, error.detail))


def tally_table(path: Path, columns: Table, rejects: list[Reject] | None = None) -> Counter[tuple[str | None, str]]:
    """The number of rows with an image by split and class; the bytes of images are not looked at.

    Args:
        path: as of table.
        columns: as of table.
        rejects: receives the rows that give no record.

    Raises:
        SourceError: as of table.
    """
    rejects = [] if rejects is None else rejects
    return Counter((record.split, record.label) for record in table(path, columns, rejects, contents=False))


def _locate(path: Path, columns: Table) -> tuple[Path, Path | None]:
    """The table's file, and the folder below which its paths lead where there is one."""
    file, root = path, None
    if columns.file is not None:
        name = PurePosixPath(columns.file)
        if name.is_absolute() or ".." in name.parts:
            raise SourceError(f"data.table.file must be a path below data.path ({path}), received {columns.file}")
        if not path.is_dir():
            raise SourceError(f"{path} must be the folder that holds {columns.file} and its images (data.path)")
        file, root = path / name, path
    elif path.is_dir():
        raise SourceError(f"{path} is a folder; data.table.file must name the table in it")
    if file.suffix.lower() not in (*DELIMITERS, ".parquet"):
        raise SourceError(f"{file} must be a table in a .csv, .tsv or .parquet file")
    if not file.is_file():
        raise SourceError(f"{file} {'is no regular file' if file.exists() else 'does not exist'}")
    return file, root


def _wanted(file: Path, present: Sequence[str], columns: Table) -> list[str]:
    """The names of the columns that are read, each once.

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


def _csv_rows(file: Path, columns: Table, delimiter: str) -> Iterator[dict[str, Any]]:
    """The rows as text, exactly as it stands: "007" and "NA" stay what they are, and ragged rows are refused."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
            header = next((cells for cells in lines if cells), None)
            if header is None:
                raise SourceError(f"{file} is empty; its first line must name the columns")
            _wanted(file, header, columns)
            for cells in lines:
                if cells and len(cells) != len(header):
                    raise SourceError(
                        f"{file} line {lines.line_num} has {len(cells)} field(s), its header has {len(header)}"
                    )
                if cells:
                    yield dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise SourceError(f"{file} line {lines.line_num} is not CSV: {error}") from None
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from None


def _parquet_rows(file: Path, columns: Table, contents: bool) -> Iterator[dict[str, Any]]:
    """The rows of the wanted columns, few at a time."""
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as source:  # else whole row groups are read
            schema = source.schema_arrow
            wanted = _wanted(file, schema.names, columns)
            _check_types(file, schema, columns)
            if not contents and not _is(schema.field(columns.image).type, TEXT):
                wanted.remove(columns.image)
            names = _class_names(schema, columns.label)
            for batch in source.iter_batches(batch_size=BATCH, columns=wanted):
                for row in batch.to_pylist():
                    if names is not None:  # Hugging Face writes -1 where there is no label
                        number = row[columns.label]
                        known = number is not None and 0 <= number < len(names)
                        row[columns.label] = names[number] if known else None
                    yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} is not a readable Parquet file: {error}") from None


def _check_types(file: Path, schema: pa.Schema, columns: Table) -> None:
    image = schema.field(columns.image).type
    if pt.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not _is(image, (*TEXT, *BYTES)):
        raise SourceError(
            f"{file} column {columns.image!r} must hold paths of images or the bytes of image files, "
            f"received {image} (data.table.image)"
        )
    for key in ("label", "split", "group"):
        name = getattr(columns, key)
        if name is not None and not _is(kind := schema.field(name).type, SCALAR):
            raise SourceError(
                f"{file} column {name!r} must hold text, integers or booleans, received {kind} (data.table.{key})"
            )


def _is(kind: pa.DataType, checks: Sequence[Any]) -> bool:
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return any(check(kind) for check in checks)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The class names that Hugging Face's data sets write beside numbered labels."""
    if not pt.is_integer(schema.field(label).type):
        return None
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _image(value: Any) -> str | bytes | None:
    """An image's path or bytes, whether on its own or in Hugging Face's {bytes, path}; None where there is neither."""
    if isinstance(value, dict):
        value = value.get("path") if value["bytes"] is None else value["bytes"]
    return None if isinstance(value, str) and not value.strip() else value


def _word(value: Any) -> str | None:
    """A cell as text: 3.0 is 3, for whole numbers become fractions where others are missing; None where it is blank."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None else printable(str(value).strip()) or None


def _record(row: dict[str, Any], columns: Table, image: str | bytes | None, root: Path, place: str) -> Record:
    """A row's image.

    Raises:
        RecordError: the row names no image or no class.
    """
    label = _word(row[columns.label])
    if label is None:
        raise RecordError("no-label", f"column {columns.label!r} says nothing")
    word = None if columns.split is None else _word(row[columns.split])
    if word is not None and word.lower() not in SPLIT_WORDS:
        raise RecordError("unknown-split", f"must be one of {' '.join(SPLIT_WORDS)}, received {word!r}")
    split = None if word is None else SPLIT_WORDS[word.lower()]
    group = None if columns.group is None else _word(row[columns.group])
    if image is None:
        raise RecordError("no-image", f"column {columns.image!r} says nothing")
    return Record(_file(image, root) if isinstance(image, str) else image, label, split, group, place)


def _file(name: str, root: Path) -> Path:
    """The image file that a row names.

    Raises:
        RecordError: the name leads out of the folder, or to no image file.
    """
    if os.path.isabs(name) or ".." in PurePosixPath(name).parts:
        raise RecordError("outside-root", "must be a path below the folder, without ..")
    check_suffix(name)
    if not os.path.lexists(root / name):
        raise RecordError("missing-file", f"{root} has no such file")
    real = real_path(str(root / name), os.path.realpath(root))
    if not os.path.isfile(real):
        raise RecordError("unreadable-file", "not a regular file")
    return root / name
