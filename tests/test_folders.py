import inspect
import os
import socket
import sys

import pytest

from graft import folders
from graft.folders import folder, split_folders, tally_folder
from graft.records import SourceError


def touch(root, *paths):
    """Files that hold their own path; a path that ends in / is a folder."""
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True) if path.endswith("/") else target.write_text(path)
    return root


@pytest.fixture
def photos(tmp_path):
    """Two classes with two images each, in a folder that has a neighbour."""
    touch(tmp_path, "outside/ants/9.png")
    return touch(tmp_path / "photos", "ants/1.png", "ants/2.png", "bees/3.png", "bees/4.png")


def summary(root):
    return [(record.source, record.label, record.split) for record in folder(root, [])]


def sources(root):
    return [source for source, _, _ in summary(root)]


def rejected(root):
    rejects = []
    list(folder(root, rejects))
    assert len({reject.source for reject in rejects}) == len(rejects)
    return {reject.source: (reject.label, reject.reason, reject.detail) for reject in rejects}


def test_a_folder_yields_the_images_of_its_class_folders_by_path(tmp_path):
    root = touch(tmp_path, "bees/b.png", "bees/a.JPG", "ants/1.jpeg", "ants/2.webp", "ants/3.bmp", "ants/4.GIF")
    touch(root, "ants/5.tif", "ants/6.TIFF", "ants/7.jpe")
    assert summary(root) == [
        ("ants/1.jpeg", "ants", None),
        ("ants/2.webp", "ants", None),
        ("ants/3.bmp", "ants", None),
        ("ants/4.GIF", "ants", None),
        ("ants/5.tif", "ants", None),
        ("ants/6.TIFF", "ants", None),
        ("ants/7.jpe", "ants", None),
        ("bees/a.JPG", "bees", None),
        ("bees/b.png", "bees", None),
    ]
    first = next(folder(root, []))
    assert first.content == root / "ants/1.jpeg"
    assert first.read() == b"ants/1.jpeg"
    assert first.group is None


def test_split_folders_become_splits(tmp_path):
    root = touch(tmp_path, "Train/ants/1.png", "val/ants/2.png", "valid/ants/3.png", "validation/ants/4.png")
    touch(root, "TEST/ants/5.png")
    assert summary(root) == [
        ("TEST/ants/5.png", "ants", "test"),
        ("Train/ants/1.png", "ants", "train"),
        ("val/ants/2.png", "ants", "validation"),
        ("valid/ants/3.png", "ants", "validation"),
        ("validation/ants/4.png", "ants", "validation"),
    ]


def test_everything_below_a_class_is_read_in_the_order_of_the_paths_parts(tmp_path):
    root = touch(
        tmp_path, "a/b/c/d/5.png", "a/b.png", "a/b/3.png", "a/b c/6.png", "a/b-/4.png", "a/B/2.png", "ab/7.png"
    )
    expected = ["a/B/2.png", "a/b/3.png", "a/b/c/d/5.png", "a/b c/6.png", "a/b-/4.png", "a/b.png", "ab/7.png"]
    assert sources(root) == expected
    assert expected == sorted(expected, key=lambda path: path.split("/"))
    assert {label for _, label, _ in summary(root)} == {"a", "ab"}


def test_split_names_within_a_class_mean_nothing(tmp_path):
    root = touch(tmp_path, "ants/train/1.png", "ants/val/2.png", "bees/test/3.png")
    assert {(label, split) for _, label, split in summary(root)} == {("ants", None), ("bees", None)}


def test_a_class_may_be_called_like_a_split(tmp_path):
    root = touch(tmp_path, "test/1.png", "production/2.png")
    assert summary(root) == [("production/2.png", "production", None), ("test/1.png", "test", None)]


def test_hidden_files_and_what_systems_leave_do_not_count(tmp_path):
    root = touch(
        tmp_path, "ants/1.png", "ants/.hidden.png", ".cache/2.png", ".DS_Store", "ants/.git/3.png", "ants/.DS_Store"
    )
    touch(root, "__MACOSX/ants/4.png", "ants/__MACOSX/5.png", "ants/Thumbs.db", "ants/desktop.ini", "Thumbs.db")
    assert sources(root) == ["ants/1.png"]
    assert rejected(root) == {}


