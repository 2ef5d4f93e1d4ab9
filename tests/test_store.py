import os
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from graft.storage import ArtifactError, read_json
from graft.store import FeatureStore, view_keys
from graft.store_segments import keys_path, segment_paths

DESCRIPTION = {"point": "top", "input_size": 32, "versions": {"keras": "3"}}
KEYS = np.arange(10 * 16, dtype=np.uint8).reshape(10, 16)
ROWS = np.arange(10 * 250, dtype=np.float32).reshape(10, 250)


def write(root, *rows, point="top"):
    """One segment of 1 kB rows, by a process of its own; returns its path."""
    space = FeatureStore(root, 0).space({"point": point}, (250,), np.float32)
    before = set(segment_paths(space.folder))
    with space.writer() as writer:
        writer.append(KEYS[list(rows)], ROWS[list(rows)])
    (path,) = set(segment_paths(space.folder)) - before
    return path


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def present(root, point="top"):
    return np.flatnonzero(FeatureStore(root, 0).space({"point": point}, (250,), np.float32).find(KEYS)).tolist()


class Pixels:
    """Rows as a reader of shards gives them."""

    def __init__(self, array):
        self.array, self.row_shape, self.dtype = array, array.shape[1:], array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        return self.array[rows].copy()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_the_same_pixels_have_the_same_key_in_any_batch(batch):
    keys = view_keys(Pixels(IMAGES[[0, 1, 0, 2, 1]]), batch)
    assert (keys.shape, keys.dtype) == ((5, 16), np.uint8)
    assert len({key.tobytes() for key in keys}) == 3
    np.testing.assert_array_equal(keys, view_keys(Pixels(IMAGES), 3)[[0, 1, 0, 2, 1]])


def test_other_pixels_shape_or_dtype_have_another_key():
    changed = IMAGES.copy()
    changed[0, 2, 3, 1] ^= 1
    others = [changed, IMAGES.reshape(5, 6, 4, 3), IMAGES.view(np.int8), IMAGES.reshape(5, -1)]
    keys = [view_keys(Pixels(array), 2)[0].tobytes() for array in (IMAGES, *others)]
    assert len(set(keys)) == 5
    np.testing.assert_array_equal(view_keys(Pixels(changed), 2)[1:], view_keys(Pixels(IMAGES), 2)[1:])


def test_no_pixels_have_no_keys():
    assert view_keys(Pixels(IMAGES[:0]), 2).shape == (0, 16)


def test_a_space_says_what_it_holds(tmp_path):
    space = FeatureStore(tmp_path, 0).space(DESCRIPTION, (250,), np.float32)
    with space.writer() as writer:
        writer.append(KEYS, ROWS)
    assert read_json(space.folder / "description.json") == {
        "description": DESCRIPTION,
        "row_shape": [250],
        "dtype": "<f4",
    }


def test_the_order_of_a_description_is_no_matter(tmp_path):
    store = FeatureStore(tmp_path, 0)
    space = store.space(DESCRIPTION, (250,), np.float32)
    assert store.space(dict(reversed(DESCRIPTION.items())), [250], "float32") is space


@pytest.mark.parametrize(
    ("description", "row_shape", "dtype"),
    [
        ({**DESCRIPTION, "input_size": 33}, (250,), np.float32),
        (DESCRIPTION, (250, 1), np.float32),
        (DESCRIPTION, (250,), np.float16),
    ],
    ids=["description", "row_shape", "dtype"],
)
def test_spaces_do_not_mix(tmp_path, description, row_shape, dtype):
    store = FeatureStore(tmp_path, 0)
    with store.space(DESCRIPTION, (250,), np.float32).writer() as writer:
        writer.append(KEYS, ROWS)
    assert not store.space(description, row_shape, dtype).find(KEYS).any()


def test_what_cannot_be_a_space_is_refused(tmp_path):
    store = FeatureStore(tmp_path, 0)
    with pytest.raises(ArtifactError, match=r"must be JSON, received .*'path'"):
        store.space({"path": tmp_path}, (2,), np.float32)
    with pytest.raises(ArtifactError, match=r"plain numbers, received dtype object"):
        store.space({}, (2,), object)


def test_a_listing_shows_the_most_recently_used_first(tmp_path):
    age(write(tmp_path, 0, 1, 2, point="cut"), 50)
    first, second = write(tmp_path, 0, 1), write(tmp_path, 1, 2)
    age(first, 10)
    age(second, 20)
    store = FeatureStore(tmp_path, 0)
    top, cut = store.spaces()
    assert (top.description, top.row_shape, top.dtype, top.rows) == ({"point": "top"}, (250,), "<f4", 4)
    assert (cut.description, cut.rows) == ({"point": "cut"}, 3)
    assert 5 < (datetime.now(UTC) - top.last_used).total_seconds() < 15
    assert top.bytes > 4 * 1000
    assert top.bytes + cut.bytes == store.used_bytes()


