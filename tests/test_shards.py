import errno
import os

import numpy as np
import pandas as pd
import pytest

from graft import shards
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError, DiskFullError, read_json, write_json

ROWS = np.arange(11 * 2 * 3, dtype=np.float32).reshape(11, 2, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """ROWS in pieces of four rows: 4, 4 and 3."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * ROWS[0].nbytes)
    with ShardWriter(tmp_path, "top", (2, 3), np.float32) as writer:
        for batch in (ROWS[:1], ROWS[1:1], ROWS[1:10], ROWS[10:]):
            writer.append(batch)
    return tmp_path


def test_rows_come_back_whatever_the_batches_were(folder):
    stored = Shards(folder, "top")
    pieces = [f"top-0000{index}.npy" for index in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == [*pieces, "top.crc.npy", "top.json"]
    assert (len(stored), stored.shape, stored.dtype) == (11, (11, 2, 3), np.float32)
    np.testing.assert_array_equal(stored[:], ROWS)


@pytest.mark.parametrize(
    "rows",
    [slice(3, 9), slice(None, None, -1), slice(20, 30), np.array([10, 0, 4, 4, 3]), np.array([], int)],
    ids=["across pieces", "backwards", "beyond the end", "any order, twice", "none"],
)
def test_any_rows_come_in_the_asked_order(folder, rows):
    np.testing.assert_array_equal(Shards(folder, "top")[rows], ROWS[rows])


def test_a_reader_gets_copies(folder):
    stored = Shards(folder, "top")
    stored[:2][:] = -1
    np.testing.assert_array_equal(stored[:], ROWS)


def test_no_rows_are_an_array_too(tmp_path):
    with ShardWriter(tmp_path, "top", (2, 3), np.float32):
        pass
    assert Shards(tmp_path, "top")[:].shape == (0, 2, 3)


def test_values_are_cast_to_the_declared_type(tmp_path):
    with ShardWriter(tmp_path, "top", (2,), np.float32) as writer:
        writer.append(np.array([[0.1, 2.0]]))
    np.testing.assert_array_equal(Shards(tmp_path, "top")[:], np.array([[0.1, 2.0]], np.float32))


def test_rows_of_another_shape_are_refused(tmp_path):
    with (
        pytest.raises(ArtifactError, match=r"top rows must have shape \(2, 3\), received \(3, 2\)"),
        ShardWriter(tmp_path, "top", (2, 3), np.float32) as writer,
    ):
        writer.append(np.zeros((1, 3, 2)))


def write_half(folder):
    with ShardWriter(folder, "top", (1,), np.uint8) as writer:
        writer.append(np.zeros((1, 1), np.uint8))
        raise RuntimeError("killed")


def test_an_interrupted_writer_leaves_nothing_that_looks_whole(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        write_half(tmp_path)
    with pytest.raises(ArtifactError, match=r"top.json is missing"):
        Shards(tmp_path, "top")


def test_a_truncated_piece_is_refused(folder):
    path = folder / "top-00001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"top-00001.npy is damaged"):
        Shards(folder, "top")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all"])
def test_a_piece_without_a_header_is_refused(folder, content):
    (folder / "top-00001.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"top-00001.npy is damaged"):
        Shards(folder, "top")


def test_a_missing_piece_is_refused(folder):
    (folder / "top-00002.npy").unlink()
    with pytest.raises(ArtifactError, match=r"top-00002.npy is missing"):
        Shards(folder, "top")


@pytest.mark.parametrize("other", [np.zeros((3, 2, 3), np.float32), np.zeros((4, 2, 3), np.float64)])
def test_a_piece_of_another_run_is_refused(folder, other):
    np.save(folder / "top-00000.npy", other)
    with pytest.raises(ArtifactError, match=r"top-00000.npy must hold float32 \(4, 2, 3\), received"):
        Shards(folder, "top")


def test_a_header_that_promises_more_rows_is_refused(folder):
    header = read_json(folder / "top.json")
    write_json(folder / "top.json", header | {"rows": 12})
    with pytest.raises(ArtifactError, match=r"top.crc.npy must hold uint32 \(12,\), received uint32 \(11,\)"):
        Shards(folder, "top")


def test_a_pickled_piece_is_never_loaded(folder):
    np.save(folder / "top-00000.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"top-00000.npy is damaged"):
        Shards(folder, "top")


def replaced(path, *, first, second):
    """Exchange two rows of a piece."""
    rows = np.load(path)
    rows[[first, second]] = rows[[second, first]]
    np.save(path, rows)


def test_rows_that_changed_places_are_found_on_the_first_read_of_one(folder):
    replaced(folder / "top-00001.npy", first=1, second=2)
    stored = Shards(folder, "top")
    np.testing.assert_array_equal(stored[:5], ROWS[:5])
    with pytest.raises(ArtifactError, match=r"top-00001.npy is damaged: row 6 \(row 2 of this file\) must have CRC-32"):
        stored[6:7]
    with pytest.raises(ArtifactError, match=r"row 5 \(row 1 of this file\) .* received [0-9a-f]{8}; delete it, and"):
        stored[np.array([10, 5, 6])]


def test_pieces_that_changed_places_are_found(folder):
    one, other = folder / "top-00000.npy", folder / "top-00001.npy"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"top-00000.npy is damaged: row 3"):
        Shards(folder, "top")[3:5]


def test_a_flipped_bit_is_found_wherever_it_is(folder):
    """One bit of each byte of the rows."""
    path = folder / "top-00002.npy"
    whole = path.read_bytes()
    for place in range(len(whole) - 3 * ROWS[0].nbytes, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"top-00002.npy is damaged: row \d+ "):
            Shards(folder, "top")[:]


def test_a_row_is_verified_once_by_each_reader(folder):
    stored = Shards(folder, "top")
    stored[:]
    replaced(folder / "top-00000.npy", first=0, second=1)
    np.testing.assert_array_equal(stored[:2], ROWS[[1, 0]])
    with pytest.raises(ArtifactError, match="row 0"):
        Shards(folder, "top")[:2]


def test_a_piece_that_grew_is_refused(folder):
    with (folder / "top-00001.npy").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ArtifactError, match=r"top-00001.npy must have 224 bytes, received 228"):
        Shards(folder, "top")


def test_columns_first_are_other_rows(folder):
    np.save(folder / "top-00000.npy", np.asfortranarray(ROWS[:4]))
    with pytest.raises(ArtifactError, match=r"top-00000.npy must hold float32 \(4, 2, 3\) row by row"):
        Shards(folder, "top")


def test_checksums_of_another_run_are_refused(folder, tmp_path):
    with ShardWriter(tmp_path / "other", "top", (2, 3), np.float32) as writer:
        writer.append(ROWS[::-1])
    (tmp_path / "other" / "top.crc.npy").rename(folder / "top.crc.npy")
    with pytest.raises(ArtifactError, match=r"top.crc.npy does not belong to \S+top.json, or is damaged"):
        Shards(folder, "top")


def test_a_writer_knows_how_many_rows_its_index_has(tmp_path):
    index = pd.DataFrame({"image_id": ["a", "b"]})
    with (
        pytest.raises(ArtifactError, match="top must have 2 rows, as its index, received 1"),
        ShardWriter(tmp_path, "top", (1,), np.uint8, index) as writer,
    ):
        writer.append(np.zeros((1, 1), np.uint8))
    with pytest.raises(ArtifactError, match=r"top.json is missing"):
        Shards(tmp_path, "top")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def interrupted(folder, count):
    """A writer that goes on, and ends early after so many rows."""
    with ShardWriter(folder, "top", (2, 3), np.float32, resume=True) as writer:
        begun = writer.rows
        for number in range(begun, count):
            writer.append(ROWS[number : number + 1])
        raise KeyboardInterrupt
    return begun


def resumed(folder):
    """Write the rest; returns how many rows were there."""
    with ShardWriter(folder, "top", (2, 3), np.float32, resume=True) as writer:
        begun = writer.rows
        writer.append(ROWS[begun:])
    return begun


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (11, 8)])
def test_a_writer_goes_on_after_the_whole_pieces_of_an_interrupted_one(folder, tmp_path, count, kept):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "again", count)
    with pytest.raises(ArtifactError, match=r"top.json is missing"):
        Shards(tmp_path / "again", "top")
    assert resumed(tmp_path / "again") == kept
    assert content(tmp_path / "again") == content(folder)


@pytest.fixture
def half(tmp_path, monkeypatch):
    """Eight rows in two pieces, of a writer that was interrupted."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * ROWS[0].nbytes)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "half", 9)
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        pytest.param(lambda folder: (folder / "top-00000.npy").unlink(), 0, id="the first piece is gone"),
        pytest.param(lambda folder: (folder / "top-00001.crc.npy").unlink(), 4, id="its checksums are gone"),
        pytest.param(lambda folder: os.truncate(folder / "top-00001.npy", 150), 4, id="truncated"),
        pytest.param(lambda folder: replaced(folder / "top-00001.npy", first=0, second=1), 4, id="rows exchanged"),
        pytest.param(lambda folder: np.save(folder / "top-00001.npy", ROWS[:3]), 4, id="another number of rows"),
        pytest.param(lambda folder: (folder / ".partial-top-00002.npy").write_bytes(b"half"), 8, id="one was begun"),
    ],
)
def test_pieces_that_are_not_whole_are_written_again(half, tmp_path, damage, kept):
    damage(half)
    assert resumed(half) == kept
    np.testing.assert_array_equal(Shards(half, "top")[:], ROWS)


def test_without_being_asked_to_a_writer_begins_anew(half):
    with ShardWriter(half, "top", (2, 3), np.float32) as writer:
        assert writer.rows == 0
        writer.append(ROWS[:2])
    np.testing.assert_array_equal(Shards(half, "top")[:], ROWS[:2])


def test_a_full_disk_leaves_the_pieces_before_it(half, monkeypatch):
    def fails(point):
        if point == "write top-00002.npy":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("graft.storage.reached", fails)
    with pytest.raises(DiskFullError, match=r"top-00002.npy could not be written, the disk is full"):
        resumed(half)
    monkeypatch.undo()
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * ROWS[0].nbytes)
    assert resumed(half) == 8
