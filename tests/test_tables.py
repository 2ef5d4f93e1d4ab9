import json
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.records import SourceError
from graft.sections import Table
from graft.tables import table, tally_table

COLUMNS = {"file": "labels.csv", "image": "path", "label": "label", "split": None, "group": None}
HEADER = "path,label,split,group\n"


def columns(**changes):
    return Table(**COLUMNS | changes)


@pytest.fixture
def photos(tmp_path):
    """A folder with three images, which hold their own names."""
    for name in ("a.png", "deep/b.JPG", "größe 1.gif"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(name)
    return tmp_path / "photos"


def write_csv(photos, text, name="labels.csv"):
    (photos / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return photos


def write_parquet(path, data, metadata=None, **options):
    content = pa.table(data)
    pq.write_table(content.replace_schema_metadata(metadata) if metadata else content, path, **options)
    return path


def rows(path, **changes):
    found = table(path, columns(**changes), [])
    return [(record.source, record.label, record.split, record.group) for record in found]


def rejected(path, **changes):
    rejects = []
    list(table(path, columns(**changes), rejects))
    return [(reject.source, reject.label, reject.reason, reject.detail) for reject in rejects]


def message(path, **changes):
    with pytest.raises(SourceError) as caught:
        rows(path, **changes)
    return str(caught.value)


def test_a_csv_names_images_labels_splits_and_groups(photos):
    write_csv(photos, HEADER + "deep/b.JPG,ants,train,7\na.png,bees,Test,\ngröße 1.gif,ants,,7\n")
    assert rows(photos, split="split", group="group") == [
        ("deep/b.JPG", "ants", "train", "7"),
        ("a.png", "bees", "test", None),
        ("größe 1.gif", "ants", None, "7"),
    ]
    assert [row[2:] for row in rows(photos)] == [(None, None)] * 3
    first = next(table(photos, columns(), []))
    assert first.content == photos / "deep/b.JPG"
    assert first.read() == b"deep/b.JPG"


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *((word, "train") for word in ("train", "Training", "TRAIN")),
        *((word, "validation") for word in ("val", "valid", "Validation", "dev")),
        *((word, "test") for word in ("test", " TEST ")),
        ("", None),
        ("  ", None),
    ],
)
def test_words_for_splits(photos, word, split):
    assert rows(write_csv(photos, HEADER + f"a.png,ants,{word},\n"), split="split") == [("a.png", "ants", split, None)]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param(
            "path,label\na.png,007\na.png,NA\na.png,null\na.png,1.0\na.png,True\n", "007 NA null 1.0 True", id="as is"
        ),
        pytest.param("path, label\na.png,  ants \n", "ants", id="blanks around"),
        pytest.param("\ufeffpath,label\na.png,ants\n", "ants", id="byte order mark"),
        pytest.param("path,label\r\na.png,ants\r\n\r\na.png,bees\r\n", "ants bees", id="Windows lines and a blank one"),
        pytest.param('path,label\n"a.png","ants, red"\n', "ants,\u00a0red", id="quoted comma"),
        pytest.param('path,label\na.png,"a ""b"""\n', 'a\u00a0"b"', id="quoted quotes"),
        pytest.param("label,path,label2,x\nants,a.png,bees,\n", "ants", id="order and other columns"),
        pytest.param("path,label", "", id="no rows"),
    ],
)
def test_csv_cells_are_taken_as_they_stand(photos, text, labels):
    found = [label for _, label, _, _ in rows(write_csv(photos, text))]
    assert found == [label.replace("\u00a0", " ") for label in labels.split(" ") if label]


def test_tabs_separate_a_tsv_in_any_case_below_folders(photos):
    (photos / "meta").mkdir()
    write_csv(photos, "path\tlabel\na.png\tants, red\n", "meta/Labels.TSV")
    assert rows(photos, file="meta/Labels.TSV") == [("a.png", "ants, red", None, None)]


