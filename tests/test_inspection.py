import hashlib
import math
import os
import signal
from itertools import islice
from pathlib import Path

import imagehash
import joblib
import numpy as np
import pandas as pd
import pytest
from bad_images import bad_images, odd_images
from image_files import encoded, scene
from peak_memory import growth
from PIL import Image

from graft import images
from graft.errors import GraftError
from graft.inspection import BATCH, COLUMNS, FEW, _batches, inspect
from graft.records import Record

LIMITS = {"min_side": 8, "max_pixels": 50_000_000}


@pytest.fixture
def processes(monkeypatch):
    """Sets how many processes decode; whatever this machine has, there are two at first."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    return lambda number: monkeypatch.setattr(joblib, "cpu_count", lambda: number)


def record(content: bytes | Path, source: str = "a.png", **further) -> Record:
    return Record(content, "ant", further.get("split"), further.get("group"), source)


def look(records, size=16, how="stretch", **limits):
    return list(inspect(records, image_size=size, how=how, **LIMITS | limits))


def corpus(folder: Path) -> list[Record]:
    """Good, odd and bad images, half of them as files."""
    contents = {name: content for name, (content, _) in bad_images().items()} | odd_images()
    records = []
    for number, (name, content) in enumerate(contents.items()):
        (folder / name).write_bytes(content)
        records.append(record(folder / name if number % 2 else content, name, split="test", group=str(number % 3)))
    return [*records, record(folder / "absent.png", "absent.png"), record(folder, "folder.png")]


def test_a_row_says_what_the_record_and_its_file_are():
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 5:] = (40, 80, 0)
    content = encoded(pixels, "PNG")
    [seen] = look([record(content, "photos/1.png", split="validation", group="anna")])
    assert tuple(seen.row) == COLUMNS
    spread = math.sqrt(3) / 4  # of a value that a quarter of the pixels does not have
    expected = {
        "image_id": hashlib.sha256(content).hexdigest(),
        "label": "ant",
        "split": "validation",
        "group": "anna",
        "source": "photos/1.png",
        "width": 20,
        "height": 10,
        "format": "PNG",
        "mode": "RGB",
        "bytes": len(content),
        "brightness": pytest.approx(30),
        "mean_r": pytest.approx(30),
        "mean_g": pytest.approx(60),
        "mean_b": 0,
        "std_r": pytest.approx(40 * spread),
        "std_g": pytest.approx(80 * spread),
        "std_b": 0,
        "reason": None,
        "detail": None,
    }
    assert {column: value for column, value in seen.row.items() if column != "pixel_id"} == expected


def test_the_pixel_id_is_of_the_picture_and_not_of_its_file():
    pixels = scene(1)
    same = [encoded(pixels, "PNG"), encoded(pixels, "BMP"), encoded(pixels, "WEBP", lossless=True)]
    other = [encoded(pixels[::-1], "PNG"), encoded(pixels.reshape(32, 24, 3), "PNG")]
    rows = [seen.row for seen in look([record(content) for content in [*same, *other]])]
    assert len({row["image_id"] for row in rows}) == 5
    assert len({row["pixel_id"] for row in rows[:3]}) == 1
    assert len({row["pixel_id"] for row in rows}) == 3


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_the_arrays_are_the_resized_image_the_whole_picture_and_its_hash(how):
    pixels = scene(2, 90, 60)
    [seen] = look([record(encoded(pixels, "PNG"))], size=24, how=how)
    np.testing.assert_array_equal(seen.image, images.resize(pixels, 24, how))
    assert (seen.thumbnail.shape, seen.thumbnail.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_allclose(seen.thumbnail.mean((0, 1)), pixels.mean((0, 1)), atol=1)
    np.testing.assert_array_equal(np.unpackbits(seen.hash), imagehash.phash(Image.fromarray(pixels)).hash.ravel())


def test_what_cannot_be_used_has_a_reason_and_no_arrays(tmp_path):
    wanted = {name: reason for name, (_, reason) in bad_images().items()}
    wanted |= dict.fromkeys(odd_images()) | dict.fromkeys(["absent.png", "folder.png"], "unreadable-file")
    seen = look(corpus(tmp_path))
    assert {item.row["source"]: item.row["reason"] for item in seen} == wanted
    for item in seen:
        good = item.row["reason"] is None
        assert (item.row["detail"] is None) == good
        assert all((array is not None) == good for array in (item.image, item.thumbnail, item.hash))
        assert math.isnan(item.row["brightness"]) != good
        assert (item.row["width"] > 0) == (item.row["pixel_id"] is not None) == good
    absent, folder = seen[-2:]
    assert absent.row["detail"] == "No such file or directory"
    assert folder.row["detail"] == "not a regular file"
    assert absent.row["image_id"] is None


def test_processes_find_what_one_process_finds(tmp_path, processes):
    records = corpus(tmp_path) + [record(encoded(scene(seed), "PNG"), f"{seed}.png") for seed in range(100, 140)]
    assert len(records) > FEW
    parallel = look(records)
    processes(1)
    alone = look(records)
    pd.testing.assert_frame_equal(
        pd.DataFrame([item.row for item in parallel]), pd.DataFrame([item.row for item in alone])
    )
    assert [item.row["source"] for item in parallel] == [item.source for item in records]
    for one, other in zip(parallel, alone, strict=True):
        for name in ("image", "thumbnail", "hash"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_no_record_is_no_row_and_its_table_still_has_columns():
    assert look([]) == []
    assert list(pd.DataFrame([], columns=COLUMNS)) == list(COLUMNS)


def test_the_source_is_not_read_far_ahead_of_who_takes_the_results(processes):
    content, drawn = encoded(scene(3), "PNG"), []

    def source():
        for number in range(5000):
            drawn.append(number)
            yield record(content, str(number))

    seen = inspect(source(), image_size=8, how="stretch", **LIMITS)
    assert not drawn
    taken = [item.row["source"] for item in islice(seen, 300)]
    assert taken == [str(number) for number in range(300)]
    assert len(drawn) <= 300 + (2 * 2 + 1) * BATCH
    seen.close()
    assert len(drawn) < 500


def test_batches_are_bounded_by_number_and_by_bytes():
    small, large = record(bytes(10)), record(bytes(5 * 2**20))
    sizes = [len(batch) for batch in _batches([small] * 70 + [large] * 3 + [record(Path("a.png"))] * 2, 32)]
    assert sizes == [32, 32, 8, 3]  # 6 small and 2 large ones; 1 large one and the files


def test_a_file_that_no_picture_needs_is_not_read(tmp_path, monkeypatch):
    vast = tmp_path / "vast.png"
    vast.touch()
    os.truncate(vast, 16 * 2**20 + 8 * 1000 + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("the file was read"))
    [seen] = look([record(vast)], max_pixels=1000)
    assert seen.row["reason"] == "too-large"
    assert seen.row["detail"] == "16,785,217 bytes, which no picture of 1,000 pixels needs"


def test_a_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    [seen] = look([record(tmp_path / "pipe.png")])
    assert (seen.row["reason"], seen.row["detail"]) == ("unreadable-file", "not a regular file")


class Deadly(Record):
    def read(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_a_killed_process_is_explained_and_the_next_run_works(processes):
    content = encoded(scene(4), "PNG")
    records = [record(content, str(number)) for number in range(200)]
    with pytest.raises(GraftError, match=r"killed.*want of memory.*lower data\.max_pixels, or set LOKY_MAX_CPU_COUNT"):
        look([*records[:100], Deadly(content, "ant", None, None, "deadly.png"), *records[100:]])
    assert len(look(records)) == 200


def test_an_image_is_not_given_up_for_a_lack_of_memory(monkeypatch):
    def refuse(reader):
        raise MemoryError

    monkeypatch.setattr(images.PngImageFile, "load", refuse)
    with pytest.raises(GraftError, match=r"^there was not enough memory to decode a\.png; lower data\.max_pixels"):
        look([record(encoded(scene(6), "PNG"))])


def test_memory_does_not_grow_with_the_source():
    grown, _ = growth("""
from test_inspection import *
joblib.cpu_count = lambda: 2
content = encoded(scene(5), "PNG")
seen = inspect((record(content) for _ in range(1500)), image_size=160, how="stretch", **LIMITS)
next(islice(seen, 400, None))
before = peak()
assert sum(item.image.nbytes for item in seen) > 80_000_000
""")
    assert grown < 20_000


@pytest.mark.real_data
def test_photographs_in_processes(photographs, processes):
    files = sorted(photographs.glob("train/*/*.jpg"))
    seen = look([record(file, file.name) for file in files], size=224, how="crop")
    assert len(seen) > 200
    assert {item.row["reason"] for item in seen} == {None}
    for item, file in islice(zip(seen, files, strict=True), 0, None, 50):
        np.testing.assert_array_equal(item.image, images.resize(images.decode(file.read_bytes()), 224, "crop"))
