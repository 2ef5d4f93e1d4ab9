import json
import shutil
import subprocess
import sys
from pathlib import Path

import cached_project
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.dvc_cache import open_cache
from graft.run_archive import archived, keep, restored
from graft.storage import ArtifactError


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, params, monkeypatch):
    """A finished project, which is also the working directory."""
    root = tmp_path / "a project"
    root.mkdir()
    monkeypatch.chdir(root)
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    cached_project.finish(root, params, "vgg16")
    return root


def keep_all(root, params, **changes):
    models = fake.trained(root, params)
    for model in models:
        keep(root, model, fake.project(root, params, **changes))
    return models


def runs(root):
    found, damaged = archived(root)
    assert not damaged
    return {run.name: run for run in found}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def snapshot(root):
    folder = root / ".store" / "runs"
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_kept_run_comes_back_with_its_files_when_the_working_directory_has_others(root, params):
    models = {model.name: model for model in keep_all(root, params)}
    wanted = {name: contents(root / name) for name in ("models", "reports", "data")}
    for folder in ("models", "reports", "data"):
        shutil.rmtree(root / folder)
    with open_cache(root) as cache:
        for name, run in runs(root).items():
            with restored(run, cache) as model:
                before = models[name]
                for fact in ("key", "name", "metrics", "inputs", "outputs", "row", "journal"):
                    assert getattr(model, fact) == getattr(before, fact)
                assert not model.missing
                assert {f"{name}/{path}": content for path, content in contents(model.folder).items()} == {
                    path: content for path, content in wanted["models"].items() if path.startswith(f"{name}/")
                }
                reports = {path.as_posix() for path in (*model.files, *model.figures, model.predictions, model.report)}
                assert {f"reports/{path}" for path in wanted["reports"]} >= reports
                assert all(Path(path).read_bytes() == wanted["reports"][path[8:]] for path in reports)
                assert len(model.figures) == 2
                assert contents(Path("data/prepared")) == {
                    path.removeprefix("prepared/"): content for path, content in wanted["data"].items()
                }
                assert Path("reports/data/counts.csv").exists()
                assert (model.source is not None) == (name == "vgg16-svm")
                assert model.source is None or contents(model.source) == {"card.json": b"{}"}
                assert not model.champion  # it was the project's own, which has another now
                place = Path.cwd()
            assert not place.exists()
    assert Path.cwd() == root


def test_keeping_the_same_again_writes_nothing_and_another_comparison_does(root, params):
    keep_all(root, params)
    before = snapshot(root)
    keep_all(root, params)
    assert snapshot(root) == before
    fake.compare(root, params, "cnn", low=0.5)
    cached_project.keep(root, params)
    keep_all(root, params)
    assert {name: run.record.champion for name, run in runs(root).items()} == {
        **{"cnn": True, "vgg16": False, "vgg16-svm": False}
    }
    assert {run.record.row["test_accuracy_low"] for run in runs(root).values()} == {0.5}


def test_an_archive_is_small_and_holds_the_journals_as_they_are(root, params):
    keep_all(root, params)
    for name, run in runs(root).items():
        assert (run.folder / "journal.jsonl").read_bytes() == (root / f"reports/runs/{name}/journal.jsonl").read_bytes()
        assert sum(path.stat().st_size for path in run.folder.iterdir()) < 10_000
        assert json.loads((run.folder / "record.json").read_text())["schema"] == 1


def test_only_the_project_itself_replaces_what_is_kept(root, params):
    keep_all(root, params, detached=True, experiment="brisk-fox")
    assert {(run.record.own, run.record.experiment) for run in runs(root).values()} == {(False, "brisk-fox")}
    with open_cache(root) as cache, restored(runs(root)["vgg16"], cache) as model:
        assert model.champion  # of the experiment
    before = snapshot(root)
    fake.compare(root, params, "cnn")
    keep_all(root, params, detached=True, experiment="shy-owl")
    assert snapshot(root) == before
    keep_all(root, params)  # the experiment was applied
    assert {(run.record.own, run.record.experiment) for run in runs(root).values()} == {(True, None)}
    keep_all(root, params, detached=True, experiment="shy-owl")
    assert {run.record.own for run in runs(root).values()} == {True}


