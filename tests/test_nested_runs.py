import json
import shutil

import fake_mlflow
import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft import run_parts
from graft.tracking import publish

# isort: split
import mlflow

NAMES = {"cnn", "vgg16", "vgg16-svm"}
GRID = fake.grid(4)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def params():
    return fake_params(1)


@pytest.fixture
def root(tmp_path, migrated, params, monkeypatch):
    """A finished project whose vgg16 was chosen out of a grid."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run_parts, "log_model", fake_mlflow.log_light_model)
    fake.finished_project(tmp_path, params, "vgg16")
    fake.train(tmp_path, params, "vgg16", candidates=GRID)
    return tmp_path


def track(root, params, **changes):
    return publish(fake.trained(root, params), params, fake.project(root, params, **changes))


def models(root, state="current"):
    """Runs of models by name."""
    found = [run for run in fake_mlflow.all_runs(root) if run.data.tags["kind"] != "candidate"]
    return {run.info.run_name: run for run in found if run.data.tags["graft.state"] == state}


def children(parent):
    """As MLflow's own example finds them, by name."""
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    found = mlflow.search_runs([parent.info.experiment_id], query, output_format="list")
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found)
    return by_name


def ids(root, state="current"):
    """Of all candidates of the current vgg16."""
    return {name: run.info.run_id for name, run in children(models(root, state)["vgg16"]).items()}


def assert_whole(root, names=None):
    """Every candidate is there once under its model's run, finished and in its state; there are no others."""
    runs = {run.info.run_id: run for run in fake_mlflow.all_runs(root)}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    nested = [run for run in runs.values() if run.data.tags["kind"] == "candidate"]
    for run in nested:
        parent = runs[run.data.tags["mlflow.parentRunId"]]
        assert run.data.tags["graft.state"] == parent.data.tags["graft.state"]
        assert run.data.tags["graft.parent"] == parent.data.tags["graft.key"]
    for parent in runs.values():
        assert len(children(parent)) == int(parent.data.params.get("candidates", 0))
    assert sum(int(run.data.params.get("candidates", 0)) for run in runs.values()) == len(nested)


def test_every_candidate_becomes_a_finished_run_nested_under_its_models(root, params):
    assert track(root, params).new == 3
    assert_whole(root)
    parent = models(root)["vgg16"]
    found = children(parent)
    assert sorted(found) == ["head-01", "head-02", "head-03", "head-04"]

    run = found["head-03"]
    assert run.data.params == {"learning_rate": "0.125", "dropout": "0.0", "phase": "frozen"}
    assert (run.info.start_time, run.info.end_time) == (parent.info.start_time, parent.info.end_time)
    assert mlflow.get_parent_run(run.info.run_id).info.run_id == parent.info.run_id
    best = GRID[2]["history"][1]  # the lowest validation loss
    assert (
        {name: run.data.metrics[name] for name in ("val_loss", "val_accuracy")}
        == {**{"val_loss": best["val_loss"], "val_accuracy": best["val_accuracy"]}}
        == {"val_loss": 3.0, "val_accuracy": 0.2}
    )
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        curve = fake_mlflow.client(root).get_metric_history(run.info.run_id, f"epoch/{name}")
        assert [(point.step, point.value) for point in curve] == [
            (record["epoch"], record[name]) for record in GRID[2]["history"]
        ]
    assert {name for name, run in found.items() if run.data.tags["chosen"] == "true"} == {"head-02"}
    assert run.data.tags["graft.candidate"] == "head-03"
    assert run.data.tags["graft.state"] == "current"
    assert not {"graft.key", "model", "champion"} & set(run.data.tags)


