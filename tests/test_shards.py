import numpy as np
import pytest

from graft import shards
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError, read_json, write_json

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
    assert sorted(path.name for path in folder.glob("*.npy")) == [f"top-0000{index}.npy" for index in range(3)]
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
    with pytest.raises(ArtifactError, match=r"must hold float32 \(4, 2, 3\), received float32 \(3, 2, 3\)"):
        Shards(folder, "top")


def test_a_pickled_piece_is_never_loaded(folder):
    np.save(folder / "top-00000.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ArtifactError, match=r"top-00000.npy is damaged"):
        Shards(folder, "top")
