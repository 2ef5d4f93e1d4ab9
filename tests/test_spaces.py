import multiprocessing
import shutil

import numpy as np
import pytest

from graft import spaces
from graft.storage import ArtifactError
from graft.store import FeatureStore
from graft.store_segments import keys_path, segment_paths

SHAPE = (2, 3)
KEYS = np.random.default_rng(0).integers(0, 256, (9, 16), np.uint8)
ROWS = np.random.default_rng(1).normal(size=(9, *SHAPE)).astype(np.float32)


def open_space(root):
    return FeatureStore(root, 2**30).space({"point": "top"}, SHAPE, np.float32)


def fill(space, *parts):
    """One segment for each slice of KEYS and ROWS."""
    for part in parts or (slice(0, 4), slice(4, 9)):
        with space.writer() as writer:
            writer.append(KEYS[part], ROWS[part])
    return space


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("order", [range(9), [8, 0, 3, 3, 5, 4, 1]], ids=["as written", "any, twice"])
def test_rows_come_back_in_the_order_of_their_keys(tmp_path, order):
    rows = fill(open_space(tmp_path)).rows(KEYS[list(order)])
    assert (len(rows), rows.row_shape, rows.dtype) == (len(order), SHAPE, np.float32)
    np.testing.assert_array_equal(rows[:], ROWS[list(order)])
    for wanted in (slice(1, 5), slice(None, None, -2), np.array([4, 0, 0, 6]), np.array([], int)):
        np.testing.assert_array_equal(rows[wanted], ROWS[list(order)][wanted])


def test_another_process_finds_what_one_has_written(tmp_path):
    before = open_space(tmp_path)
    assert not before.find(KEYS).any()
    fill(open_space(tmp_path), slice(2, 5))
    for space in (before, open_space(tmp_path)):
        assert np.flatnonzero(space.find(KEYS)).tolist() == [2, 3, 4]
        np.testing.assert_array_equal(space.rows(KEYS[[4, 2]])[:], ROWS[[4, 2]])


def test_no_keys_are_no_rows(tmp_path):
    space = open_space(tmp_path)
    assert space.find(KEYS[:0]).shape == (0,)
    assert space.rows(KEYS[:0])[:].shape == (0, *SHAPE)


def test_an_absent_row_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"must hold the 9 rows asked for, 5 are absent"):
        fill(open_space(tmp_path), slice(0, 4)).rows(KEYS)


def test_rows_written_twice_are_harmless(tmp_path):
    space = fill(open_space(tmp_path), slice(0, 6), slice(4, 9), [0, 0, 1])
    np.testing.assert_array_equal(space.rows(KEYS)[:], ROWS)


def test_rows_are_cast_and_copied(tmp_path):
    space = FeatureStore(tmp_path, 0).space({}, SHAPE, np.float16)
    with space.writer() as writer:
        buffer, keys = ROWS.copy(), KEYS.copy()
        writer.append(keys, buffer)
        buffer[:] = keys[:] = 0
    np.testing.assert_array_equal(space.rows(KEYS)[:], ROWS.astype(np.float16))


@pytest.mark.parametrize("row_shape", [(), (0,), (1,)])
def test_rows_of_any_shape(tmp_path, row_shape):
    space = FeatureStore(tmp_path, 0).space({}, row_shape, np.float64)
    with space.writer() as writer:
        writer.append(KEYS, np.ones((9, *row_shape)))
    np.testing.assert_array_equal(space.rows(KEYS)[2:5], np.ones((3, *row_shape)))


def test_rows_are_there_as_soon_as_a_segment_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(spaces, "SEGMENT_BYTES", 4 * ROWS[0].nbytes)
    space, reader = open_space(tmp_path), open_space(tmp_path)
    with space.writer() as writer:
        for part, there in ((slice(0, 3), 0), (slice(3, 5), 5), (slice(5, 6), 5), (slice(6, 9), 9)):
            writer.append(KEYS[part], ROWS[part])
            assert reader.find(KEYS).sum() == there
    assert len(segment_paths(space.folder)) == 2


def test_a_batch_larger_than_a_segment_is_split(tmp_path, monkeypatch):
    monkeypatch.setattr(spaces, "SEGMENT_BYTES", 4 * ROWS[0].nbytes)
    space = fill(open_space(tmp_path), slice(0, 9))
    assert len(segment_paths(space.folder)) == 3
    np.testing.assert_array_equal(open_space(tmp_path).rows(KEYS)[:], ROWS)


def write_until(error, space):
    with space.writer() as writer:
        writer.append(KEYS[:3], ROWS[:3])
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_keeps_whole_batches(tmp_path, error):
    with pytest.raises(error):
        write_until(error, open_space(tmp_path))
    assert np.flatnonzero(open_space(tmp_path).find(KEYS)).tolist() == [0, 1, 2]