def test_a_model_says_how_many_candidates_it_had_and_which_was_chosen(root, params):
    track(root, params)
    found = models(root)
    assert found["vgg16"].data.params["candidates"] == "4"
    assert found["vgg16"].data.tags["graft.chosen"] == "head-02"
    listed = fake_mlflow.client(root).list_artifacts(found["vgg16"].info.run_id)
    assert "candidates.csv" in {item.path for item in listed}
    for name in ("cnn", "vgg16-svm"):
        assert "candidates" not in found[name].data.params
        assert "graft.chosen" not in found[name].data.tags


def test_models_are_still_counted_by_key_by_kind_and_by_the_registry(root, params):
    track(root, params)
    experiment = models(root)["cnn"].info.experiment_id
    by_key = mlflow.search_runs([experiment], "tags.graft.key != ''", output_format="list")
    assert {run.info.run_name for run in by_key} == NAMES
    (fine_tuned,) = mlflow.search_runs([experiment], "tags.kind = 'finetune'", output_format="list")
    assert fine_tuned.info.run_name == "vgg16"
    assert len(fake_mlflow.client(root).search_logged_models([experiment])) == 3


def test_a_second_call_changes_nothing(root, params):
    track(root, params)
    before = fake_mlflow.everything(root)
    assert track(root, params).new == 0
    assert fake_mlflow.everything(root) == before


def test_the_same_training_done_again_adds_no_candidate(root, params):
    track(root, params)
    before = ids(root)
    fake.train(root, params, "vgg16", candidates=GRID)  # `dvc repro --force`
    assert track(root, params).new == 0
    assert ids(root) == before
    assert_whole(root)


def test_candidates_follow_their_model_when_it_is_superseded_and_restored(root, params):
    track(root, params)
    first = ids(root)
    kept = shutil.copytree(root / "reports" / "runs" / "vgg16", root / "kept")
    other = fake.change(params, backbones__vgg16__finetune__learning_rate=0.5)
    fake.train(root, other, "vgg16", candidates=fake.grid(2))
    assert track(root, other).new == 1
    assert_whole(root)
    assert len(ids(root)) == 2
    assert {run.data.tags["graft.state"] for run in children(models(root, "superseded")["vgg16"]).values()} == {
        "superseded"
    }

    shutil.copytree(kept, root / "reports" / "runs" / "vgg16", dirs_exist_ok=True)  # as DVC's run cache does
    assert track(root, params).new == 0
    assert ids(root) == first
    assert_whole(root)


def test_candidates_of_a_removed_row_are_removed_with_it(root, params):
    track(root, params)
    fewer = fake.change(params, backbones={})
    fake.compare(root, fewer, "cnn")
    track(root, fewer)
    assert {run.data.tags["graft.state"] for run in children(models(root, "removed")["vgg16"]).values()} == {"removed"}
    assert_whole(root)


def test_an_experiments_candidates_are_its_own_until_it_is_applied(root, params):
    track(root, params)
    other = fake.change(params, backbones__vgg16__finetune__learning_rate=0.5)
    fake.train(root, other, "vgg16", candidates=fake.grid(2))
    assert track(root, other, detached=True).new == 1
    assert_whole(root)
    assert set(children(models(root, "experiment")["vgg16"])) == {"head-01", "head-02"}
    assert track(root, other).new == 0
    assert_whole(root)
    assert set(ids(root)) == {"head-01", "head-02"}


# cnn's run is created first, then vgg16's, then those of its candidates.
@pytest.mark.parametrize(("call", "number"), [("create_run", 3), ("create_run", 5), ("set_terminated", 4)])
def test_what_an_interrupted_call_left_is_completed_with_its_candidates(root, params, call, number):
    with fake_mlflow.interrupted(call, number):
        track(root, params)
    left = ids(root, "training")
    assert left
    with fake_mlflow.interrupted("create_run", 1):  # the next call, at the first candidate that it adds
        track(root, params)
    track(root, params)
    assert_whole(root)
    assert set(models(root)) == NAMES
    assert len(ids(root)) == 4


