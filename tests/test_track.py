import json
import subprocess
import sys
from pathlib import Path

import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft import tracking
from graft.params import Params
from graft.stages import track
from graft.tracking import Published, UnreachableError

PATHS = {
    **{"runs": Path("reports/runs"), "models": Path("models"), "leaderboard": Path("reports/leaderboard.json")},
    **{
        "figures": Path("reports/figures"),
        "report": Path("reports/index.html"),
        "prepared": Path("data/prepared"),
        "data_report": Path("reports/data"),
        "lock": Path("dvc.lock"),
    },
}


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, params, monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    fake.finished_project(tmp_path, params, "vgg16")
    return tmp_path


@pytest.fixture
def told(monkeypatch):
    """What the stage tells MLflow, which is not there."""
    told = []

    def publish(models, params, project):
        told.append((models, project))
        standing = (None, None, "") if project.detached else ("3", "champion", "the first version")
        return Published(2, *standing, "sqlite:///here/mlflow.db")

    monkeypatch.setattr(tracking, "publish", publish)
    return told


def test_it_tells_of_every_listed_model_and_closes_with_one_line(root, params, told, capsys):
    track.run(params, **PATHS)
    assert capsys.readouterr().out == (
        "track: 3 runs (2 new) in experiment graft at sqlite:///here/mlflow.db, "
        "champion vgg16 is version 3 (champion)\n"
    )
    ((models, project),) = told
    assert [model.name for model in models] == ["cnn", "vgg16", "vgg16-svm"]
    cnn, vgg16, svm = models
    assert (cnn.champion, vgg16.champion, svm.champion) == (False, True, False)
    assert (cnn.source, vgg16.source, svm.source) == (None, None, Path("models/source/vgg16"))
    assert cnn.metrics == {
        **{"val_accuracy": 0.75, "test_accuracy_low": 0.6, "parameters": 1000, "train_seconds": 1.5, "n_test": 30}
    }
    assert [path.name for path in svm.files] == ["journal.jsonl", "search.csv"]
    assert [path.as_posix() for path in vgg16.figures] == [
        "reports/figures/vgg16/confusion.svg",
        "reports/figures/vgg16/curves.svg",
    ]
    assert vgg16.report == Path("reports/index.html")
    assert vgg16.predictions == Path("reports/runs/vgg16/predictions.parquet")
    assert vgg16.inputs == {"data/prepared": fake.MD5}
    assert (project.root, project.detached, project.experiment) == (root, False, None)


def test_a_challenger_is_told_of_with_the_reason(root, params, monkeypatch, capsys):
    def publish(*_):
        return Published(0, "4", "challenger", "worse by 2.0 points", "sqlite:///here/mlflow.db")

    monkeypatch.setattr(tracking, "publish", publish)
    track.run(params, **PATHS)
    assert capsys.readouterr().out.endswith("champion vgg16 is version 4, a challenger: worse by 2.0 points\n")


def test_a_server_that_is_down_loses_nothing_and_fails_nothing(root, params, monkeypatch, capsys):
    def publish(*_):
        raise UnreachableError("no answer from MLflow at http://somewhere")

    monkeypatch.setattr(tracking, "publish", publish)
    track.run(params, **PATHS)
    assert capsys.readouterr().out == (
        "track: no answer from MLflow at http://somewhere; nothing is lost, run `graft track` when it is back\n"
    )


def test_an_experiment_in_a_copy_of_the_project_is_seen_as_one(root, params, told, monkeypatch, capsys):
    monkeypatch.setenv("DVC_ROOT", str(root.parent))
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    track.run(params, **PATHS)
    ((_, project),) = told
    assert (project.root, project.detached, project.experiment) == (root.parent, True, "brisk-fox")
    assert "champion vgg16 not registered from an experiment\n" in capsys.readouterr().out


def test_an_experiment_in_the_workspace_is_seen_as_one(root, params, told, monkeypatch, capsys):
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")
    track.run(params, **PATHS)
    ((_, project),) = told
    assert (project.root, project.detached, project.experiment) == (root, True, "brisk-fox")
    assert "not registered" in capsys.readouterr().out


def test_a_row_removed_from_the_params_is_told_of_no_more(root, params, told):
    content = params.model_dump()
    track.run(Params.model_validate({**content, "baselines": {}}), **PATHS)
    ((models, project),) = told
    assert [model.name for model in models] == ["vgg16", "vgg16-svm"] == list(project.listed)


def test_a_model_that_is_not_compared_yet_is_left_for_later(root, params, told):
    rows = json.loads((root / "reports" / "leaderboard.json").read_text())
    (root / "reports" / "leaderboard.json").write_text(json.dumps(rows[1:]))
    track.run(params, **PATHS)
    assert [model.name for model in told[0][0]] == ["vgg16", "vgg16-svm"]


@pytest.mark.slow
def test_the_stage_as_dvc_calls_it_and_again_when_nothing_is_new(root):
    (root / "params.yaml").write_text(json.dumps(fake_params(1).model_dump(mode="json")))
    options = [part for name, path in PATHS.items() for part in (f"--{name.replace('_', '-')}", str(path))]
    # As `python -m graft.stages.track`, with a look at what was imported.
    code = "import runpy, sys, atexit; atexit.register(lambda: print('tensorflow' in sys.modules)); sys.argv[0] = 'x'\n"
    code += "runpy.run_module('graft.stages.track', run_name='__main__')"
    lines = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        lines.append(done.stdout.splitlines())
    rest = f"in experiment graft at sqlite:///{root}/mlflow.db, champion vgg16 is version 1 (champion)"
    assert lines == [[f"track: 3 runs ({new} new) {rest}", "False"] for new in (3, 0)]
    assert sorted(path.name for path in root.iterdir() if path.name.startswith("ml")) == ["mlartifacts", "mlflow.db"]