def test_what_does_not_belong_together_is_refused(tmp_path):
    space = open_space(tmp_path)
    with space.writer() as writer:
        with pytest.raises(ArtifactError, match=r"rows of 4 keys must have shape \(4, 2, 3\), received \(3, 2, 3\)"):
            writer.append(KEYS[:4], ROWS[:3])
        with pytest.raises(ArtifactError, match=r"rows of 4 keys must have shape \(4, 2, 3\), received \(4, 3, 2\)"):
            writer.append(KEYS[:4], ROWS[:4].reshape(4, 3, 2))
    for keys in (KEYS[:, :8], KEYS.astype(np.int16), KEYS[0]):
        with pytest.raises(ArtifactError, match=r"keys must be uint8 of shape \(n, 16\), received"):
            space.find(keys)
    assert not space.folder.exists()


@pytest.mark.parametrize("asked", ["find", "rows"])
def test_a_damaged_segment_is_deleted_and_its_rows_are_absent(tmp_path, caplog, asked):
    first, _ = segment_paths(fill(open_space(tmp_path)).folder)
    damage(first)
    lost = np.load(keys_path(first))["key"]
    space = open_space(tmp_path)
    if asked == "rows":
        with pytest.raises(ArtifactError, match=rf"{len(lost)} are absent"):
            space.rows(KEYS)
    present = space.find(KEYS)
    np.testing.assert_array_equal(present, ~(KEYS[:, None] == lost).all(-1).any(1))
    assert caplog.messages == [caplog.messages[0]]
    assert f"{first}: row {len(lost) - 1} is damaged, its checksum differs; it is deleted" in caplog.text
    assert not first.exists()
    assert not keys_path(first).exists()
    np.testing.assert_array_equal(fill(space, ~present).rows(KEYS)[:], ROWS)


def test_another_copy_of_a_damaged_row_is_used(tmp_path):
    space = fill(open_space(tmp_path), slice(0, 9), slice(0, 9))
    damage(segment_paths(space.folder)[0])
    np.testing.assert_array_equal(open_space(tmp_path).rows(KEYS)[:], ROWS)


def test_an_estimate_reads_no_rows(tmp_path):
    space = fill(open_space(tmp_path), slice(0, 9))
    damage(segment_paths(space.folder)[0])
    assert open_space(tmp_path).find(KEYS, check=False).all()


def test_what_a_crash_leaves_is_absent(tmp_path, caplog):
    first, second = segment_paths(fill(open_space(tmp_path)).folder)
    keys_path(first).unlink()
    second.unlink()
    space = open_space(tmp_path)
    (space.folder / ".partial-1.keys.npy").write_bytes(b"half")
    assert not space.find(KEYS).any()
    assert not caplog.messages
    np.testing.assert_array_equal(fill(space).rows(KEYS)[:], ROWS)


def test_a_truncated_segment_is_absent(tmp_path, caplog):
    (path,) = segment_paths(fill(open_space(tmp_path), slice(0, 9)).folder)
    path.write_bytes(path.read_bytes()[:-5])
    assert not open_space(tmp_path).find(KEYS).any()
    assert str(path) in caplog.text
    assert not path.exists()


@pytest.mark.parametrize(("harm", "message"), [(damage, "row 8 is damaged"), (lambda path: path.unlink(), "deleted")])
def test_rows_lost_while_in_use_are_an_error_that_says_what_to_do(tmp_path, harm, message):
    space = fill(open_space(tmp_path), slice(0, 9))
    rows = space.rows(KEYS)
    harm(segment_paths(space.folder)[0])
    with pytest.raises(ArtifactError, match=rf"{message}.* while its rows were in use; run again"):
        rows[:]


def test_the_store_may_be_deleted_between_calls(tmp_path):
    space = fill(open_space(tmp_path / "store"))
    shutil.rmtree(tmp_path / "store")
    assert not space.find(KEYS).any()
    shutil.rmtree(tmp_path / "store")
    np.testing.assert_array_equal(fill(space).rows(KEYS)[:], ROWS)
    shutil.rmtree(tmp_path / "store")
    with space.locked():
        assert not space.find(KEYS).any()


def test_a_folder_deleted_while_it_is_written_to_is_made_again(tmp_path, monkeypatch):
    space, write = open_space(tmp_path), spaces.write_segment

    def deleted_once(*arguments):
        monkeypatch.setattr(spaces, "write_segment", write)
        shutil.rmtree(space.folder)
        return write(*arguments)

    monkeypatch.setattr(spaces, "write_segment", deleted_once)
    np.testing.assert_array_equal(fill(space, slice(0, 9)).rows(KEYS)[:], ROWS)
    assert (space.folder / "description.json").exists()


def compute_missing(root, start, counts):
    space = open_space(root)
    start.wait()
    with space.locked():
        missing = ~space.find(KEYS)
        with space.writer() as writer:
            for row in np.flatnonzero(missing):
                writer.append(KEYS[row : row + 1], ROWS[row : row + 1])
    counts.put(int(missing.sum()))
    np.testing.assert_array_equal(space.rows(KEYS)[:], ROWS)


def test_processes_at_once_compute_each_row_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(3), context.SimpleQueue()
    processes = [context.Process(target=compute_missing, args=(tmp_path, start, counts)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(counts.get() for _ in processes) == [0, 0, 9]
