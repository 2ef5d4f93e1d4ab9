import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from graft import sources
from graft.images import decode
from graft.sources import SourceError, check_folder, digits, folder


def touch(root, *paths):
    """Files that hold their own path; a path that ends in / is a folder."""
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True) if path.endswith("/") else target.write_text(path)
    return root


def summary(root):
    return [(record.source, record.label, record.split) for record in folder(root)]


def rejected(root):
    rejects = []
    list(folder(root, rejects))
    return {reject.source: (reject.label, reject.reason) for reject in rejects}


def test_digits_are_scikit_learns_in_its_order():
    records = list(digits())
    assert len(records) == 1797
    assert [record.source for record in records[:2]] == ["digits/0000", "digits/0001"]
    assert [record.label for record in records[:12]] == list("012345678901")
    expected = np.rint(load_digits().images[0] * 255 / 16)
    for channel in range(3):
        np.testing.assert_array_equal(decode(records[0].content)[..., channel], expected)


def test_glyphs_are_encoded_without_loss(monkeypatch):
    glyph = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rendered = SimpleNamespace(render_glyphs=lambda per_class, seed: [("a", glyph)] * per_class + [("b", glyph + seed)])
    monkeypatch.setitem(sys.modules, "graft.glyphs", rendered)
    records = list(sources.glyphs(per_class=2, seed=7))
    assert [(record.label, record.source) for record in records] == [
        ("a", "glyphs/000000"),
        ("a", "glyphs/000001"),
        ("b", "glyphs/000002"),
    ]
    np.testing.assert_array_equal(decode(records[2].content)[..., 0], glyph + 7)


def test_a_folder_yields_the_images_of_its_class_folders_by_path(tmp_path):
    root = touch(tmp_path, "bees/b.png", "bees/a.JPG", "ants/1.jpeg", "ants/2.webp", "ants/3.bmp", "ants/4.GIF")
    assert summary(root) == [
        ("ants/1.jpeg", "ants", None),
        ("ants/2.webp", "ants", None),
        ("ants/3.bmp", "ants", None),
        ("ants/4.GIF", "ants", None),
        ("bees/a.JPG", "bees", None),
        ("bees/b.png", "bees", None),
    ]
    assert next(folder(root)).content == b"ants/1.jpeg"


def test_split_folders_become_splits(tmp_path):
    root = touch(tmp_path, "Train/ants/1.png", "val/ants/2.png", "valid/ants/3.png", "validation/ants/4.png")
    touch(root, "test/ants/5.png")
    assert summary(root) == [
        ("Train/ants/1.png", "ants", "train"),
        ("test/ants/5.png", "ants", "test"),
        ("val/ants/2.png", "ants", "validation"),
        ("valid/ants/3.png", "ants", "validation"),
        ("validation/ants/4.png", "ants", "validation"),
    ]


def test_a_class_may_be_called_like_a_split(tmp_path):
    root = touch(tmp_path, "test/1.png", "production/2.png")
    assert summary(root) == [("production/2.png", "production", None), ("test/1.png", "test", None)]


def test_splits_beside_classes_are_refused(tmp_path):
    root = touch(tmp_path, "train/ants/1.png", "bees/2.png")
    with pytest.raises(SourceError, match="train/ with folders in it beside bees: splits or classes"):
        summary(root)


def test_hidden_files_do_not_count(tmp_path):
    root = touch(tmp_path, "ants/1.png", "ants/.hidden.png", ".cache/2.png", ".DS_Store")
    assert summary(root) == [("ants/1.png", "ants", None)]
    assert rejected(root) == {}


def test_what_gives_no_record_is_reported_with_a_reason(tmp_path):
    root = touch(tmp_path, "train/ants/1.png", "train/ants/notes.txt", "train/ants/more/2.png", "train/loose.png")
    touch(root, "test/unlabelled.jpg", "top.gif", "README.md")
    (root / "train/ants/broken.png").symlink_to(root / "nowhere.png")
    assert summary(root) == [("train/ants/1.png", "ants", "train")]
    assert rejected(root) == {
        "train/ants/notes.txt": ("ants", "unsupported-extension"),
        "train/ants/more": ("ants", "nested-folder"),
        "train/ants/broken.png": ("ants", "unreadable-file"),
        "train/loose.png": ("", "outside-class-folder"),
        "test/unlabelled.jpg": ("", "outside-class-folder"),
        "top.gif": ("", "outside-class-folder"),
    }


