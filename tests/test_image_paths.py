"""What a person names, to files: folders, patterns and their order."""

import os
from pathlib import Path

import pytest

from graft.image_paths import NoFileError, find_files


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photos/ in it."""
    names = ("10.png", "2.png", "b/1.png", "b/c/3.jpg", "a12/x.png", "a2/x.png", ".hidden.png", ".cache/x.png")
    for name in (*names, "Thumbs.db"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = ["2.png", "10.png", "a2/x.png", "a12/x.png", "b/1.png", "b/c/3.jpg"]


@pytest.mark.usefixtures("photos")
def test_a_folder_is_its_files_at_any_depth_in_natural_order_without_hidden_ones() -> None:
    assert find_files(["photos"]) == [f"photos/{name}" for name in ALL]
    assert find_files(["photos/b/"]) == ["photos/b/1.png", "photos/b/c/3.jpg"]


@pytest.mark.usefixtures("photos")
def test_patterns_are_found_here_where_no_shell_did() -> None:
    assert find_files(["photos/*.png"]) == ["photos/2.png", "photos/10.png"]
    assert find_files(["photos/**/*.jpg"]) == ["photos/b/c/3.jpg"]
    assert find_files(["photos/a*"]) == ["photos/a2/x.png", "photos/a12/x.png"]
    assert sorted(find_files(["photos/**"])) == sorted(f"photos/{name}" for name in ALL)


def test_names_keep_their_order_and_a_file_counts_once_by_its_first_name(photos: Path) -> None:
    found = find_files(["photos/b/c/3.jpg", "./photos/b", str(photos / "photos" / "*.png"), "photos"])
    assert found == [
        *("photos/b/c/3.jpg", "./photos/b/1.png", str(photos / "photos/2.png"), str(photos / "photos/10.png")),
        *("photos/a2/x.png", "photos/a12/x.png"),
    ]


def test_what_is_named_itself_is_kept_whatever_it_is(photos: Path) -> None:
    (photos / "photos" / "a[1].png").touch()
    (photos / "dead.png").symlink_to("nowhere")
    os.mkfifo(photos / "photos" / "pipe.png")
    named = ["photos/.hidden.png", "photos/a[1].png", "dead.png", "photos/pipe.png"]
    assert find_files(named) == named
    assert "photos/pipe.png" not in find_files(["photos"])


def test_links_to_folders_are_not_followed_below_a_folder_but_are_when_named(photos: Path) -> None:
    (photos / "photos" / "b" / "loop").symlink_to(photos / "photos")
    (photos / "link").symlink_to(photos / "photos" / "b" / "c")
    assert find_files(["photos"]) == [f"photos/{name}" for name in ALL]
    assert find_files(["link"]) == ["link/3.jpg"]


def test_a_pattern_of_all_folders_follows_no_links_that_lead_back(photos: Path) -> None:
    for name in ("loop", "again"):
        (photos / "photos" / "b" / name).symlink_to(photos / "photos")
    assert find_files(["photos/**/*.jpg"]) == ["photos/b/c/3.jpg"]
    assert find_files([f"{photos}/photos/**/*.jpg"]) == [f"{photos}/photos/b/c/3.jpg"]
    assert find_files(["photos/**"]) == [f"photos/{name}" for name in ALL]
    assert find_files(["**/3.jpg"]) == ["photos/b/c/3.jpg"]


@pytest.mark.usefixtures("photos")
def test_the_file_of_answers_is_no_image() -> None:
    assert find_files(["photos/b"], without=Path("photos/b/../b/1.png")) == ["photos/b/c/3.jpg"]


def test_all_names_that_stand_for_nothing_are_listed(photos: Path) -> None:
    (photos / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(NoFileError) as caught:
        find_files(["photos", "photo", "*.webp", "empty"])
    assert str(caught.value) == "photo does not exist; *.webp matches no file; empty has no files in it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(photos: Path) -> None:
    (photos / "photos" / "b" / "c").chmod(0)
    with pytest.raises(NoFileError, match="photos/b/c cannot be read: Permission denied"):
        find_files(["photos"])
