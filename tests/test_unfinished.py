from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from graft.unfinished import unfinished


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def begin(key: str) -> None:
    """Leave something undone."""
    with unfinished(key) as folder:
        (folder / "rows").mkdir()
        (folder / "rows" / "half").write_text("1")
        raise KeyboardInterrupt


def test_what_is_unfinished_is_kept_and_what_is_done_is_not(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin("key")
    with unfinished("key") as folder:
        assert folder == root / ".work" / "key"
        assert (folder / "rows" / "half").read_text() == "1"
    assert list(folder.parent.iterdir()) == []


def test_another_key_is_other_work() -> None:
    with pytest.raises(KeyboardInterrupt):
        begin("key")
    with unfinished("other") as folder:
        assert not (folder / "rows").exists()


def test_who_comes_second_waits_says_so_and_begins_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with unfinished("key") as folder:
            order.append(f"second sees {sorted(path.name for path in folder.iterdir())}")

    with unfinished("key") as folder:
        thread = threading.Thread(target=second)
        thread.start()
        (folder / "rows").write_text("1")
        thread.join(0.3)
        order.append("first is done")
    thread.join()
    assert order == ["first is done", "second sees ['lock', 'machine.json']"]
    assert capsys.readouterr().out == f"another process works on the same ({folder}); waiting for it to end\n"
    assert not folder.exists()


def test_the_lock_ends_with_the_process() -> None:
    child = os.fork()
    if not child:
        with unfinished("key") as folder:
            (folder / "rows").write_text("1")
            os._exit(0)
    os.waitpid(child, 0)
    with unfinished("key") as folder:
        assert (folder / "rows").read_text() == "1"


@pytest.mark.parametrize("left", ["of another version", "of before", "torn"])
def test_what_another_machine_left_is_deleted_with_a_line(
    left: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin("key")
    path = root / ".work" / "key" / "machine.json"
    if left == "of before":
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pillow": "1.0"}) if left != "torn" else "{")
    with unfinished("key") as folder:
        assert sorted(inside.name for inside in folder.iterdir()) == ["lock", "machine.json"]
    told = capsys.readouterr().out
    if left == "of another version":
        assert told == f"{folder}: what an interrupted run left is not gone on with: pillow differ\n"
    assert bool(told) == (left != "of before")


def test_work_that_was_done_is_gone_on_with_until_dvc_knows_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "prepare")
    with unfinished("key") as folder:
        (folder / "rows").write_text("1")
    assert [path.name for path in (root / ".work").iterdir()] == ["done-key"]
    with unfinished("key") as folder:
        assert (folder / "rows").read_text() == "1"
        (folder / "rows").write_text("2")
    with unfinished("key") as folder:
        assert (folder / "rows").read_text() == "2"
