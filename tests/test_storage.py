import pandas as pd
import pytest

from graft.storage import ArtifactError, new_file, new_folder, read_json, read_table, write_json, write_table


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