def test_an_unreadable_file_does_not_stop_the_others(tmp_path, monkeypatch):
    root = touch(tmp_path, "ants/1.png", "ants/2.png")
    read = type(root).read_bytes

    def refuse(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(type(root), "read_bytes", refuse)
    assert summary(root) == [("ants/2.png", "ants", None)]
    assert rejected(root) == {"ants/1.png": ("ants", "unreadable-file")}


def test_names_that_are_no_utf8_can_still_be_written_to_tables(tmp_path):
    os.makedirs(os.fsencode(tmp_path / "b") + b"\xe4r")
    (tmp_path / os.fsdecode(b"b\xe4r") / "1.png").write_bytes(b"x")
    assert summary(tmp_path) == [("b\ufffdr/1.png", "b\ufffdr", None)]


@pytest.mark.parametrize(
    ("source", "count"), [pytest.param("digits", 1797, id="digits"), pytest.param("folder", 24, id="folder")]
)
def test_records_come_from_the_source_that_a_section_names(source, count, image_folder):
    section = SimpleNamespace(source=source, path=image_folder)
    assert sum(1 for _ in sources.records(section, seed=1, rejects=[])) == count


def many(name, count):
    return [f"{name}/{index}.png" for index in range(count)]


@pytest.mark.parametrize(
    ("paths", "test", "count"),
    [
        pytest.param([*many("ants", 2), *many("bees", 2)], False, 4, id="two of each for train and validation"),
        pytest.param([*many("ants", 3), *many("bees", 9)], True, 12, id="three of each with a test split"),
        pytest.param(
            [f"{split}/{name}/1.png" for split in ("train", "val", "test") for name in ("ants", "bees")],
            True,
            6,
            id="one of each in every split",
        ),
        pytest.param(
            ["train/ants/1.png", "train/bees/1.png", "val/ants/1.png", "val/bees/1.png", "test/ants/1.png"],
            False,
            5,
            id="a test folder that is not wanted may lack a class",
        ),
    ],
)
def test_folders_that_can_be_split_pass_with_their_number_of_images(tmp_path, paths, test, count):
    assert check_folder(touch(tmp_path, *paths), test=test).total() == count


@pytest.mark.parametrize(
    ("paths", "test", "message"),
    [
        pytest.param([], False, "has no class folders", id="nothing"),
        pytest.param(["1.png", "2.png"], False, "has no class folders; images belong into", id="no class folders"),
        pytest.param(many("ants", 5), False, "one class only, 'ants'; there must be at least two", id="one class"),
        pytest.param(
            [*many("ants", 5), "bees/", *many("wasps", 5)],
            False,
            r"class 'bees' has 0 image\(s\) in \S+/bees, needs at least 2 \(train, validation\)",
            id="an empty class",
        ),
        pytest.param([*many("ants", 5), "bees/notes.txt"], False, "class 'bees' has 0 ", id="no image files"),
        pytest.param([*many("ants", 5), "bees/1.png"], False, "class 'bees' has 1 ", id="a class with one image"),
        pytest.param(
            [*many("ants", 5), *many("bees", 2)],
            True,
            r"class 'bees' has 2 image\(s\) in \S+/bees, needs at least 3 \(train, validation, test\)",
            id="too few for a test split",
        ),
        pytest.param(
            [*many("train/ants", 5), *many("train/bees", 5), *many("val/ants", 5)],
            False,
            r"class 'bees' has 0 image\(s\) in \S+/val/bees, needs at least 1",
            id="a class that validation lacks",
        ),
        pytest.param(
            [*many("train/ants", 5), *many("val/ants", 5), *many("val/bees", 5)],
            True,
            r"class 'bees' has 0 image\(s\) in \S+/train/bees, needs at least 2 \(train, test\)",
            id="a class that training lacks",
        ),
        pytest.param(
            [*many("val/ants", 5), *many("val/bees", 5)],
            False,
            "folders in validation but none in train",
            id="no train",
        ),
    ],
)
def test_folders_that_cannot_be_split_are_refused_by_name_count_and_place(tmp_path, paths, test, message):
    with pytest.raises(SourceError, match=message) as caught:
        check_folder(touch(tmp_path, *paths), test=test)
    assert str(tmp_path) in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path):
    root = touch(tmp_path, "ants/1.png", *many("bees", 5), "wasps/")
    with pytest.raises(SourceError, match=r"(?s)'ants' has 1 .*'wasps' has 0 "):
        check_folder(root)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere does not exist"):
        check_folder(tmp_path / "nowhere")
    (tmp_path / "data.zip").write_text("")
    with pytest.raises(SourceError, match=r"data.zip must be a folder .* received a file"):
        check_folder(tmp_path / "data.zip")