def test_what_gives_no_record_is_reported_with_a_reason(tmp_path):
    root = touch(tmp_path, "train/ants/1.png", "train/ants/notes.txt", "train/ants/more/README", "train/loose.png")
    touch(root, "test/unlabelled.jpg", "top.gif", "README.md", "val/ants/")
    suffixes = "must be one of .jpg .jpeg .jpe .png .bmp .gif .webp .tif .tiff"
    assert rejected(root) == {
        "train/ants/notes.txt": ("ants", "unsupported-extension", suffixes),
        "train/ants/more/README": ("ants", "unsupported-extension", suffixes),
        "train/loose.png": ("", "outside-class-folder", "no folder says its class"),
        "test/unlabelled.jpg": ("", "outside-class-folder", "no folder says its class"),
        "top.gif": ("", "outside-class-folder", "no folder says its class"),
    }


def test_names_of_any_kind_are_read_and_control_characters_escaped(tmp_path):
    names = [" lead/ trail .png", "Bären/größe.png", "a'b\"c,d;e/$(x).png", "line\nbreak/tab\t.png", "蜂/🐝.png"]
    escaped = [name.replace("\n", r"\n").replace("\t", r"\t") for name in sorted(names)]
    assert sources(touch(tmp_path, *names)) == escaped
    assert [record.read().decode() for record in folder(tmp_path, [])] == sorted(names)