def test_what_the_cache_lacks_is_named_and_the_rest_is_there(root, params):
    keep_all(root, params)
    for path in ("models/vgg16", "reports/index.html", "data/prepared"):
        cached_project.forget(root, path)
    with open_cache(root) as cache, restored(runs(root)["vgg16"], cache) as model:
        assert [path.as_posix() for path in model.missing] == ["reports/index.html", "models/vgg16", "data/prepared"]
        assert model.report is None
        assert [path.name for path in model.files] == ["journal.jsonl"]
        assert model.predictions.exists()
        assert not model.folder.exists()
    cached_project.forget(root, "reports/runs/vgg16-svm")
    with open_cache(root) as cache, restored(runs(root)["vgg16-svm"], cache) as model:
        missing = [path.as_posix() for path in model.missing]
        assert missing[0] == "reports/runs/vgg16-svm/search.csv"
        assert "reports/runs/vgg16-svm/predictions.parquet" in missing
        assert model.journal.complete  # which the archive has itself
        assert model.folder.exists()


def test_damaged_runs_are_named_and_the_others_are_there(root, params):
    keep_all(root, params)
    by_name = runs(root)
    record, other = by_name["cnn"].folder / "record.json", by_name["vgg16"].folder / "journal.jsonl"
    changed = json.loads(record.read_text()) | {"schema": 2}
    record.write_text(json.dumps(changed))
    other.write_text(other.read_text()[:-200])
    (root / ".store" / "runs" / "empty").mkdir()
    found, damaged = archived(root)
    assert [run.name for run in found] == ["vgg16-svm"]
    folder = root / ".store" / "runs"
    assert sorted(damaged) == sorted(
        [
            f"{record} is damaged: schema: Input should be 1",
            f"{other} must be the whole journal of {other.parent.name}, "
            f"received an unfinished one of {other.parent.name}",
            f"{folder / 'empty' / 'record.json'} is missing",
        ]
    )
    (folder / "empty").rmdir()
    record.write_text("{")
    assert "record.json is damaged: the whole: Invalid JSON" in " ".join(archived(root)[1])
    keep_all(root, params, detached=True)  # what is damaged is replaced by whoever has it
    assert set(runs(root)) == {"cnn", "vgg16", "vgg16-svm"}


def test_an_archive_that_was_never_written_is_empty(tmp_path):
    assert archived(tmp_path) == ([], [])


def test_files_outside_of_the_working_directory_are_refused(root, params, tmp_path, monkeypatch):
    models = fake.trained(root, params)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"of a model must lie below .*elsewhere, received .*a project/models"):
        keep(root, models[0], fake.project(root, params))
    assert not archived(root)[0]


def test_two_processes_that_keep_the_same_at_once_leave_it_whole(root, params):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import fake_tracked as fake\n"
        "from fake_runs import fake_params; from graft.run_archive import archived, keep\n"
        "root = pathlib.Path(sys.argv[1]); params = fake_params(1); models = fake.trained(root, params)\n"
        "for number in range(40):\n"
        "    for model in models:\n"
        "        model.row['number'] = number + int(sys.argv[3])\n"
        "        keep(root, model, fake.project(root, params))\n"
        "    found, damaged = archived(root); assert (len(found), damaged) == (3, []), damaged\n"
    )
    command = [sys.executable, "-c", code, str(root), str(Path(__file__).parent)]
    both = [subprocess.Popen([*command, start], cwd=root, stderr=subprocess.PIPE, text=True) for start in ("0", "1000")]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert {run.record.row["number"] for run in runs(root).values()} <= {39, 1039}
