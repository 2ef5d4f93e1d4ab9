"""Files that are whole or absent: atomic folders, files, JSON and tables."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from graft.errors import GraftError

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry


class ArtifactError(GraftError):
    """A file between stages is missing, damaged or of another run."""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; only when the block ends without an error does it replace what has the final name."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write that takes its final name only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")  # keeps the suffix, by which writers choose a format
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people and `git diff` can read."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a Parquet file (or CSV, by suffix) without an index."""
    with new_file(path) as partial:
        frame.to_csv(partial, index=False) if path.suffix == ".csv" else frame.to_parquet(partial, index=False)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a Parquet file that must have these columns.

    Raises:
        ArtifactError: the file is missing, unreadable or lacks a column.
    """
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise ArtifactError(f"{path} must have the columns {list(columns)}, received {list(frame.columns)}")
    return frame


def write_zip(path: Path, entries: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on names and contents alone: sorted, uncompressed, without times."""
    with new_file(path) as partial, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(entries):
            target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), entries[name])
