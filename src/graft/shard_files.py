"""The files of a sharded array: its header, its pieces and the checksums of its rows."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from graft.storage import ArtifactError, check_schema, new_file, read_json, write_json

SCHEMA = 1  # of the header and what it stands for
DIGEST_ROWS = 2**14  # hashed at a time
RENEW = "delete it, and `dvc repro` makes it anew"  # DVC does not see what time and size of a file do not tell


class Header(BaseModel):
    """What `<name>.json` says.

    Attributes:
        rows: of all pieces.
        row_shape: of each row.
        dtype: of the values, as NumPy names it.
        shard_rows: rows of each piece but the last.
        checksums: CRC-32 of the rows' checksums.
        index: index_digest of the rows' index; None where they have none.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rows: NonNegativeInt
    row_shape: list[PositiveInt]
    dtype: str
    shard_rows: PositiveInt
    checksums: int
    index: str | None


def read_header(path: Path) -> Header:
    """Read and check a header.

    Raises:
        ArtifactError: it is missing, damaged, or of another schema.
    """
    content = read_json(path)
    check_schema(path, content, SCHEMA)
    del content["schema"]
    try:
        header = Header.model_validate(content)
        kind = np.dtype(header.dtype)
    except (ValidationError, TypeError) as error:
        raise ArtifactError(f"{path} is no header of shards: {error}; {RENEW}") from None
    if kind.hasobject:
        raise ArtifactError(f"{path} must have a dtype of numbers, received {header.dtype}; {RENEW}")
    return header


def write_header(path: Path, header: Header) -> None:
    """Write a header, which says that all else is there."""
    write_json(path, {"schema": SCHEMA, **header.model_dump()})


def index_digest(index: pd.DataFrame) -> str:
    """Hash of an index's image ids and, where it has them, views: which rows lie beside it, and in which order."""
    return rows_digest(index, [column for column in ("image_id", "view") if column in index.columns])


def rows_digest(frame: pd.DataFrame, columns: Sequence[str], *further: str) -> str:
    """SHA-256 in hex of some columns of text or whole numbers, row by row, after some further texts."""
    digest = hashlib.sha256(json.dumps([*columns, *further]).encode())
    for start in range(0, len(frame), DIGEST_ROWS):
        rows = frame[list(columns)].iloc[start : start + DIGEST_ROWS].to_numpy(object).tolist()
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()


def row_checksums(rows: np.ndarray, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """CRC-32 of each row, seeded with its number, of shape (n,) and dtype uint32."""
    flat: Any = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.fromiter(map(zlib.crc32, flat, map(int, numbers)), np.uint32, len(rows))


def write_array(path: Path, values: np.ndarray) -> None:
    """As np.save, but whole or absent, and where the disk is full the error says so."""
    with new_file(path) as partial, partial.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(values))
        stream.write(values.reshape(-1).view(np.uint8).data)


def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """An array file of exactly this shape and type, mapped but not read.

    Raises:
        ArtifactError: it is missing, truncated, or another.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (OSError, EOFError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}; {RENEW}") from None
    if array.shape != shape or array.dtype != dtype:
        raise ArtifactError(f"{path} must hold {dtype} {shape}, received {array.dtype} {array.shape}; {RENEW}")
    if not array.flags.c_contiguous:
        raise ArtifactError(f"{path} must hold {dtype} {shape} row by row, received it column by column; {RENEW}")
    if size != array.offset + array.nbytes:
        raise ArtifactError(f"{path} must have {array.offset + array.nbytes} bytes, received {size}; {RENEW}")
    return array
