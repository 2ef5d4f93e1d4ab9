from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from graft import finished_work
from graft.finished_work import forget, put_away, take_back
from graft.run_keys import lock_key

ENTRY = {"cmd": "python train.py", "deps": [{"path": "data", "md5": "d41d8"}], "params": {"params.yaml": {"seed": 1}}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "finetune@vgg16")
    return tmp_path


def work(root: Path, key: str) -> Path:
    folder = root / ".work" / key
    folder.mkdir(parents=True)
    (folder / "weights").write_text(key)
    return folder


def lock(*entries: object) -> None:
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": dict(enumerate(entries))}))


def test_finished_work_comes_back_as_it_was(here: Path) -> None:
    folder = work(here, "k1")
    put_away(folder)
    assert not folder.exists()
    take_back(folder)
    assert (folder / "weights").read_text() == "k1"
    take_back(folder)  # nothing is kept any more
    assert (folder / "weights").read_text() == "k1"


def test_work_that_has_begun_anew_is_not_replaced(here: Path) -> None:
    put_away(work(here, "k1"))
    folder = work(here, "k1")
    (folder / "weights").write_text("new")
    take_back(folder)
    assert (folder / "weights").read_text() == "new"
    put_away(folder)
    take_back(folder)
    assert (folder / "weights").read_text() == "new"


def test_only_what_dvc_knows_of_is_forgotten(here: Path) -> None:
    known = lock_key(ENTRY)
    for key in (known, "k2"):
        put_away(work(here, key))
    forget(here / ".work")  # there is no dvc.lock yet
    lock(ENTRY | {"cmd": "python other.py"})
    forget(here / ".work")
    assert sorted(path.name for path in (here / ".work").iterdir()) == sorted([f"done-{known}", "done-k2"])
    lock(ENTRY, ENTRY | {"outs": [{"path": "model", "md5": "0cc17"}]})
    forget(here / ".work")
    assert [path.name for path in (here / ".work").iterdir()] == ["done-k2"]


def test_nothing_is_kept_for_ever(here: Path) -> None:
    """An experiment in a copy takes its dvc.lock with it."""
    for key, days in (("k1", 8), ("k2", 6)):
        folder = work(here, key)
        put_away(folder)
        changed = time.time() - days * 86_400
        os.utime(folder.with_name(f"done-{key}"), (changed, changed))
    forget(here / ".work")
    assert [path.name for path in (here / ".work").iterdir()] == ["done-k2"]


@pytest.mark.parametrize("torn", ["stages:\n  a: [", "", "stages:\n  a:\n    cmd: x\n  b:\n", "\0"])
def test_a_lock_that_dvc_is_writing_forgets_nothing(torn: str, here: Path) -> None:
    put_away(work(here, "k1"))
    Path("dvc.lock").write_text(torn)
    forget(here / ".work")
    assert (here / ".work" / "done-k1").exists()


def test_outside_dvc_nothing_is_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    put_away(work(here, "k1"))
    assert list((here / ".work").iterdir()) == []


def test_what_is_half_deleted_is_never_gone_on_with(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path, **options: object) -> None:
        if folder.exists():
            (folder / "weights").unlink()
            raise KeyboardInterrupt

    put_away(work(here, lock_key(ENTRY)))
    lock(ENTRY)
    monkeypatch.setattr(finished_work.shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        forget(here / ".work")
    folder = here / ".work" / lock_key(ENTRY)
    take_back(folder)
    assert not folder.exists()
