from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft import shard_files
from graft.shard_files import (
    Header,
    index_digest,
    open_array,
    read_header,
    row_checksums,
    rows_digest,
    write_array,
    write_header,
)
from graft.storage import ArtifactError, read_json

HEADER = Header(rows=3, row_shape=[2, 2], dtype="float32", shard_rows=2, checksums=7, index=None)


def test_a_checksum_is_that_of_the_rows_bytes_after_its_number() -> None:
    rows = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    expected = [zlib.crc32(rows[row].tobytes(), number) for row, number in enumerate((5, 6, 7))]
    assert row_checksums(rows, range(5, 8)).tolist() == expected
    assert row_checksums(rows[:, ::-1], range(5, 8)).tolist() != expected  # not contiguous
    equal = row_checksums(np.zeros((2, 4), np.uint8), [0, 1])
    assert equal[0] != equal[1]


def test_a_digest_by_hand_and_whatever_is_hashed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "view": [0, 1], "label": ["x", "y"]})
    by_hand = hashlib.sha256(b'["image_id", "view"][["a", 0], ["b", 1]]').hexdigest()
    assert index_digest(frame) == rows_digest(frame, ("image_id", "view")) == by_hand
    assert index_digest(frame[["image_id", "label"]]) != by_hand
    assert rows_digest(frame, ("image_id", "view"), "further") != by_hand
    monkeypatch.setattr(shard_files, "DIGEST_ROWS", 1)
    assert (
        index_digest(frame.set_index("label"))
        == hashlib.sha256(b'["image_id", "view"][["a", 0]][["b", 1]]').hexdigest()
    )  # fixed by DIGEST_ROWS, which therefore never changes without the schema


def test_a_header_comes_back_with_its_schema(tmp_path: Path) -> None:
    write_header(tmp_path / "a.json", HEADER)
    assert read_header(tmp_path / "a.json") == HEADER
    assert read_json(tmp_path / "a.json")["schema"] == shard_files.SCHEMA


def test_an_array_is_numpys_own_file(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.int16).reshape(3, 2)
    write_array(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    np.testing.assert_array_equal(open_array(tmp_path / "a.npy", (3, 2), np.dtype(np.int16)), values)
    with pytest.raises(ArtifactError, match=r"a.npy must hold int32 \(3, 2\), received int16 \(3, 2\)"):
        open_array(tmp_path / "a.npy", (3, 2), np.dtype(np.int32))
