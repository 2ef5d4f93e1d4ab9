"""What `graft gc` shows and frees, on real files, locks held by real processes, and a real DVC project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer
from networks_on_trial import ROOT
from typer.testing import CliRunner

from graft import dvc_storage, garbage
from graft.commands import resources
from graft.errors import GraftError
from graft.store import FeatureStore

JOURNAL, LOCK, DEAD = "a" * 64, "b" * 64, "c" * 64
HEADER = {
    **{"key": JOURNAL, "model": "vgg16", "kind": "finetune", "backbone": "vgg16"},
    **{"stage": "finetune@vgg16", "params": {}},
}
HOLDS = {
    JOURNAL: f"from graft.journal import Journal; held = Journal.start(work, {HEADER})",
    LOCK: "from graft.locks import ALONE, acquire; held = acquire(work / 'lock', ALONE)",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with an output that was changed once: one of two versions in the cache is needed."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    dvc(root, "init", "--no-scm", "--quiet")
    for size in (3000, 2000):
        (root / "output").write_bytes(b"x" * size)
        dvc(root, "add", "--quiet", "output")
    return root


@pytest.fixture
def root(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, to be changed."""
    copy = shutil.copytree(project, tmp_path / "project")
    monkeypatch.setenv("DVC_ROOT", str(copy))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(copy / ".dvc/tmp/site"))
    monkeypatch.chdir(copy)
    return copy


def dvc(root: Path, *arguments: str) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site")}
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=root, check=True, env=environment, capture_output=True)


def write_work(root: Path, key: str, days: float) -> Path:
    folder = root / ".work" / key
    (folder / "checkpoints").mkdir(parents=True)
    file = folder / "checkpoints" / "training-1"
    file.write_bytes(b"x" * 1000)
    moment = time.time() - days * garbage.DAY
    os.utime(file, (moment, moment))
    return folder


@contextmanager
def held(root: Path, key: str) -> Iterator[None]:
    """Another process works in the folder of a run."""
    code = f"import sys; from pathlib import Path; work = Path({str(root / '.work' / key)!r}); {HOLDS[key]}"
    code += "; print('held', flush=True); sys.stdin.read()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        assert other.stdin is not None
        other.stdin.close()


def gc(*arguments: str, answer: str | None = None) -> str:
    app = typer.Typer()
    app.command()(resources.gc)
    result = CliRunner().invoke(app, list(arguments), input=answer)
    assert result.exit_code == 0 or (answer is None and result.exit_code == 1), result.exception
    return result.output


@pytest.mark.parametrize("key", [JOURNAL, LOCK])
def test_work_that_a_process_holds_is_never_touched(root: Path, key: str) -> None:
    folder = write_work(root, key, days=30)
    with held(root, key):
        (found,) = garbage.unfinished_work(root / ".work")
        assert found.live
        assert found.stage == ("finetune@vgg16, model vgg16" if key == JOURNAL else "a stage without a journal")
        assert garbage.remove_unfinished(found) == 0
        assert "a process holds it" in gc("--yes", "--older-than", "0")
        assert (folder / "checkpoints/training-1").exists()
    (found,) = garbage.unfinished_work(root / ".work")
    assert not found.live
    assert garbage.remove_unfinished(found) == found.bytes >= 1000
    assert list((root / ".work").iterdir()) == []


def test_work_is_told_by_age_and_size_and_nothing_else_is_work(root: Path) -> None:
    write_work(root, DEAD, days=10)
    write_work(root, LOCK, days=2)
    (root / ".work/rates").mkdir()
    (root / ".work/checked").mkdir()
    old, new = garbage.unfinished_work(root / ".work")
    assert (old.folder.name, old.bytes, round(old.days), old.live) == (DEAD, 1000, 10, False)
    assert (new.folder.name, round(new.days)) == (LOCK, 2)
    assert garbage.unfinished_work(root / "absent") == []


def test_only_what_is_old_enough_goes(root: Path) -> None:
    old, new = write_work(root, DEAD, days=10), write_work(root, LOCK, days=2)
    shown = gc("--yes")
    assert "10.0 days old: to go" in shown
    assert "2.0 days old: kept" in shown
    assert (old.exists(), new.exists()) == (False, True)
    gc("--yes", "--older-than", "0")
    assert not new.exists()