def test_names_that_are_no_utf8_stay_apart_and_can_be_written_to_tables(tmp_path):
    for name in (b"b\xe4r", b"b\xf6r"):
        os.makedirs(os.fsencode(tmp_path) + b"/" + name)
        (tmp_path / os.fsdecode(name) / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    assert summary(tmp_path) == [("b\\xe4r/\\xff.png", "b\\xe4r", None), ("b\\xf6r/\\xff.png", "b\\xf6r", None)]
    assert [record.read() for record in folder(tmp_path, [])] == [b"x", b"x"]
    assert tally_folder(tmp_path) == {(None, "b\\xe4r"): 1, (None, "b\\xf6r"): 1}


def test_links_within_the_folder_are_followed(photos):
    (photos / "ants/copy.png").symlink_to("1.png")
    (photos / "ants/far").symlink_to(photos / "bees")
    (photos / "wasps").symlink_to("bees", target_is_directory=True)
    os.link(photos / "ants/1.png", photos / "ants/hard.png")
    assert sources(photos) == [
        *("ants/1.png", "ants/2.png", "ants/copy.png", "ants/far/3.png", "ants/far/4.png", "ants/hard.png"),
        *("bees/3.png", "bees/4.png", "wasps/3.png", "wasps/4.png"),
    ]
    assert rejected(photos) == {}


def test_the_folder_itself_may_be_a_link(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    (photos / "ants/far").symlink_to(tmp_path / "link/bees")
    assert sources(tmp_path / "link") == sources(photos)
    assert "ants/far/3.png" in sources(photos)


def test_links_out_of_the_folder_are_refused(photos, tmp_path):
    (photos / "ants/file.png").symlink_to(tmp_path / "outside/ants/9.png")
    (photos / "ants/folder").symlink_to("../../outside/ants")
    (photos / "ants/passwd.txt").symlink_to("/etc/passwd")
    (photos / "ants/root").symlink_to("/")
    (photos / "ants/up").symlink_to(tmp_path)
    (photos / "wasps").symlink_to(tmp_path / "outside/ants")
    (tmp_path / "photos-more").mkdir()
    (photos / "ants/neighbour").symlink_to(tmp_path / "photos-more")
    (tmp_path / "back").symlink_to(photos / "bees/3.png")
    (photos / "ants/round.png").symlink_to(tmp_path / "back")
    assert len(sources(photos)) == 5
    assert "ants/round.png" in sources(photos)
    found = rejected(photos)
    assert {source: detail[:2] for source, detail in found.items()} == {
        **{f"ants/{name}": ("ants", "outside-root") for name in ("file.png", "folder", "passwd.txt", "root", "up")},
        "ants/neighbour": ("ants", "outside-root"),
        "wasps": ("wasps", "outside-root"),
    }
    assert found["ants/passwd.txt"][2] == "leads to /etc/passwd, outside the folder"


def test_links_that_lead_back_are_loops(photos):
    (photos / "ants/self.png").symlink_to("self.png")
    (photos / "ants/ping").symlink_to("pong")
    (photos / "ants/pong").symlink_to("ping")
    (photos / "ants/above").symlink_to("..")
    (photos / "ants/here").symlink_to(".")
    (photos / "ants/other").symlink_to("../bees")
    (photos / "bees/other").symlink_to("../ants")
    (photos / "wasps").symlink_to(".")
    (photos / "me").symlink_to("me")
    found = {source: detail[:2] for source, detail in rejected(photos).items()}
    assert set(found) >= {"ants/other/other", "bees/other/other", "wasps", "me"}
    assert found["wasps"] == ("wasps", "link-loop")
    assert found["me"] == ("", "link-loop")
    for name in ("self.png", "ping", "pong", "above", "here"):
        assert found[f"ants/{name}"] == ("ants", "link-loop")
    assert set(found.values()) == {
        ("ants", "link-loop"),
        ("bees", "link-loop"),
        ("wasps", "link-loop"),
        ("", "link-loop"),
    }
    assert len(sources(photos)) == 8
    assert rejected(photos)["ants/above"][2] == "the link leads to a folder that it stands in"
    assert rejected(photos)["ants/self.png"][2] == "the link leads back to itself"


def test_links_that_fan_out_do_not_multiply_the_images(photos):
    for level in range(40):  # 2 ** 40 paths without a loop
        (photos / f"ants/{level:02d}").mkdir()
        for name in "ab":
            (photos / f"ants/{level:02d}/{name}").symlink_to(f"../{level + 1:02d}")
    touch(photos, "ants/40/x.png")
    assert len(sources(photos)) < 100
    assert {reason for _, reason, _ in rejected(photos).values()} == {"link-loop"}
    assert "another link of this class leads to" in rejected(photos)["ants/00/b"][2]


def test_broken_links_pipes_and_sockets_are_reported_and_never_opened(photos):
    (photos / "ants/broken.png").symlink_to(photos / "nowhere.png")
    (photos / "ants/below-a-file.png").symlink_to(photos / "bees/3.png/x.png")
    (photos / "broken").symlink_to("nowhere")
    os.mkfifo(photos / "ants/pipe.png")
    os.mkfifo(photos / "pipe.png")
    (photos / "ants/to-pipe.png").symlink_to("pipe.png")
    here = os.getcwd()
    os.chdir(photos)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("ants/socket.png")
    finally:
        os.chdir(here)
    assert len(sources(photos)) == 4
    found = rejected(photos)
    assert {source: detail[:2] for source, detail in found.items()} == {
        **{
            f"ants/{name}.png": ("ants", "unreadable-file")
            for name in ("broken", "below-a-file", "pipe", "to-pipe", "socket")
        },
        "broken": ("", "unreadable-file"),
        "pipe.png": ("", "unreadable-file"),
    }
    assert found["ants/broken.png"][2] == "the link leads nowhere: No such file or directory"
    assert found["ants/pipe.png"][2] == "neither a file nor a folder"


def test_a_link_to_a_device_is_refused(photos):
    (photos / "ants/zero.png").symlink_to("/dev/zero")
    assert rejected(photos)["ants/zero.png"][1] == "outside-root"


def test_folders_deeper_than_python_recurses_are_read(photos):
    touch(photos, "ants/" + "d/" * 300 + "9.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(context=0)) + 100)
    try:
        found = sources(photos)
    finally:
        sys.setrecursionlimit(limit)
    assert len(found) == 5


def test_what_stands_too_deep_to_be_named_is_reported(photos, monkeypatch):
    monkeypatch.chdir(photos / "ants")
    for _ in range(20):  # a path has at most 4,096 bytes
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    assert len(sources(photos)) == 4
    assert list(rejected(photos).values()) == [("ants", "unreadable-file", "File name too long")]


def test_a_folder_that_cannot_be_listed_does_not_stop_the_others(photos, monkeypatch):
    touch(photos, "ants/more/5.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    assert len(sources(photos)) == 4
    assert rejected(photos) == {"ants/more": ("ants", "unreadable-file", "Permission denied")}
    monkeypatch.setattr(folders.os, "scandir", lambda path: refuse("more"))
    with pytest.raises(SourceError, match="photos cannot be read: Permission denied"):
        sources(photos)


def test_the_tally_has_classes_without_images(tmp_path):
    root = touch(tmp_path, "train/ants/1.png", "train/ants/x/2.png", "train/bees/", "val/ants/a.txt", "val/wasps/3.gif")
    assert dict(tally_folder(root)) == {
        ("train", "ants"): 2,
        ("train", "bees"): 0,
        ("validation", "ants"): 0,
        ("validation", "wasps"): 1,
    }


def test_the_tally_has_a_class_whose_folder_is_refused(photos, tmp_path):
    (photos / "wasps").symlink_to(tmp_path / "outside/ants")
    assert tally_folder(photos)[None, "wasps"] == 0
    assert (None, "wasps") in tally_folder(photos)


def test_the_folders_of_splits_are_named_as_they_stand(tmp_path):
    root = touch(tmp_path, "Train/ants/1.png", "val/ants/2.png")
    assert split_folders(root) == {"train": f"{root}/Train", "validation": f"{root}/val"}
    assert split_folders(root / "Train") == {None: f"{root}/Train"}
    assert split_folders(root, "photos.zip") == {"train": "photos.zip/Train", "validation": "photos.zip/val"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        pytest.param([], "ROOT has no class folders; images belong into ROOT/<class>/", id="nothing"),
        pytest.param(["1.png"], "ROOT has no class folders; images belong into ROOT/<class>/", id="images alone"),
        pytest.param([".ants/1.png"], "ROOT has no class folders; images belong into ROOT/<class>/", id="hidden"),
        pytest.param(
            ["Train/1.png", "val/"],
            "ROOT has no class folders; images belong into ROOT/Train/<class>/",
            id="splits alone",
        ),
        pytest.param(
            ["train/ants/1.png", "bees/2.png", "wasps/3.png"],
            "ROOT has train/ with folders in it beside bees, wasps: splits or classes?",
            id="splits beside classes",
        ),
    ],
)
def test_folders_without_classes_are_refused(tmp_path, paths, message):
    root = tmp_path / "photos"
    root.mkdir()
    touch(root, *paths)
    for read in (sources, tally_folder, split_folders):
        with pytest.raises(SourceError) as caught:
            read(root)
        assert str(caught.value) == message.replace("ROOT", f"{tmp_path}/photos")


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(
        SourceError, match="nowhere does not exist; it must be a folder with one folder of images per class"
    ):
        sources(tmp_path / "nowhere")
    (tmp_path / "data.zip").write_text("")
    with pytest.raises(SourceError, match=r"data.zip must be a folder with .* per class, received a file"):
        sources(tmp_path / "data.zip")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        pytest.param("../../outside", "leads to .*/outside, outside the folder", id="outside"),
        pytest.param(".", "the link leads to a folder that it stands in", id="loop"),
    ],
)
def test_a_split_that_cannot_be_used_is_no_split_that_is_missing(tmp_path, target, why):
    touch(tmp_path, "outside/ants/9.png")
    root = touch(tmp_path / "sets/photos", "train/ants/1.png", "train/bees/1.png")
    (root / "val").symlink_to(target)
    with pytest.raises(SourceError, match=f"photos/val cannot be used: {why}"):
        sources(root)


def test_messages_call_the_folder_what_they_are_told(tmp_path):
    with pytest.raises(SourceError, match=r"^photos.zip has no class folders; images belong into photos.zip/<class>/$"):
        list(folder(tmp_path, [], "photos.zip"))


@pytest.mark.real_data
def test_real_photographs_are_all_found(photographs):
    assert dict(tally_folder(photographs)) == {
        ("train", "ants"): 124,
        ("train", "bees"): 121,
        ("validation", "ants"): 70,
        ("validation", "bees"): 83,
    }
    assert rejected(photographs) == {}
