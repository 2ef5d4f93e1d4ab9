import re

import fake_tracked as fake

from graft.origin import code_origin
from graft.storage import write_json


def origin():
    found = code_origin()
    return found["commit"], found["dirty"], found["experiment"]


def test_the_code_is_known_by_its_commit_and_dirty_by_more_than_what_repro_rewrites(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert origin() == (None, False, None)
    for path in ("code.py", "dvc.lock", "reports/leaderboard.json"):
        write_json(tmp_path / path, [])
    commit = fake.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    write_json(tmp_path / "dvc.lock", {})
    write_json(tmp_path / "reports" / "leaderboard.json", {})
    write_json(tmp_path / "reports" / "new.json", {})
    assert origin() == (commit, False, None)
    write_json(tmp_path / "code.py", {})
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    assert origin() == (commit, True, "brisk-fox")
    monkeypatch.setenv("PATH", "")
    assert origin() == (None, False, "brisk-fox")
