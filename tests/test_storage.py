import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.storage import (
    ArtifactError,
    DiskFullError,
    new_file,
    new_folder,
    read_described,
    read_json,
    read_table,
    write_json,
    write_table,
)


class KilledError(Exception):
    """Stands for whatever ends a stage early."""


def fill_half(new, path):
    """What a stage leaves that is killed while it writes."""
    with new(path) as partial:
        (partial / "half" if new is new_folder else partial).write_text("half")
        raise KilledError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
        assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_an_interrupted_folder_leaves_the_old_one_and_nothing_under_the_final_name(tmp_path):
    for name in ("present", "absent"):
        if name == "present":
            (tmp_path / name).mkdir()
        with pytest.raises(KilledError):
            fill_half(new_folder, tmp_path / name)
    assert names(tmp_path / "present") == []
    assert not (tmp_path / "absent").exists()


def test_what_cannot_take_its_final_name_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(IsADirectoryError), new_file(tmp_path / "folder") as partial:
        partial.write_text("new")
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_restarted_folder_begins_empty(tmp_path):
    with pytest.raises(KilledError):
        fill_half(new_folder, tmp_path / "out")
    with new_folder(tmp_path / "out") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


def test_new_folder_makes_its_parents(tmp_path):
    with new_folder(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "a" / "file.txt"
    with new_file(path) as partial:
        partial.write_text("old")
    with pytest.raises(KilledError):
        fill_half(new_file, path)
    assert path.read_text() == "old"


@pytest.fixture
def disk(monkeypatch):
    """What reaches the disk, in its order: names of files and folders that are synced, and renames."""
    done, fsync, rename, replace = [], os.fsync, os.rename, os.replace

    def synced(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def moved(source, target):
        done.append(f"{Path(source).name} -> {Path(target).name}")
        (rename if Path(source).is_dir() else replace)(source, target)

    for name, stand_in in (("fsync", synced), ("rename", moved), ("replace", moved)):
        monkeypatch.setattr(os, name, stand_in)
    return done


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_is_before_it_counts(tmp_path, disk):
    with new_file(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert disk == [".partial-a.txt", ".partial-a.txt -> a.txt", tmp_path.name]


def test_a_folder_is_on_the_disk_with_all_it_holds_before_it_has_its_name(tmp_path, disk):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").touch()
        (folder / "b").touch()
        (folder / "link").symlink_to("nowhere")
    *contents, aside, final, parent = disk
    assert sorted(contents) == [".out.partial", "a", "b", "inner"]
    assert contents.index("a") < contents.index("inner") < contents.index(".out.partial")
    assert (aside, final, parent) == ("out -> .out.old", ".out.partial -> out", tmp_path.name)


WRITE = """
import sys
from pathlib import Path
from graft.storage import new_file, new_folder
out, version = Path(sys.argv[1]), sys.argv[2]
with new_folder(out) as folder:
    for name in ("one", "two"):
        with new_file(folder / name) as partial:
            partial.write_text(version)
"""


def write(out, version, fault=None):
    """Two files in a folder, by a process of its own that ends early where a fault says so."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    environment |= {"GRAFT_FAULT": fault} if fault else {}
    return subprocess.run([sys.executable, "-c", WRITE, str(out), version], env=environment, check=False).returncode


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("write one", "old"),
        ("rename one", "old"),
        ("write two", "old"),
        ("write out", "old"),
        ("aside out", None),  # for a moment neither has the name, but both are whole
        ("rename out", "new"),
    ],
)
def test_a_process_killed_at_any_point_leaves_the_old_or_the_new_folder_whole(tmp_path, point, left):
    out = tmp_path / "parent" / "out"
    out.mkdir(parents=True)
    for name in ("one", "two"):
        (out / name).write_text("old")
    assert write(out, "new", f"{point}#1:kill") == -signal.SIGKILL
    assert (left is None and not out.exists()) or {path.read_text() for path in out.iterdir()} == {left}
    with pytest.raises(KilledError):
        fill_half(new_folder, out)
    assert {path.read_text() for path in out.iterdir()} == {left or "old"}
    with new_folder(out) as folder:
        (folder / "one").write_text("last")
    assert names(out) == ["one"]
    assert names(out.parent) == ["out"]


def on_a_full_device(new, path):
    """Writes to the device that is always full, and in whose name the kernel says so."""
    with new(path) as partial:
        target = partial / "a" if new is new_folder else partial
        target.symlink_to("/dev/full")
        with target.open("wb", buffering=0) as stream:
            stream.write(b"content")


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_full_disk_is_named_and_what_was_begun_is_removed(tmp_path, new):
    free = r"[\d,]+ bytes are free at \S+"
    message = rf"made/out could not be written, the disk is full: {free} \(\[Errno 28\] No space left on device.*\)"
    with pytest.raises(DiskFullError, match=message) as caught:
        on_a_full_device(new, tmp_path / "made" / "out")
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path / "made") == []


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
        (OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"), True),
        (OSError("4096 requested and 512 written"), True),  # as NumPy says it
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), False),
        (ValueError("No space left on device"), False),
    ],
    ids=["quota", "HDF5", "NumPy", "no right", "no error of the system"],
)
def test_a_full_disk_is_told_from_other_errors(tmp_path, error, named):
    with pytest.raises(DiskFullError if named else type(error)), new_file(tmp_path / "a"):
        raise error


def test_an_old_folder_comes_back_where_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    monkeypatch.setattr("graft.storage.reached", fails_at("aside out"))
    with pytest.raises(DiskFullError, match="out could not be written"), new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def fails_at(wanted):
    def reached(point):
        if point == wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return reached


def test_what_a_killed_writer_left_is_not_written_through(tmp_path):
    """A link under the partial name would lead elsewhere."""
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / ".partial-a.txt").symlink_to("elsewhere")
    with new_file(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert not (tmp_path / "a.txt").is_symlink()


def test_json_comes_back_and_stays_readable(tmp_path):
    write_json(tmp_path / "a.json", {"classes": ["Käfer", "bees"], "n": 2})
    assert read_json(tmp_path / "a.json") == {"classes": ["Käfer", "bees"], "n": 2}
    assert "Käfer" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_missing_and_broken_json_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"a.json is missing; `dvc repro` makes it"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"rows": 1')
    with pytest.raises(ArtifactError, match=r"a.json is not JSON: .*line 1"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"\xff\xfe{", "[1, 2".encode("utf-16")])
def test_json_that_is_no_text_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a.json is not JSON"):
        read_json(tmp_path / "a.json")


FRAME = pd.DataFrame({"image_id": ["a", "b"], "view": [0, 1]})


def test_a_table_comes_back_in_its_order(tmp_path):
    write_table(tmp_path / "t.parquet", FRAME)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", ["image_id", "view"]), FRAME)


def test_the_suffix_chooses_csv(tmp_path):
    write_table(tmp_path / "t.csv", FRAME)
    assert (tmp_path / "t.csv").read_text() == "image_id,view\na,0\nb,1\n"


def test_missing_damaged_and_foreign_tables_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(ArtifactError, match=r"t.parquet is missing"):
        read_table(path, ["view"])
    write_table(path, FRAME)
    with pytest.raises(ArtifactError, match=r"must have the columns \['label'\], received \['image_id', 'view'\]"):
        read_table(path, ["label"])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"t.parquet is not a readable Parquet file"):
        read_table(path, ["view"])


def test_equal_tables_are_equal_bytes_and_say_what_they_are(tmp_path):
    for name in ("one", "two"):
        write_table(tmp_path / f"{name}.parquet", FRAME.copy(), {"manifest": "ab"})
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    frame, facts = read_described(tmp_path / "one.parquet", ["view"])
    pd.testing.assert_frame_equal(frame, FRAME)
    assert (facts["schema"], facts["rows"], facts["manifest"]) == (1, 2, "ab")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one.parquet"), FRAME)  # any reader's


def test_a_table_from_before_there_were_schemas_is_read_where_nothing_can_renew_it(tmp_path):
    path = tmp_path / "t.parquet"
    FRAME.to_parquet(path)
    with pytest.raises(ArtifactError, match=r"t.parquet must be of schema 1, received none, .* `dvc repro` makes it"):
        read_table(path, ["view"])
    frame, facts = read_described(path, ["view"], archived=True)
    pd.testing.assert_frame_equal(frame, FRAME)
    assert facts == {}


def test_no_flipped_bit_changes_a_table_unnoticed(tmp_path):
    """Of the data a page's checksum tells; elsewhere the file must be refused, or mean the same."""
    frame = pd.DataFrame({"image_id": [f"{number:04d}" for number in range(50)], "view": range(50), "p:a": 0.5})
    write_table(tmp_path / "whole.parquet", frame)
    whole, path = (tmp_path / "whole.parquet").read_bytes(), tmp_path / "t.parquet"
    random, refused = np.random.default_rng(0), 0
    for place in random.choice(len(whole), 400, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_table(path, list(frame.columns))
        except ArtifactError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(found, frame)
    assert refused > 200


@pytest.mark.parametrize("read", [read_json, lambda path: read_table(path, ["view"])], ids=["JSON", "table"])
def test_what_is_no_file_is_refused_by_name(tmp_path, read):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "loop"):
        with pytest.raises(ArtifactError, match=rf"{name} (must be|is not) a readable"):
            read(tmp_path / name)