def test_rows_that_give_no_record_are_reported_with_a_reason(photos):
    os.mkfifo(photos / "pipe.png")
    (photos / "folder.png").mkdir()
    (photos.parent / "secret.png").write_text("")
    (photos / "link.png").symlink_to("../secret.png")
    (photos / "up").symlink_to("..")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "inside.png").symlink_to("deep/b.JPG")
    names = {
        "missing.png": ("missing-file", f"{photos} has no such file"),
        "a.png/b.png": ("missing-file", f"{photos} has no such file"),
        "x" * 300 + ".png": ("missing-file", f"{photos} has no such file"),
        "deep\\b.png": ("missing-file", f"{photos} has no such file"),
        "nul\0.png": ("missing-file", f"{photos} has no such file"),
        "labels.csv": ("unsupported-extension", "must be one of .jpg .jpeg .jpe .png .bmp .gif .webp .tif .tiff"),
        "deep": ("unsupported-extension", "must be one of .jpg .jpeg .jpe .png .bmp .gif .webp .tif .tiff"),
        "/etc/passwd": ("outside-root", "must be a path below the folder, without .."),
        f"{photos}/a.png": ("outside-root", "must be a path below the folder, without .."),
        "../secret.png": ("outside-root", "must be a path below the folder, without .."),
        "deep/../a.png": ("outside-root", "must be a path below the folder, without .."),
        "link.png": ("outside-root", f"leads to {photos.parent}/secret.png, outside the folder"),
        "up/secret.png": ("outside-root", f"leads to {photos.parent}/secret.png, outside the folder"),
        "loop.png": ("link-loop", "the link leads back to itself"),
        "pipe.png": ("unreadable-file", "not a regular file"),
        "folder.png": ("unreadable-file", "not a regular file"),
    }
    write_csv(photos, "path,label\ninside.png,bees\n" + "".join(f"{name},ants\n" for name in names))
    assert rows(photos) == [("inside.png", "bees", None, None)]
    assert rejected(photos) == [(name.replace("\0", r"\x00"), "ants", *why) for name, why in names.items()]


def test_rows_with_gaps_are_reported_with_a_reason(photos):
    write_csv(photos, HEADER + "a.png,,train,\na.png,  ,,\n,ants,,\n  ,ants,,\na.png,ants,holdout,\n,,,\n")
    words = "must be one of train val valid validation test training dev, received 'holdout'"
    assert rows(photos, split="split") == []
    assert rejected(photos, split="split") == [
        ("a.png", "", "no-label", "column 'label' says nothing"),
        ("a.png", "", "no-label", "column 'label' says nothing"),
        ("labels.csv:000002", "ants", "no-image", "column 'path' says nothing"),
        ("labels.csv:000003", "ants", "no-image", "column 'path' says nothing"),
        ("a.png", "ants", "unknown-split", words),
        ("labels.csv:000005", "", "no-label", "column 'label' says nothing"),
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("", "FILE is empty; its first line must name the columns", id="empty"),
        pytest.param("\n\n", "FILE is empty; its first line must name the columns", id="blank lines"),
        pytest.param(
            "path,class\n", "FILE has no column 'label'; it has: path, class (data.table.label)", id="no label"
        ),
        pytest.param("a;label\n", "FILE has no column 'path'; it has: a;label (data.table.image)", id="semicolons"),
        pytest.param(
            "path,label,label\n", "FILE has more than one column 'label' (data.table.label)", id="label twice"
        ),
        pytest.param("path,label\na.png,a,b\n", "FILE line 2 has 3 field(s), its header has 2", id="too many fields"),
        pytest.param('path,label\n"a\n.png",a\na.png\n', "FILE line 4 has 1 field(s), its header has 2", id="too few"),
        pytest.param('path,label\na.png,"ants\n', "FILE line 2 is not CSV: unexpected end of data", id="open quote"),
        pytest.param('path,label\n"a"b.png,a\n', "FILE line 2 is not CSV: ',' expected after '\"'", id="stray quote"),
        pytest.param(
            f"path,label\na.png,{'x' * 200000}\n",
            "FILE line 2 is not CSV: field larger than field limit (131072)",
            id="huge",
        ),
        pytest.param(
            "path,label\na.png,Bär\n".encode("latin-1"),
            "FILE is not UTF-8: invalid continuation byte at byte 18",
            id="latin-1",
        ),
        pytest.param("path,label\n".encode("utf-16"), "FILE is not UTF-8: invalid start byte at byte 0", id="UTF-16"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + bytes(99), "FILE is not UTF-8: invalid start byte at byte 0", id="an image"
        ),
    ],
)
def test_csv_files_that_are_none_are_refused(photos, text, error):
    assert message(write_csv(photos, text)) == error.replace("FILE", f"{photos}/labels.csv")