def test_the_store_is_shrunk_to_what_is_to_be_kept(root: Path) -> None:
    store = FeatureStore(root / ".store/features", 10**9)
    space = store.space({"base": "x"}, (1000,), np.float32)
    space.publish([(np.array([b"a", b"b", b"c", b"d"], "S16"), np.ones((4, 1000), np.float32))])
    del space, store
    assert garbage.shrink_store(root / ".store/features", 1.0) == 0
    used = FeatureStore(root / ".store/features", 0).used_bytes()
    assert used > 16_000
    gc("--yes", "--keep-gb", "0")
    assert FeatureStore(root / ".store/features", 0).used_bytes() == 0


def test_dvc_s_cache_loses_what_no_output_needs(root: Path) -> None:
    storage = dvc_storage.dvc_storage(root)
    assert storage is not None
    assert [path.stat().st_size for path in dvc_storage.unused(root)] == [3000]
    cached = {path.stat().st_size for path in storage.folder.rglob("*") if path.is_file()}
    assert cached == {3000, 2000}
    assert "of nothing in the working folder, a branch or a tag" in gc("--yes")
    assert dvc_storage.unused(root) == []
    assert {path.stat().st_size for path in storage.folder.rglob("*") if path.is_file()} == {2000}


def test_nothing_goes_without_a_yes(root: Path) -> None:
    work = write_work(root, DEAD, days=10)
    shown = gc(answer="n\nn\n")
    assert "Delete 1 unfinished run(s)?" in shown
    assert "by `dvc gc`? Earlier commits" in shown
    assert work.exists()
    assert len(dvc_storage.unused(root)) == 1
    gc()  # nobody answers
    assert work.exists()
    assert "freed" in gc(answer="y\ny\n")
    assert not work.exists()


def test_a_cache_in_use_and_the_archive_are_left_alone(root: Path) -> None:
    (root / ".store/runs/x").mkdir(parents=True)
    (root / ".store/runs/x/record.json").write_text("{}")
    lock = root / ".dvc/tmp/rwlock"
    lock.write_text(f'{{"read": {{"output": [{{"pid": {os.getpid()}, "cmd": "dvc repro"}}]}}}}')
    assert "left alone while a stage runs" in gc("--yes")
    lock.write_text('{"write": {}, "read": {"output": [{"pid": 4194305, "cmd": "dvc repro"}]}}')
    assert not dvc_storage.is_running(root)  # killed: Linux numbers no process so high
    assert len(dvc_storage.unused(root)) == 1
    assert (root / ".store/runs/x/record.json").exists()


def test_whether_outputs_are_copies_is_asked_of_dvc(root: Path) -> None:
    dvc(root, "config", "cache.type", "copy")
    assert dvc_storage.dvc_storage(root) == dvc_storage.DvcStorage(root / ".dvc/cache", copies=True)
    dvc(root, "config", "cache.type", "symlink")
    assert dvc_storage.dvc_storage(root) == dvc_storage.DvcStorage(root / ".dvc/cache", copies=False)
    assert not list((root / ".dvc/tmp").glob("link*"))


def test_outside_of_a_dvc_project_there_is_no_cache(tmp_path: Path) -> None:
    assert dvc_storage.dvc_storage(tmp_path) is None
    with pytest.raises(GraftError, match="`dvc gc --workspace --all-branches --all-tags --dry` failed in"):
        dvc_storage.unused(tmp_path)


def test_a_cache_that_others_may_share_is_left_alone(root: Path, tmp_path: Path) -> None:
    """What this project does not need may be another one's only copy of its photos."""
    shared = tmp_path / "shared"
    shutil.move(root / ".dvc/cache", shared)
    dvc(root, "cache", "dir", "--local", str(shared))
    before = sorted(path for path in shared.rglob("*") if path.is_file())
    result = gc("--yes")
    assert "left alone: it lies outside the project, and others may share it" in result
    assert sorted(path for path in shared.rglob("*") if path.is_file()) == before


def test_what_a_branch_needs_stays_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    git(root, "init", "--quiet", "--initial-branch=main")
    dvc(root, "init", "--quiet")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "empty")
    git(root, "checkout", "--quiet", "-b", "photos")
    (root / "photos").write_bytes(b"x" * 3000)
    dvc(root, "add", "--quiet", "photos")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "photos")
    git(root, "checkout", "--quiet", "main")
    gc("--yes")
    git(root, "checkout", "--quiet", "photos")
    (root / "photos").unlink(missing_ok=True)
    dvc(root, "checkout", "--quiet")
    assert (root / "photos").read_bytes() == b"x" * 3000


def test_a_removal_that_was_cut_short_is_ended(root: Path) -> None:
    left = [root / ".work" / name for name in (f".gone-{DEAD}", f".{DEAD}.over")]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "images").write_bytes(b"x" * 100)
    gc("--yes")
    assert not any(folder.exists() for folder in left)


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)
