import io
import pickle
import sys
import zipfile
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from graft import sources
from graft.records import Record, SourceError
from graft.sections import Table
from graft.sources import check_counts, check_source, digits, records, tally

COLUMNS = Table(file="labels.csv", image="path", label="label", split="split", group=None)


def touch(root, *paths):
    """Empty files; a path that ends in / is a folder."""
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if path.endswith("/") else target.touch()
    return root


def packed(root):
    """A zip of a folder, beside it."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as target:
        for file in sorted(root.rglob("*")):
            target.write(file, file.relative_to(root.parent))
    return root.with_suffix(".zip")


def grey(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_digits_are_scikit_learns_in_its_order():
    found = list(digits())
    assert len(found) == 1797
    assert [record.source for record in found[:2]] == ["digits/0000", "digits/0001"]
    assert [record.label for record in found[:12]] == list("012345678901")
    np.testing.assert_array_equal(grey(found[0].read()), np.rint(load_digits().images[0] * 255 / 16))


def test_glyphs_are_encoded_without_loss(monkeypatch):
    glyph = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rendered = SimpleNamespace(render_glyphs=lambda per_class, seed: [("a", glyph)] * per_class + [("b", glyph + seed)])
    monkeypatch.setitem(sys.modules, "graft.glyphs", rendered)
    found = list(sources.glyphs(per_class=2, seed=7))
    assert [(record.label, record.source) for record in found] == [
        ("a", "glyphs/000000"),
        ("a", "glyphs/000001"),
        ("b", "glyphs/000002"),
    ]
    np.testing.assert_array_equal(grey(found[2].read()), glyph + 7)


def test_a_record_reads_its_bytes_or_its_file_also_in_another_process(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    for content in (b"x", tmp_path / "1.png"):
        record = Record(content, "ants", None, None, "1.png")
        assert pickle.loads(pickle.dumps(record)) == record
        assert record.read() == b"x"
    with pytest.raises(FileNotFoundError):
        Record(tmp_path / "2.png", "ants", None, None, "2.png").read()


@pytest.fixture
def photos(tmp_path):
    """A folder that its table describes too: ants and bees for training, a wasp without a split."""
    root = touch(tmp_path / "photos", "train/ants/1.png", "train/ants/2.png", "train/bees/3.png", "test/ants/", "x.jpg")
    (root / "labels.csv").write_text(
        "path,label,split\ntrain/ants/1.png,ants,train\ntrain/bees/3.png,bees,dev\nx.jpg,wasps,\nno.png,ants,\n"
    )
    return root


def section_of(source, root):
    return SimpleNamespace(source=source, path=packed(root) if source == "archive" else root, table=COLUMNS)


@pytest.mark.parametrize(
    ("source", "found", "rejected"),
    [
        pytest.param("folder", ["train/ants/1.png", "train/ants/2.png", "train/bees/3.png"], ["x.jpg"], id="folder"),
        pytest.param("archive", ["train/ants/1.png", "train/ants/2.png", "train/bees/3.png"], ["x.jpg"], id="archive"),
        pytest.param("table", ["train/ants/1.png", "train/bees/3.png", "x.jpg"], ["no.png"], id="table"),
    ],
)
def test_records_come_from_the_source_that_a_section_names(tmp_path, photos, source, found, rejected):
    rejects = []
    section = section_of(source, photos)
    assert [record.source for record in records(section, 1, rejects, tmp_path)] == found
    assert [reject.source for reject in rejects] == rejected


def test_what_is_embedded_or_rendered_needs_no_path(tmp_path):
    assert sum(1 for _ in records(SimpleNamespace(source="digits"), 1, [], tmp_path)) == 1797
    first = next(records(SimpleNamespace(source="glyphs", images_per_class=1), 1, [], tmp_path))
    again = next(records(SimpleNamespace(source="glyphs", images_per_class=1), 1, [], tmp_path))
    assert first == again


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        *(
            pytest.param(source, {("train", "ants"): 2, ("train", "bees"): 1, ("test", "ants"): 0}, id=source)
            for source in ("folder", "archive")
        ),
        pytest.param("table", {("train", "ants"): 1, ("validation", "bees"): 1, (None, "wasps"): 1}, id="table"),
        pytest.param(
            "digits", {(None, str(digit)): n for digit, n in enumerate(np.bincount(load_digits().target))}, id="digits"
        ),
    ],
)
def test_the_tally_counts_without_decoding(tmp_path, photos, source, counts):
    assert dict(tally(section_of(source, photos), tmp_path)) == counts


def per_class(counts):
    """Counts by split and class from `split: {class: images}`."""
    return Counter({(split, name): n for split, classes in counts.items() for name, n in classes.items()})


@pytest.mark.parametrize(
    ("counts", "split", "test"),
    [
        pytest.param({None: {"a": 2, "b": 2}}, "stratified", False, id="two of each for train and validation"),
        pytest.param({None: {"a": 3, "b": 9}}, "kfold", True, id="three of each with a test split"),
        pytest.param({"train": {"a": 1, "b": 2}, "test": {"a": 2, "b": 1}}, "stratified", True, id="pooled"),
        pytest.param({None: {"a": 1, "b": 1}}, "hash", True, id="hash takes what comes"),
        pytest.param({None: {"a": 1, "b": 1}}, "group", True, id="group takes what comes"),
        pytest.param(
            {split: {"a": 1, "b": 1} for split in ("train", "validation", "test")}, "predefined", True, id="all given"
        ),
        pytest.param(
            {"train": {"a": 1, "b": 1}, "validation": {"a": 1, "b": 1}, "test": {"a": 1}},
            "predefined",
            False,
            id="a test split that is not wanted may lack a class",
        ),
        pytest.param({"train": {"a": 3, "b": 3}}, "predefined", True, id="both others drawn from train"),
        pytest.param(
            {None: {"a": 2, "b": 1}, "train": {"b": 1}, "test": {"a": 1, "b": 1}},
            "predefined",
            True,
            id="none is train",
        ),
    ],
)
def test_classes_that_can_be_in_every_split_pass(counts, split, test):
    check_counts(per_class(counts), "photos", split, test)


@pytest.mark.parametrize(
    ("counts", "split", "test", "message"),
    [
        pytest.param({}, "stratified", True, "PLACE has no labelled images", id="nothing"),
        pytest.param(
            {None: {"a": 5}}, "stratified", True, "PLACE has one class only, 'a'; there must be at least two", id="one"
        ),
        pytest.param(
            {None: {"a": 5, "b": 2}},
            "stratified",
            True,
            "class 'b' has 2 image(s) in PLACE, needs at least 3 (train, validation, test)",
            id="too few for a test split",
        ),
        pytest.param(
            {None: {"a": 5, "b": 1}},
            "kfold",
            False,
            "class 'b' has 1 image(s) in PLACE, needs at least 2 (train, validation)",
            id="too few for validation",
        ),
        pytest.param(
            {"train": {"a": 1, "b": 3}, "test": {"a": 1}},
            "stratified",
            True,
            "class 'a' has 2 image(s) in PLACE, needs at least 3 (train, validation, test)",
            id="pooled",
        ),
        pytest.param(
            {None: {"a": 1, "b": 0}}, "hash", True, "class 'b' has 0 image(s) in PLACE, needs at least 1", id="empty"
        ),
        pytest.param(
            {None: {"a": 5, "b": 5}},
            "predefined",
            True,
            "PLACE says of no image in which split it is, which split: predefined needs",
            id="no splits",
        ),
        pytest.param(
            {"validation": {"a": 5, "b": 5}, "test": {"a": 5, "b": 5}},
            "predefined",
            True,
            "PLACE has images in test, validation but none in train",
            id="no train",
        ),
        pytest.param(
            {"train": {"a": 5, "b": 5}, "validation": {"a": 5}},
            "predefined",
            False,
            "class 'b' has 0 image(s) for validation in PLACE, needs at least 1",
            id="a class that validation lacks",
        ),
        pytest.param(
            {"train": {"a": 5}, "validation": {"a": 5, "b": 5}},
            "predefined",
            True,
            "class 'b' has 0 image(s) for train in PLACE, needs at least 2 (train, test)",
            id="a class that training lacks",
        ),
        pytest.param(
            {"train": {"a": 5}, "validation": {"a": 5, "b": 5}},
            "predefined",
            False,
            "class 'b' has 0 image(s) for train in PLACE, needs at least 1",
            id="a class that training lacks, with nothing to draw",
        ),
    ],
)
def test_classes_that_cannot_be_in_every_split_are_refused(counts, split, test, message):
    with pytest.raises(SourceError) as caught:
        check_counts(per_class(counts), "photos.csv", split, test)
    expected = message.replace("PLACE", "photos.csv")
    assert str(caught.value) in (expected, f"photos.csv cannot be split:\n  {expected}")


def test_all_faults_are_named_at_once():
    counts = per_class({"train": {"a": 1, "b": 5, "c": 0}, "test": {"a": 0, "b": 0, "c": 0}})
    with pytest.raises(SourceError) as caught:
        check_counts(counts, "photos.zip", "predefined", test=True)
    assert str(caught.value).splitlines() == [
        "photos.zip cannot be split:",
        "  class 'a' has 1 image(s) for train in photos.zip, needs at least 2 (train, validation)",
        "  class 'c' has 0 image(s) for train in photos.zip, needs at least 2 (train, validation)",
        "  class 'a' has 0 image(s) for test in photos.zip, needs at least 1",
        "  class 'b' has 0 image(s) for test in photos.zip, needs at least 1",
        "  class 'c' has 0 image(s) for test in photos.zip, needs at least 1",
    ]


def many(name, count):
    return [f"{name}/{index}.png" for index in range(count)]


@pytest.mark.parametrize(
    ("paths", "split", "test", "message"),
    [
        pytest.param(
            [*many("ants", 5), "bees/", *many("wasps", 5)],
            "stratified",
            False,
            "class 'bees' has 0 image(s) in ROOT/bees, needs at least 2 (train, validation)",
            id="an empty class",
        ),
        pytest.param(
            [*many("ants", 5), "bees/notes.txt"],
            "stratified",
            True,
            "class 'bees' has 0 image(s) in ROOT/bees, needs at least 3 (train, validation, test)",
            id="no image files",
        ),
        pytest.param(
            [*many("Train/ants", 5), "Train/bees/1.png"],
            "predefined",
            True,
            "class 'bees' has 1 image(s) in ROOT/Train/bees, needs at least 3 (train, validation, test)",
            id="too few to draw from",
        ),
        pytest.param(
            [*many("train/ants", 5), *many("train/bees", 5), *many("val/ants", 5)],
            "predefined",
            False,
            "class 'bees' has 0 image(s) in ROOT/val/bees, needs at least 1",
            id="a class that validation lacks",
        ),
        pytest.param(
            [*many("train/ants", 5), *many("train/bees", 1), *many("val/bees", 1)],
            "stratified",
            True,
            "class 'bees' has 2 image(s) in ROOT, needs at least 3 (train, validation, test)",
            id="pooled over splits",
        ),
    ],
)
def test_a_folder_is_refused_by_class_count_and_place(tmp_path, paths, split, test, message):
    section = SimpleNamespace(source="folder", path=touch(tmp_path / "photos", *paths))
    with pytest.raises(SourceError) as caught:
        check_source(section, tmp_path, split, test)
    assert str(caught.value) == f"ROOT cannot be split:\n  {message}".replace("ROOT", f"{tmp_path}/photos")


def test_a_source_that_passes_gives_its_tally(tmp_path, photos):
    assert check_source(section_of("archive", photos), tmp_path, "hash", False).total() == 3
    assert check_source(section_of("table", photos), tmp_path, "group", True).total() == 3
    assert check_source(section_of("digits", photos), tmp_path, "stratified", True).total() == 1797


def test_archives_and_tables_are_refused_by_their_path(tmp_path, photos):
    for source, path in (("archive", photos.with_suffix(".zip")), ("table", photos)):
        with pytest.raises(SourceError) as caught:
            check_source(section_of(source, photos), tmp_path, "stratified", True)
        assert f"class 'bees' has 1 image(s) in {path}, needs at least 3 (train, validation, test)" in str(caught.value)


def test_a_column_of_numbers_as_labels_does_not_flood_the_screen():
    with pytest.raises(SourceError) as caught:
        check_counts({(None, f"{number:04d}"): 1 for number in range(1000)}, "a.csv", "stratified", True)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[20].startswith("  class '0019' has 1 image(s) in a.csv")
    assert lines[21] == "  and 980 more"