def test_a_missing_column_of_splits_or_groups_is_refused_by_its_key(photos):
    write_csv(photos, "path,label\n")
    assert message(photos, split="part").endswith("has no column 'part'; it has: path, label (data.table.split)")
    assert message(photos, group="who").endswith("has no column 'who'; it has: path, label (data.table.group)")


MISPLACED = "PLACE must be the folder that holds a.csv and its images (data.path)"
ABOVE = "data.table.file must be a path below data.path (PLACE), received "
BESIDE = (
    "PLACE holds paths of images: set data.path to PARENT and data.table.file to labels.csv, "
    "so that DVC watches the images too"
)


@pytest.mark.parametrize(
    ("place", "file", "error"),
    [
        pytest.param(
            "photos", None, "PLACE is a folder; data.table.file must name the table in it", id="no file named"
        ),
        pytest.param("photos", "no.csv", "PLACE/no.csv does not exist", id="no such table"),
        pytest.param("no.csv", None, "PLACE does not exist", id="nothing there"),
        pytest.param("photos", "pipe.csv", "PLACE/pipe.csv is no regular file", id="a pipe"),
        pytest.param(
            "photos", "labels.xlsx", "PLACE/labels.xlsx must be a table in a .csv, .tsv or .parquet file", id="Excel"
        ),
        pytest.param("photos", "deep", "PLACE/deep must be a table in a .csv, .tsv or .parquet file", id="no suffix"),
        pytest.param("labels.csv", "a.csv", MISPLACED, id="file in file"),
        pytest.param("nowhere", "a.csv", MISPLACED, id="no folder"),
        pytest.param("photos", "../labels.csv", ABOVE + "../labels.csv", id="above"),
        pytest.param("photos", "/x.csv", ABOVE + "/x.csv", id="absolute"),
        pytest.param("labels.csv", None, BESIDE, id="paths beside the table"),
    ],
)
def test_tables_in_the_wrong_place_are_refused(photos, place, file, error):
    os.mkfifo(photos / "pipe.csv")
    write_csv(photos.parent, "path,label\nphotos/a.png,ants\n")
    place = photos.parent / place
    assert message(place, file=file) == error.replace("PLACE", str(place)).replace("PARENT", str(photos.parent))


def test_parquet_names_images_or_holds_their_bytes(photos):
    data = {"path": ["a.png", None, "deep/b.JPG"], "label": ["ants", "bees", None], "split": [None, "dev", "train"]}
    write_parquet(photos / "t.parquet", data)
    assert rows(photos, file="t.parquet", split="split") == [("a.png", "ants", None, None)]
    assert [reject[:3] for reject in rejected(photos, file="t.parquet", split="split")] == [
        ("t.parquet:000001", "bees", "no-image"),
        ("deep/b.JPG", "", "no-label"),
    ]
    path = write_parquet(photos / "bytes.PARQUET", {"path": [b"one", None, b""], "label": ["ants", "bees", "ants"]})
    assert rows(path, file=None) == [
        ("bytes.PARQUET:000000", "ants", None, None),
        ("bytes.PARQUET:000002", "ants", None, None),
    ]
    assert [record.read() for record in table(path, columns(file=None), [])] == [b"one", b""]
    assert rejected(photos, file="bytes.PARQUET") == [
        ("bytes.PARQUET:000001", "bees", "no-image", "column 'path' says nothing")
    ]


