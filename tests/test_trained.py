import json

import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.storage import ArtifactError
from graft.trained import describe, digest, parameters


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


def test_metrics_are_the_numbers_of_the_leaderboard_and_nothing_else(root, params):
    path = root / "reports" / "leaderboard.json"
    further = {"temperature": 1.5, "pareto": True, "verdict": "worse", "difference": 0.1, "p_value": 0.2}
    rows = [row | further for row in json.loads(path.read_text())]
    path.write_text(json.dumps(rows))
    cnn = fake.trained(root, params)[0]
    assert cnn.metrics["temperature"] == 1.5
    assert not {"champion", "pareto", "verdict", "backbone"} & set(cnn.metrics)
    assert not {"difference", "p_value"} & set(cnn.metrics)
    assert "test_accuracy" not in cnn.metrics  # there is none of this model


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


def test_a_grid_is_told_of_by_its_size_its_table_and_what_was_chosen(root, params):
    before = fake.trained(root, params)[1]
    assert "candidates" not in parameters(before.journal)
    assert "graft.chosen" not in describe(before)
    grids = [*fake.grid(3), *fake.grid(2, chosen=1, phase="unfrozen")]
    fake.train(root, params, "vgg16", candidates=grids)
    vgg16 = fake.trained(root, params)[1]
    assert parameters(vgg16.journal)["candidates"] == "5"
    assert describe(vgg16)["graft.chosen"] == "head-02, tail-01"
    assert [path.name for path in vgg16.files] == ["journal.jsonl", "candidates.csv"]


def test_what_is_not_known_is_not_said(root, params, monkeypatch):
    outside_git = describe(fake.trained(root, params)[0])
    assert not {"backbone", "git.dirty", "mlflow.source.git.commit", "dvc.experiment"} & set(outside_git)
    commit = fake.commit(root)
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    fake.train(root, params, "cnn")
    inside = describe(fake.trained(root, params)[0])
    assert (inside["mlflow.source.git.commit"], inside["dvc.experiment"]) == (commit, "brisk-fox")
    assert inside["git.dirty"] == "true"  # by the work folder, which a project ignores


def test_a_run_is_described_by_the_commit_of_its_training(root, params, monkeypatch):
    (root / ".gitignore").write_text("/.work\n")
    first = fake.commit(root)
    fake.train(root, params, "cnn")
    before = describe(fake.trained(root, params)[0])
    assert (before["mlflow.source.git.commit"], before["git.dirty"]) == (first, "false")
    (root / "code.py").write_text("# later")
    assert fake.commit(root) != first
    (root / "code.py").write_text("# not committed")
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    assert describe(fake.trained(root, params)[0]) == before


def test_a_digest_follows_names_and_contents(tmp_path):
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    first.write_text("x")
    second.write_text("x")
    assert digest([first]) == digest([first]) != digest([second])
    before = digest([first])
    first.write_text("y")
    assert digest([first]) != before
