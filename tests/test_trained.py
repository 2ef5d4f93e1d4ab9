import json

import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.run_parameters import flat, parameters, start_parameters
from graft.storage import ArtifactError
from graft.trained import describe, read_project


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
    assert vgg16.outputs["models/vgg16"] == "2" * 32
    assert vgg16.predictions == root / "reports" / "runs" / "vgg16" / "predictions.parquet"
    assert (vgg16.row["model"], vgg16.row["champion"]) == ("vgg16", True)
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


def test_the_layers_of_a_network_are_params_by_their_place(root, params):
    flat_params = parameters(fake.trained(root, params)[0].journal)
    layers = params.model_dump(mode="json")["baselines"]["cnn"]["layers"]
    assert flat_params["layers.00.Rescaling.scale"] == "0.00392156862745098"
    assert flat_params["layers.01.Conv2D.padding"] == "same"
    assert flat_params[f"layers.{layers.index({'Flatten': {}}):02d}.Flatten"] == "{}"  # a layer without values is one
    assert "layers" not in flat_params
    assert [name for name in flat_params if name.startswith("layers.")] == sorted(
        (name for name in flat_params if name.startswith("layers.")), key=lambda name: name[:9]
    )


def test_values_are_written_alike_whatever_their_kind():
    assert flat({"a": [1, 2.5], "b": [], "c": None, "d": {"e": True, "f": {}}, "g": [{"x": 1}, {"x": 2}]}) == {
        **{"a": "[1, 2.5]", "b": "[]", "c": "null", "d.e": "true", "d.f": "{}", "g.00.x": "1", "g.01.x": "2"}
    }
    assert len(flat({"long": "x" * 7000})["long"]) == 6000  # what MLflow takes


def test_before_a_training_all_is_known_but_what_a_grid_decides(root, params):
    header = fake.trained(root, params)[1].journal.header
    whole = parameters(fake.trained(root, params)[1].journal)
    assert start_parameters(header) == {name: value for name, value in whole.items() if name != "unfrozen_from_epoch"}
    assert start_parameters(header)["finetune.unfrozen_learning_rate"] == "0.001"

    heads = {"learning_rate": [0.1, 0.2], "dropout": [0.0], "hidden_units": [0, 8]}
    tails = {"unfrozen_learning_rate": [0.1], "batch_size": [8, 16], "halving": 1}
    cuts = ["block3_pool", "block4_pool"]
    with_grids = fake.change(
        params,
        backbones__vgg16__finetune__heads=heads,
        backbones__vgg16__finetune__tails=tails,
        backbones__vgg16__features__frozen_until=cuts,
    )
    tail = {"frozen_until": "block3_pool", "unfrozen_learning_rate": 0.1, "batch_size": 16}
    head = {"learning_rate": 0.2, "dropout": 0.0, "hidden_units": 8}
    candidates = [{**fake.grid(1, chosen=1)[0], "params": head}]
    candidates += [{**fake.grid(1, chosen=1, phase="unfrozen")[0], "params": tail}]
    fake.train(root, with_grids, "vgg16", candidates=candidates)
    journal = fake.trained(root, with_grids)[1].journal
    before, after = start_parameters(journal.header), parameters(journal)
    assert set(after) - set(before) == {
        *("finetune.learning_rate", "finetune.dropout", "finetune.hidden_units", "finetune.unfrozen_learning_rate"),
        *("features.frozen_until", "finetune.unfrozen_batch_size", "candidates", "unfrozen_from_epoch"),
    }
    assert before == {name: after[name] for name in before}  # MLflow refuses to change a param
    assert (after["features.frozen_until"], after["finetune.unfrozen_learning_rate"]) == ("block3_pool", "0.1")
    assert before["finetune.heads.hidden_units"] == "[0, 8]"


def test_an_experiment_is_detached_wherever_it_runs(root, params, monkeypatch):
    def project():
        return read_project(params, root / "data" / "prepared", root / "reports" / "data")

    assert (project().detached, project().experiment, project().root) == (False, None, root)
    monkeypatch.setenv("DVC_EXP_NAME", "brisk-fox")  # `dvc exp run` in the workspace
    assert (project().detached, project().experiment, project().root) == (True, "brisk-fox", root)
    monkeypatch.delenv("DVC_EXP_NAME")
    monkeypatch.setenv("DVC_ROOT", str(root.parent))  # a copy
    assert (project().detached, project().experiment, project().root) == (True, None, root.parent)


def test_a_page_that_is_not_there_is_not_told_of(root, params):
    assert fake.trained(root, params)[0].report == root / "reports" / "index.html"
    (root / "reports" / "index.html").unlink()
    assert fake.trained(root, params)[0].report is None


def test_paths_become_tags_that_mlflow_takes(root, params):
    lock = json.loads((root / "dvc.lock").read_text())
    long = "data/" + "x" * 300
    for entry in lock["stages"].values():
        entry["deps"] += [{"path": path, "md5": "4" * 32} for path in ("data/photos (2)", long)]
    (root / "dvc.lock").write_text(json.dumps(lock))
    told = describe(fake.trained(root, params)[0])
    assert told["dvc.md5.data/photos _2_"] == "4" * 32
    assert max(map(len, told)) == 250


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
