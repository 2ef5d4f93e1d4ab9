import numpy as np
import pytest

from graft import store_segments
from graft.store_segments import Index, SegmentError, keys_path, read_segment, segment_paths, sweep, write_segment

KEYS = np.array([b"b" * 16, b"a" * 16, b"c" * 15 + b"\0"], "S16")
ROWS = np.arange(3 * 2 * 5, dtype=np.float32).reshape(3, 2, 5)


@pytest.fixture
def path(tmp_path):
    return write_segment(tmp_path, [(KEYS[:2], ROWS[:2]), (KEYS[2:], ROWS[2:])]).path


def read(path, rows):
    target = np.empty((len(rows), 2, 5), np.float32)
    read_segment(path, (2, 5), np.dtype(np.float32)).read(np.array(rows, int), target)
    return target


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_rows_are_a_plain_npy_file(path, tmp_path):
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), ROWS)
    assert np.load(keys_path(path), allow_pickle=False)["key"].shape == (3, 16)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, keys_path(path).name}


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1, 0], [1, 1, 2, 0], []], ids=["all", "backwards", "twice", "none"])
def test_rows_come_in_the_asked_order(path, rows):
    np.testing.assert_array_equal(read(path, rows), ROWS[rows])


def test_keys_that_end_in_zero_come_back(path):
    np.testing.assert_array_equal(read_segment(path, (2, 5), np.dtype(np.float32)).keys, KEYS)


@pytest.mark.parametrize(("row_shape", "dtype"), [((5, 2), np.float32), ((2, 5), np.int32), ((2, 4), np.float32)])
def test_rows_of_another_kind_are_damage(path, row_shape, dtype):
    with pytest.raises(SegmentError, match=rf"{path.name} is damaged: it must hold"):
        read_segment(path, row_shape, np.dtype(dtype))


@pytest.mark.parametrize("size", [0, 10, 128, 150, -1])
def test_a_truncated_file_is_damage(path, size):
    for file in (path, keys_path(path)):
        data = file.read_bytes()
        file.write_bytes(data[:size])
        with pytest.raises(SegmentError, match=rf"{file.name} is damaged"):
            read_segment(path, (2, 5), np.dtype(np.float32))
        file.write_bytes(data)


def test_every_flipped_byte_is_found(path):
    for file in (path, keys_path(path)):
        for offset in range(file.stat().st_size):
            flip(file, offset)
            with pytest.raises(SegmentError):
                read(path, [0, 1, 2])
            flip(file, offset)


def test_only_the_asked_rows_are_checked_and_once(path, monkeypatch):
    flip(path, -1)
    segment = read_segment(path, (2, 5), np.dtype(np.float32))
    segment.check(np.array([0, 1]))
    path.rename(path.with_suffix(".moved"))
    segment.check(np.array([1, 0, 0]))
    path.with_suffix(".moved").rename(path)
    monkeypatch.setattr(store_segments, "CHUNK_BYTES", 1)
    with pytest.raises(SegmentError, match=rf"{path.name}: row 2 is damaged"):
        segment.check(np.array([0, 1, 2]))


def test_a_file_cut_off_since_it_was_opened_is_damage(path):
    segment = read_segment(path, (2, 5), np.dtype(np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SegmentError, match="it ends early"):
        segment.read(np.array([2]), np.empty((1, 2, 5), np.float32))


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    replace = store_segments.os.replace

    def disk_full(source, target):
        if str(target).endswith(store_segments.KEYS_SUFFIX):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(store_segments.os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_segment(tmp_path, [(KEYS, ROWS)])
    assert not list(tmp_path.iterdir())


def test_sweep_deletes_halves_and_partial_files_alone(path, tmp_path):
    kept = {path, keys_path(path), tmp_path / "description.json"}
    (tmp_path / "description.json").touch()
    for name in (".partial-1.npy", ".partial-1.keys.npy", ".partial-2.json", "3.npy", "4.keys.npy"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == kept
    assert segment_paths(tmp_path) == [path]


def test_an_index_finds_keys_of_several_segments(tmp_path):
    first, second = (write_segment(tmp_path, [(KEYS[part], ROWS[part])]) for part in (slice(0, 2), slice(2, 3)))
    index = Index.of([first, second])
    positions = index.positions(np.array([KEYS[2], KEYS[0], b"z" * 16, b"0" * 16, KEYS[0]], "S16"))
    assert (positions >= 0).tolist() == [True, True, False, False, True]
    assert index.owner[positions[[0, 1, 4]]].tolist() == [1, 0, 0]
    assert index.row[positions[[0, 1, 4]]].tolist() == [0, 0, 0]


def test_an_index_of_nothing_holds_nothing():
    assert Index.of([]).positions(KEYS).tolist() == [-1, -1, -1]