def test_an_interrupted_change_of_state_is_ended_by_the_next_call(root, params):
    track(root, params)
    fewer = fake.change(params, backbones={})
    fake.compare(root, fewer, "cnn")
    with fake_mlflow.interrupted("log_batch", 6):
        track(root, fewer)
    states = {run.data.tags["graft.state"] for run in fake_mlflow.all_runs(root)}
    assert states == {"current", "removed"}
    track(root, fewer)
    assert set(models(root)) == {"cnn"}
    assert_whole(root)


def test_more_points_than_one_call_of_mlflow_takes_are_all_there(root, params):
    (long,) = fake.grid(1, epochs=300)  # 1502 metrics; a call takes a thousand
    stopped = {**fake.grid(2)[1], "history": []}
    fake.train(root, params, "vgg16", candidates=[long, stopped])
    track(root, params)
    found = children(models(root)["vgg16"])
    curve = fake_mlflow.client(root).get_metric_history(found["head-01"].info.run_id, "epoch/learning_rate")
    assert [point.step for point in curve] == list(range(1, 301))
    assert found["head-02"].data.metrics == {}


REPEATS = [fake.repeat(2), fake.repeat(3)]


def test_every_repeat_becomes_a_finished_run_nested_under_its_models(root, params):
    fake.train(root, params, "vgg16", repeats=REPEATS)
    track(root, params)
    parent = models(root)["vgg16"]
    found = children(parent)
    assert sorted(found) == ["repeat-02", "repeat-03"]

    run = found["repeat-03"]
    assert run.data.params == {"seed": "2000"}
    assert {name: run.data.metrics[name] for name in ("val_accuracy", "val_log_loss")} == {
        **{"val_accuracy": 0.73, "val_log_loss": 0.5}
    }
    assert (run.data.tags["kind"], run.data.tags["graft.repeat"]) == ("repeat", "repeat-03")
    assert (run.info.status, run.info.start_time, run.info.end_time) == (
        *("FINISHED", parent.info.start_time),
        parent.info.end_time,
    )
    for name in ("loss", "val_accuracy"):
        curve = fake_mlflow.client(root).get_metric_history(run.info.run_id, f"epoch/{name}")
        assert [(point.step, point.value) for point in curve] == [
            (record["epoch"], record[name]) for record in REPEATS[1]["history"]
        ]


def test_repeats_of_an_svm_have_no_curves(root, params):
    fake.train(root, params, "vgg16-svm", repeats=[{**REPEATS[0], "history": []}])
    track(root, params)
    (run,) = children(models(root)["vgg16-svm"]).values()
    assert run.data.metrics == REPEATS[0]["metrics"]


def test_the_parent_holds_the_mean_of_the_repeats_and_its_interval(root, params):
    fake.train(root, params, "vgg16", repeats=REPEATS)
    path = root / "reports" / "leaderboard.json"
    names = [f"{split}_accuracy_mean{end}" for split in ("val", "test") for end in ("", "_low", "_high")]
    mean = {"repeats": 3, **dict(zip(names, (0.74, 0.7, 0.78, 0.73, 0.69, 0.77), strict=True))}
    path.write_text(json.dumps([row | mean for row in json.loads(path.read_text())]))
    track(root, params)
    metrics = models(root)["vgg16"].data.metrics
    assert {name: metrics[name] for name in mean} == mean


def test_repeats_follow_their_model_and_are_added_once(root, params):
    fake.train(root, params, "vgg16", candidates=GRID, repeats=REPEATS)
    with fake_mlflow.interrupted("create_run", 7):
        track(root, params)
    track(root, params)
    assert sorted(ids(root)) == ["head-01", "head-02", "head-03", "head-04", "repeat-02", "repeat-03"]
    fewer = fake.change(params, backbones={})
    fake.compare(root, fewer, "cnn")
    track(root, fewer)
    states = {run.data.tags["graft.state"] for run in children(models(root, "removed")["vgg16"]).values()}
    assert states == {"removed"}