def hugging_face(features):
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def test_hugging_faces_structs_and_class_names_are_read(photos):
    images = [
        {"bytes": b"one", "path": "x.jpg"},
        {"bytes": b"two", "path": None},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"three", "path": "y.jpg"},
        {"bytes": b"four", "path": "y.jpg"},
        {"bytes": b"five", "path": "y.jpg"},
    ]
    labels = pa.array([1, 0, 1, 1, -1, 2, None])
    names = hugging_face({"label": {"names": ["ants", "bees"], "_type": "ClassLabel"}, "image": {"_type": "Image"}})
    path = write_parquet(photos / "hf.parquet", {"image": images, "label": labels}, names)
    given = {"file": None, "image": "image"}
    found = list(table(path, columns(**given), []))
    assert [(record.read(), record.label, record.source) for record in found] == [
        (b"one", "bees", "hf.parquet:000000"),
        (b"two", "ants", "hf.parquet:000001"),
    ]
    assert [reject[1:3] for reject in rejected(path, **given)] == [
        ("bees", "no-image"),
        ("bees", "no-image"),
        ("", "no-label"),
        ("", "no-label"),
        ("", "no-label"),
    ]


def test_a_hugging_face_path_without_bytes_is_a_path(photos):
    data = {"image": [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": "/gone/b.png"}], "label": ["a", "b"]}
    write_parquet(photos / "t.parquet", data)
    found = list(table(photos, columns(file="t.parquet", image="image"), []))
    assert [(record.source, record.read()) for record in found] == [("a.png", b"a.png"), ("t.parquet:000001", b"x")]
    assert "holds paths of images: set data.path to" in message(photos / "t.parquet", file=None, image="image")


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(None, id="none"),
        pytest.param({b"huggingface": b"{"}, id="no JSON"),
        pytest.param({b"huggingface": b"\xff"}, id="no text"),
        pytest.param({b"huggingface": b"[1]"}, id="no object"),
        pytest.param({b"huggingface": b"[" * 100000}, id="deep"),
        pytest.param(hugging_face([]), id="no features"),
        pytest.param(hugging_face({"label": {"dtype": "int64", "_type": "Value"}}), id="no class label"),
        pytest.param(hugging_face({"label": {"names": {"0": "ants"}}}), id="no list"),
        pytest.param(hugging_face({"label": {"names": [None, 1]}}), id="no names"),
    ],
)
def test_numbers_are_labels_where_no_class_names_are_given(photos, metadata):
    path = write_parquet(photos / "t.parquet", {"path": [b"x", b"y"], "label": [0, -1]}, metadata)
    assert [label for _, label, _, _ in rows(path, file=None)] == ["0", "-1"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        pytest.param(pa.array([3, 4, 3]), ["3", "4", "3"], id="integers"),
        pytest.param(pa.array([3.0, None, 4.5]), ["3", None, "4.5"], id="fractions with a gap"),
        pytest.param(pa.array([3.0, float("nan"), float("inf")]), ["3", None, "inf"], id="no number"),
        pytest.param(pa.array([True, False, None]), ["True", "False", None], id="booleans"),
        pytest.param(pa.array(["x ", "", "007"]), ["x", None, "007"], id="text"),
        pytest.param(pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"], id="categories"),
        pytest.param(pa.array(["x", "y", "z"], pa.large_string()), ["x", "y", "z"], id="large text"),
        pytest.param(pa.nulls(3), [None, None, None], id="nothing"),
    ],
)
def test_groups_and_labels_of_any_simple_type_are_text(photos, values, texts):
    path = write_parquet(photos / "t.parquet", {"path": [b"x"] * 3, "label": ["a"] * 3, "who": values})
    assert [group for *_, group in rows(path, file=None, group="who")] == texts
    assert [label for _, label, _, _ in rows(path, file=None, label="who")] == [text for text in texts if text]
    assert len(rejected(path, file=None, label="who")) == texts.count(None)


