"""The table source: a CSV or Parquet file whose rows name images, or hold their bytes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from graft.records import SPLIT_NAMES, Record, RecordError, Reject, SourceError, check_suffix, printable, real_path
from graft.sections import Table
from graft.table_files import DELIMITERS, Further, read_rows

SPLIT_WORDS = SPLIT_NAMES | {"training": "train", "dev": "validation"}


def table(path: Path, columns: Table, rejects: list[Reject], *, contents: bool = True) -> Iterator[Record]:
    """The images of a table's rows, in their order; blanks around labels, splits and groups do not count.

    Paths are relative to the folder of data.path. Parquet may hold the bytes of image files instead, also as the
    structs of Hugging Face's data sets, whose class names are used. What the table's further columns say of an image
    goes with it (see table_files.read_rows for which of them).

    Args:
        path: the folder that holds the table and its images, or the table itself where it holds the images' bytes.
        columns: which file and which of its columns.
        rejects: receives the rows that name no image or no class.
        contents: False leaves a column of bytes unread, whose records are then empty, and the further columns.

    Raises:
        SourceError: the table cannot be read, or lacks a column.
    """
    file, root = _locate(path, columns)
    for number, (row, further) in enumerate(read_rows(file, columns, contents=contents)):
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
            yield _record(row, columns, image, root or file.parent, place, further if contents else None)
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


def _record(
    row: dict[str, Any], columns: Table, image: str | bytes | None, root: Path, place: str, further: Further | None
) -> Record:
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
    return Record(_file(image, root) if isinstance(image, str) else image, label, split, group, place, further)


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
