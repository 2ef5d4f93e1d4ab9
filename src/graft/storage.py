"""Files that are whole or absent, also after a power cut: atomic, durable folders, files, JSON and tables."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from graft.errors import GraftError
from graft.faults import reached

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry
TABLE_SCHEMA = 1  # of the Parquet files; raised where an older reader or file would mislead
FACTS = b"graft"  # key of the Parquet metadata under which they are
SYNCS = 8  # at a time: the disk takes them together
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE_TEXT = re.compile(r"No space left on device|Disk quota exceeded|^\d+ requested and \d+ written$")


class ArtifactError(GraftError):
    """A file between stages is missing, damaged or of another run."""


class DiskFullError(GraftError):
    """There is no room for what was to be written."""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; only when the block ends without an error does it replace what has the final name.

    What it holds is on the disk before that. A folder that it replaces is renamed to `.<name>.old` first; where a crash
    leaves that one alone, the next call gives it its name back.

    Raises:
        DiskFullError: there is no room; nothing is left of the new folder.
    """
    partial, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    _settle(path, old)
    _remove(partial)
    try:
        partial.mkdir(parents=True)
        yield partial
        _sync_all(partial)
        reached(f"write {path.name}")
        if path.is_dir():
            path.rename(old)
            reached(f"aside {path.name}")
        partial.rename(path)
        sync(path.parent)
        reached(f"rename {path.name}")
    except BaseException as error:
        refusal = _disk_full(path, error)
        _remove(partial)
        _settle(path, old)
        if refusal:
            raise refusal from error
        raise
    _remove(old)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write that takes its final name, and is on the disk, only when the block ends without an error.

    Raises:
        DiskFullError: there is no room; nothing is left of the new file.
    """
    partial = path.with_name(f".partial-{path.name}")  # keeps the suffix, by which writers choose a format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        yield partial
        sync(partial)
        reached(f"write {path.name}")
        os.replace(partial, path)
        sync(path.parent)
        reached(f"rename {path.name}")
    except BaseException as error:
        refusal = _disk_full(path, error)
        partial.unlink(missing_ok=True)
        if refusal:
            raise refusal from error
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this for folders
            raise
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    places = list(os.walk(folder, topdown=False))
    files = [file for place, _, names in places for name in names if not (file := Path(place, name)).is_symlink()]
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(sync, files))
    for place, _, _ in places:
        sync(Path(place))


def _settle(path: Path, old: Path) -> None:
    """Give a replaced folder its name back where no other has it, else remove it."""
    if old.is_dir() and not os.path.lexists(path):
        old.rename(path)
    else:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _disk_full(path: Path, error: BaseException) -> DiskFullError | None:
    """What to say where that is the error; libraries lose the error's number, but not its text."""
    if not isinstance(error, OSError) or (error.errno not in NO_SPACE and not NO_SPACE_TEXT.search(str(error))):
        return None
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    return DiskFullError(
        f"{path} could not be written, the disk is full: {free:,} bytes are free at {there} ({error}). "
        "Make room, then run the same command again"
    )


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
    except OSError as error:
        raise ArtifactError(f"{path} must be a readable file: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None


def write_table(path: Path, frame: pd.DataFrame, facts: Mapping[str, str] | None = None) -> None:
    """Write a Parquet file (or CSV, by suffix) without an index.

    Parquet carries its schema version, its number of rows and checksums of its pages; equal tables are equal bytes.

    Args:
        path: to write.
        frame: the rows.
        facts: what else read_described is to return with them; Parquet only.
    """
    with new_file(path) as partial:
        if path.suffix == ".csv":
            frame.to_csv(partial, index=False)
            return
        table = pa.Table.from_pandas(frame, preserve_index=False)
        described = {"schema": TABLE_SCHEMA, "rows": len(frame), "types": _types(table.schema), **(facts or {})}
        metadata = {**(table.schema.metadata or {}), FACTS: json.dumps(described, sort_keys=True).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), partial, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a Parquet file that write_table wrote and that must have these columns.

    Raises:
        ArtifactError: the file is missing, damaged, of another schema, or lacks a column.
    """
    return read_described(path, columns)[0]


def read_described(
    path: Path, columns: Sequence[str], *, archived: bool = False
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """As read_table, with the facts that write_table was given; the schema and the number of rows are among them.

    Args:
        path: to read.
        columns: that it must have.
        archived: whether it may be of a version of Graft whose tables had no schema, because no `dvc repro` would
            make it anew: a registered model's, or an experiment's.
    """
    try:
        with path.open("rb") as stream:  # pandas would read a folder, too
            schema = pq.read_schema(stream)
            stream.seek(0)
            frame = pd.read_parquet(stream, page_checksum_verification=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}") from None
    unknown = FACTS not in (schema.metadata or {})
    facts = {} if archived and unknown else _read_facts(path, schema, len(frame))
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise ArtifactError(f"{path} must have the columns {list(columns)}, received {list(frame.columns)}")
    return frame, facts


def _types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _read_facts(path: Path, schema: pa.Schema, rows: int) -> Mapping[str, Any]:
    try:
        facts = json.loads((schema.metadata or {}).get(FACTS, b"{}"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged, its metadata is not JSON: {error}") from None
    check_schema(path, facts, TABLE_SCHEMA)
    for what, received in (("rows", rows), ("types", _types(schema))):
        if facts.get(what) != received:
            raise ArtifactError(f"{path} must have the {what} that it says, {facts.get(what)}, received {received}")
    return facts


def check_schema(path: Path, facts: Any, expected: int) -> None:
    """Refuse what a file says of itself where that is not of the expected schema.

    Raises:
        ArtifactError: it says another schema, or none.
    """
    received = facts.get("schema") if isinstance(facts, dict) else None
    if received != expected or isinstance(received, bool):
        said = "none, as from before there were any" if received is None else repr(received)
        raise ArtifactError(f"{path} must be of schema {expected}, received {said}; `dvc repro` makes it anew")


def write_zip(path: Path, entries: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on names and contents alone: sorted, uncompressed, without times."""
    with new_file(path) as partial, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(entries):
            target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), entries[name])