@pytest.mark.parametrize(
    ("column", "values", "error"),
    [
        pytest.param(
            "path", [1], "paths of images or the bytes of image files, received int64 (data.table.image)", id="numbers"
        ),
        pytest.param(
            "path",
            [[b"x"]],
            "bytes of image files, received list<element: binary> (data.table.image)",
            id="lists of bytes",
        ),
        pytest.param("path", [{"x": b"x"}], "received struct<x: binary> (data.table.image)", id="other structs"),
        pytest.param("path", [{"bytes": 1}], "received int64 (data.table.image)", id="a struct of numbers"),
        pytest.param(
            "label",
            [["a"]],
            "text, integers or booleans, received list<element: string> (data.table.label)",
            id="several labels",
        ),
        pytest.param(
            "label", [b"a"], "text, integers or booleans, received binary (data.table.label)", id="bytes as label"
        ),
        pytest.param("split", [{"a": 1}], "received struct<a: int64> (data.table.split)", id="a struct as split"),
        pytest.param("group", [[1]], "received list<element: int64> (data.table.group)", id="a list as group"),
    ],
)
def test_parquet_columns_of_other_types_are_refused(photos, column, values, error):
    data = {"path": [b"x"], "label": ["a"], "split": ["train"], "group": ["g"]} | {column: values}
    path = write_parquet(photos / "t.parquet", data)
    received = message(path, file=None, split="split", group="group")
    assert received.startswith(f"{path} column {column!r} must hold ")
    assert received.endswith(error)


def test_parquet_without_a_column_is_refused(photos):
    path = write_parquet(photos / "t.parquet", {"image": [b"x"], "y": ["a"]})
    assert message(path, file=None) == f"{path} has no column 'path'; it has: image, y (data.table.image)"
    pq.write_table(pa.table([[b"x"], ["a"], ["b"]], names=["path", "label", "label"]), path)
    assert message(path, file=None) == f"{path} has more than one column 'label' (data.table.label)"


def test_columns_may_have_dots_in_their_names(photos):
    path = write_parquet(photos / "t.parquet", {"a.b": [b"x"], "a": ["y"], "c.d": ["z"]})
    assert rows(path, file=None, image="a.b", label="c.d") == [("t.parquet:000000", "z", None, None)]
    assert rows(path, file=None, image="a.b", label="a") == [("t.parquet:000000", "y", None, None)]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"path,label\n", id="CSV"),
        pytest.param(lambda data: data[:-20], id="cut"),
        pytest.param(lambda data: data[:4] + data[-30:], id="a footer alone"),
        pytest.param(lambda data: data[:4] + b"\xff" * 200 + data[204:], id="damaged pages"),
        pytest.param(lambda data: data[:-8] + b"\xff\xff\xff\x7f" + data[-4:], id="a footer that claims gigabytes"),
        pytest.param(lambda data: data.replace(b"Baer", b"B\xe4er"), id="text that is none"),
    ],
)
def test_damaged_parquet_is_refused(photos, damage):
    path = write_parquet(photos / "t.parquet", {"path": [b"x" * 300], "label": ["Baer"]}, compression="none")
    path.write_bytes(damage(path.read_bytes()))
    assert message(path, file=None).startswith(f"{path} is not a readable Parquet file: ")


def test_parquet_is_read_piece_by_piece(photos):
    count, size = 400, 100_000
    content = pa.table({"path": [bytes([index % 256]) * size for index in range(count)], "label": ["a"] * count})
    pq.write_table(content, photos / "t.parquet", compression="none", use_dictionary=False, write_batch_size=8)
    del content
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    arrow = 0
    for _ in table(photos / "t.parquet", columns(file=None), []):
        arrow = max(arrow, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrow < count * size / 4
    assert python < count * size / 4


def test_the_tally_counts_rows_without_reading_their_images(photos, monkeypatch):
    write_csv(photos, HEADER + "a.png,ants,train,\ndeep/b.JPG,bees,,\na.png,ants,train,\nmissing.png,ants,,\n")
    assert tally_table(photos, columns(split="split")) == {("train", "ants"): 2, (None, "bees"): 1}
    path = write_parquet(photos / "t.parquet", {"path": [b"x", b"y"], "label": ["a", "b"]})
    read = []
    batches = pq.ParquetFile.iter_batches

    def record(self, **options):
        read.extend(options["columns"])
        return batches(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", record)
    assert tally_table(path, columns(file=None)) == {(None, "a"): 1, (None, "b"): 1}
    assert read == ["label"]


def test_one_column_may_serve_twice(photos):
    path = write_parquet(photos / "t.parquet", {"path": [b"x"], "label": ["a"]})
    assert rows(path, file=None, group="label") == [("t.parquet:000000", "a", None, "a")]
