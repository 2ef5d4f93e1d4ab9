import os
import shutil
import warnings

import pytest
import yaml
from dvc.repo import Repo

from graft.dvc_cache import open_cache
from graft.errors import GraftError

OUTPUTS = ("out", "outer", "page.html")


@pytest.fixture(params=["copy"])
def root(request, tmp_path):
    """A project whose cache holds a folder, which is no longer in the working directory, and two files."""
    root = tmp_path / "a project"
    (root / "out" / "deep").mkdir(parents=True)
    for path, text in (("out/one", "1\n"), ("out/deep/two", "2\n"), ("outer", "2\n"), ("page.html", "page\n")):
        (root / path).write_text(text)
    Repo.init(str(root), no_scm=True).close()
    (root / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n[cache]\n    type = {request.param}\n    dir = {tmp_path / 'elsewhere'}\n"
    )
    with Repo(str(root)) as repo, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what DVC calls
        repo.add([str(root / path) for path in OUTPUTS])
    shutil.rmtree(root / "out")
    return root


def hashes(root):
    return {path: yaml.safe_load((root / f"{path}.dvc").read_text())["outs"][0]["md5"] for path in OUTPUTS}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("root", ["copy", "hardlink", "symlink"], indirect=True)
def test_outputs_come_back_whole_or_in_part_as_files_of_their_own(root, tmp_path):
    cached = {path: path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()}
    copied = tmp_path / "copied"
    with open_cache(root) as cache:
        for path in ("out", "page.html"):
            assert cache.copy(path, hashes(root), copied / path)
        assert cache.copy("out/deep", hashes(root), copied / "part")
        assert cache.copy("out/deep/two", hashes(root), copied / "two")
    assert contents(copied) == {
        **{"out/one": "1\n", "out/deep/two": "2\n", "page.html": "page\n", "part/two": "2\n", "two": "2\n"}
    }
    for path in copied.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or (os.access(path, os.W_OK) and path.stat().st_nlink == 1 and path.stat().st_mode & 0o200)
    (copied / "page.html").write_text("changed")
    assert {path: path.read_bytes() for path in cached} == cached


def test_what_is_not_among_the_outputs_is_not_there(root, tmp_path):
    with open_cache(root) as cache:
        for path in ("other", "out/absent", "ou", "page.html/inside"):
            assert not cache.copy(path, hashes(root), tmp_path / "copied")
    assert not (tmp_path / "copied").exists()


@pytest.mark.parametrize("damage", ["file", "listing", "half a file"])
def test_a_folder_of_which_a_part_is_gone_is_not_written_at_all(root, tmp_path, damage):
    md5s = hashes(root)
    one = next(path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file() and path.read_text() == "1\n")
    lost = one if "file" in damage else next((tmp_path / "elsewhere").rglob("*.dir"))
    lost.chmod(0o600)
    lost.write_text("") if damage == "half a file" else lost.unlink()
    with open_cache(root) as cache:
        assert not cache.copy("out", md5s, tmp_path / "copied")
        assert not cache.copy("out/one", md5s, tmp_path / "copied")
        assert not (tmp_path / "copied").exists()
        assert cache.copy("out/deep/two", md5s, tmp_path / "copied") == (damage != "listing")


def test_a_folder_without_dvc_is_refused(tmp_path):
    with pytest.raises(GraftError, match=f"{tmp_path} must be a DVC project"), open_cache(tmp_path):
        pass