def test_a_damaged_description_is_listed_and_mended(tmp_path):
    path = write(tmp_path, 0)
    for text in ("{", "[]", "{}"):
        (path.parent / "description.json").write_text(text)
        (summary,) = FeatureStore(tmp_path, 0).spaces()
        assert (summary.description, summary.row_shape, summary.rows) == ({}, (), 1)
    write(tmp_path, 1)
    assert FeatureStore(tmp_path, 0).spaces()[0].description == {"point": "top"}


def test_an_absent_store_is_empty(tmp_path):
    store = FeatureStore(tmp_path / "none", 10)
    assert (store.used_bytes(), store.spaces(), store.evict()) == (0, [], 0)
    store.clear()
    assert not (tmp_path / "none").exists()


def test_the_least_recently_used_go_first_until_the_store_is_small_enough(tmp_path):
    for rows, seconds in (((0, 1), 20), ((2, 3), 40), ((4, 5), 10)):
        age(write(tmp_path, *rows), seconds)
    age(write(tmp_path, 6, 7, point="cut"), 30)
    used = FeatureStore(tmp_path, 0).used_bytes()
    assert FeatureStore(tmp_path, used).evict() == 0
    assert FeatureStore(tmp_path, used - 1).evict() > 2000
    assert (present(tmp_path), present(tmp_path, "cut")) == ([0, 1, 4, 5], [6, 7])
    store = FeatureStore(tmp_path, 5500)
    freed = store.evict()
    assert (present(tmp_path), present(tmp_path, "cut")) == ([0, 1, 4, 5], [])
    assert store.used_bytes() <= 5500
    assert freed > 2000
    assert len(store.spaces()) == 1  # the empty space is gone


def test_reading_is_use(tmp_path):
    for rows, seconds in (((0, 1), 20), ((2, 3), 40)):
        age(write(tmp_path, *rows), seconds)
    FeatureStore(tmp_path, 0).space({"point": "top"}, (250,), np.float32).rows(KEYS[[3]])
    FeatureStore(tmp_path, 3000).evict()
    assert present(tmp_path) == [2, 3]


def test_what_this_process_used_goes_last(tmp_path):
    write(tmp_path, 0, 1)
    store = FeatureStore(tmp_path, 3000)
    with store.space({"point": "cut"}, (250,), np.float32).writer() as writer:
        writer.append(KEYS[:2], ROWS[:2])
    store.evict()
    assert (present(tmp_path), present(tmp_path, "cut")) == ([], [0, 1])


def test_what_this_process_used_goes_where_even_that_is_too_much(tmp_path):
    write(tmp_path, 0, 1)
    store = FeatureStore(tmp_path, 0)
    space = store.space({"point": "top"}, (250,), np.float32)
    assert space.find(KEYS[:2]).all()
    store.evict()
    assert not space.find(KEYS[:2]).any()


def test_what_another_process_uses_stays(tmp_path):
    write(tmp_path, 0, 1)
    rows = FeatureStore(tmp_path, 0).space({"point": "top"}, (250,), np.float32).rows(KEYS[:2])
    own = FeatureStore(tmp_path, 0)
    own.space({"point": "top"}, (250,), np.float32)
    for store in (FeatureStore(tmp_path, 0), own):
        assert store.evict() == 0
    np.testing.assert_array_equal(rows[:], ROWS[:2])
    del rows
    own.evict()
    assert own.used_bytes() == 0


def test_nothing_is_kept_of_zero_bytes(tmp_path):
    store = FeatureStore(tmp_path, 0)
    with store.space({}, (250,), np.float32).writer() as writer:
        writer.append(KEYS, ROWS)
    used = store.used_bytes()
    assert store.evict() == used > 10_000
    assert (store.used_bytes(), store.spaces()) == (0, [])


def test_what_dead_processes_left_goes_even_from_a_small_store(tmp_path):
    path, lost = write(tmp_path, 0, 1), write(tmp_path, 2, 3)
    keys_path(lost).unlink()
    (path.parent / ".partial-1.npy").write_bytes(b"half")
    assert FeatureStore(tmp_path, 10**6).evict() > 2000
    assert {file.name for file in path.parent.iterdir()} == {path.name, keys_path(path).name, "description.json"}


def test_clear_deletes_everything_but_what_is_not_the_store_s(tmp_path):
    write(tmp_path, 0, 1)
    write(tmp_path, 0, 1, point="cut")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.npy").touch()
    store = FeatureStore(tmp_path, 10**6)
    store.clear()
    assert (store.used_bytes(), present(tmp_path)) == (0, [])
    store.evict()
    assert (tmp_path / "photos" / "1.npy").exists()
