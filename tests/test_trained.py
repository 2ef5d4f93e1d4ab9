import os
import re
import subprocess
from pathlib import Path

import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.storage import ArtifactError
from graft.trained import describe, digest, parameters, read_project


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, params, monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    fake.finished_project(tmp_path, params, "vgg16")
    return tmp_path


def test_only_an_svm_comes_with_its_base_and_only_data_with_its_hash(root, params):
    cnn, vgg16, svm = fake.trained(root, params)
    assert (cnn.source, vgg16.source, svm.source) == (None, None, root / "models" / "source" / "vgg16")
    assert [path.name for path in svm.files] == ["journal.jsonl", "search.csv"]
    assert vgg16.inputs == {"data/prepared": fake.MD5}
    assert {model.name for model in (cnn, vgg16, svm) if model.champion} == {"vgg16"}


def test_what_is_missing_or_unfinished_is_named(root, params):
    journal = root / "reports" / "runs" / "cnn" / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ArtifactError, match=r"cnn/journal.jsonl has no end; `dvc repro` trains cnn again"):
        fake.trained(root, params)
    (root / "dvc.lock").unlink()
    with pytest.raises(ArtifactError, match=r"dvc.lock is missing; `dvc repro` makes it"):
        fake.trained(root, params)


def test_params_are_flattened_and_later_phases_marked(root, params):
    flat = parameters(fake.trained(root, params)[1].journal)
    assert flat["base.application"] == "VGG16"
    assert flat["finetune.train_batch_normalization"] == "false"
    assert flat["unfrozen_from_epoch"] == "3"
    assert "frozen_from_epoch" not in flat


def git(root, *arguments):
    identity = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, env=os.environ | identity)


def test_the_commit_is_dirty_by_more_than_what_repro_rewrites(root, params):
    assert (read_project(params, Path("data")).commit, read_project(params, Path("data")).dirty) == (None, False)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    (root / "dvc.lock").write_text("{}")
    (root / "reports" / "leaderboard.json").write_text("[]")
    (root / "reports" / "new.json").write_text("[]")
    project = read_project(params, Path("data"))
    assert re.fullmatch("[0-9a-f]{40}", project.commit)
    assert not project.dirty
    (root / "models" / "cnn" / "classes.json").write_text("[]")
    assert read_project(params, Path("data")).dirty


def test_what_is_not_known_is_not_said(root, params):
    cnn = fake.trained(root, params)[0]
    outside_git = describe(cnn, read_project(params, Path("data/prepared")))
    assert not {"backbone", "git.dirty", "mlflow.source.git.commit", "dvc.experiment"} & set(outside_git)
    inside = describe(cnn, fake.project(root, params, experiment="brisk-fox"))
    assert (inside["git.dirty"], inside["dvc.experiment"]) == ("true", "brisk-fox")


def test_a_digest_follows_names_and_contents(tmp_path):
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    first.write_text("x")
    second.write_text("x")
    assert digest([first]) == digest([first]) != digest([second])
    before = digest([first])
    first.write_text("y")
    assert digest([first]) != before
