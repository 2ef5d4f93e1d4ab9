import shutil
from dataclasses import replace

import fake_mlflow
import fake_tracked as fake
import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_params

from graft import registry
from graft.artifacts import Manifest, Predictions, write_manifest, write_predictions
from graft.registry import RegistryError, promote, register_champion

# isort: split
from mlflow import MlflowClient

IDS = [f"i{number}" for number in range(100)]
CLASSES = ("ant", "bee")
WRITES = (
    *("create_registered_model", "create_model_version", "update_model_version", "set_model_version_tag"),
    *("delete_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias"),
)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    return fake_mlflow.empty_database(tmp_path_factory.getbasetemp())


@pytest.fixture
def project(tmp_path, migrated, monkeypatch):
    """A finished project with an empty MLflow."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    params = fake_params(1)
    fake.finished_project(tmp_path, params, "vgg16")
    return Leaders(tmp_path, params)


class Leaders:
    """Runs that lead the leaderboard one after the other; each is known by how many of 100 images it has right."""

    def __init__(self, root, params):
        self.root, self.params = root, params
        self.client, self.experiment = registry.connect(
            fake_mlflow.default_tracking_uri(root), params.tracking.experiment, root
        )
        (self.model,) = [model for model in fake.trained(root, params) if model.champion]
        self.group({})

    def group(self, groups):
        """Let images belong together that have the same name here."""
        label = [CLASSES[number % 2] for number in range(len(IDS))]
        group = [groups.get(image, image) for image in IDS]
        rows = pd.DataFrame({"image_id": IDS, "label": label, "split": "validation", "group": group})
        write_manifest(self.root / "data" / "prepared", Manifest(rows.assign(source=IDS, width=8, height=8), CLASSES))

    def train(self, right, *, predictions=True):
        """A complete run of a model."""
        path = self.root / f"{right}" / "predictions.parquet"
        chosen = np.eye(2)[[(number + (number >= right)) % 2 for number in range(len(IDS))]]
        rows = pd.DataFrame({"image_id": IDS, "split": "validation", "label": [CLASSES[n % 2] for n in range(100)]})
        write_predictions(path, Predictions(rows, 0.8 * chosen + 0.1, CLASSES))
        run = self.client.create_run(self.experiment)
        if predictions:
            self.client.log_artifact(run.info.run_id, str(path))
        fake_mlflow.log_light_model(self.experiment, run.info.run_id, self.model, self.params.serve)
        metrics = {
            "val_accuracy": right / 100,
            "val_accuracy_low": right / 100 - 0.05,
            "val_accuracy_high": right / 100,
        }
        metrics |= {"test_accuracy": 0.5, "test_accuracy_low": 0.4, "test_accuracy_high": 0.625}
        return run, replace(self.model, predictions=path, metrics=metrics)

    def register(self, leader, **compare):
        params = fake.change(self.params, **{f"compare__{name}": value for name, value in compare.items()})
        return register_champion(self.client, *leader, params, self.root / "data" / "prepared")

    def aliases(self):
        return {alias: int(version) for alias, version in self.client.get_registered_model("graft").aliases.items()}

    def version(self, number):
        return self.client.get_model_version("graft", str(number))


@pytest.fixture
def quiet(monkeypatch):
    """A function after which nothing may be written to the registry, and nothing downloaded."""

    def refuse(*names):
        for name in names or (*WRITES, "download_artifacts", "list_artifacts"):
            monkeypatch.setattr(MlflowClient, name, lambda *_, called=name, **__: pytest.fail(f"{called} was called"))

    return refuse


def test_the_first_version_is_the_champion_and_tells_of_itself(project):
    leader = project.train(90)
    run, _ = leader
    assert project.register(leader) == registry.Registered("1", "champion", "there was no champion")
    assert project.aliases() == {"champion": 1}
    version = project.version(1)
    assert version.run_id == run.info.run_id
    assert version.source == f"models:/{project.client.get_run(run.info.run_id).outputs.model_outputs[0].model_id}"
    assert version.tags == {
        **{"graft.gate": "there was no champion", "graft.gate.result": "champion"},
        **{"model": "vgg16", "kind": "finetune", "val_accuracy": "0.9", "test_accuracy": "0.5"},
    }
    assert "| validation | 90.0 % | 85.0 % to 90.0 % |" in version.description
    assert "| test | 50.0 % | 40.0 % to 62.5 % |" in version.description


def test_a_version_that_is_not_worse_takes_the_alias(project):
    project.register(project.train(90))
    done = project.register(project.train(88))
    assert (done.version, done.alias) == ("2", "champion")
    assert project.aliases() == {"champion": 2}
    tags = project.version(2).tags
    assert (tags["graft.gate.against"], tags["graft.gate.n"]) == ("1", "100")
    assert float(tags["graft.gate.difference"]) == -0.02
    assert float(tags["graft.gate.low"]) < 0 < float(tags["graft.gate.high"])
    assert tags["graft.gate"] == done.reason
    assert "not worse than the present champion" in done.reason


def test_a_version_that_is_surely_worse_is_registered_as_challenger(project):
    project.register(project.train(90))
    done = project.register(project.train(20))
    assert (done.version, done.alias) == ("2", "challenger")
    assert "worse than the present champion: accuracy -70.0 points" in done.reason
    assert project.aliases() == {"champion": 1, "challenger": 2}
    assert project.version(2).tags["graft.gate.result"] == "challenger"
    assert project.version(1).tags["graft.gate"] == "there was no champion"


def test_groups_of_the_manifest_count_as_one_observation(project):
    project.group(dict.fromkeys(IDS[60:], "one scene"))
    project.register(project.train(100))
    assert project.register(project.train(60)).alias == "champion"
    project.group({})
    assert project.register(project.train(59)).alias == "champion"  # against 60
    promote(1, project.params.tracking)
    assert project.register(project.train(58)).alias == "challenger"


@pytest.mark.parametrize("right", [95, 20])
def test_a_second_call_writes_and_downloads_nothing(project, quiet, right):
    project.register(project.train(90))
    leader = project.train(right)
    done = project.register(leader)
    quiet()
    assert project.register(leader) == done


def test_a_leader_that_changes_to_and_fro_passes_the_gate_and_is_judged_once(project, quiet):
    first, second = project.train(90), project.train(92)
    project.register(first)
    project.register(second)
    back = project.register(first)
    assert (back.version, back.alias, project.aliases()) == ("1", "champion", {"champion": 1})
    assert "accuracy -2.0 points" in back.reason
    quiet("download_artifacts")
    assert project.register(second).version == "2"
    assert project.register(first) == back
    assert project.aliases() == {"champion": 1}


def test_a_pair_is_judged_again_where_the_gate_is_set_otherwise(project):
    first, leader = project.train(90), project.train(84)
    project.register(first)
    assert project.register(leader, confidence=0.999).alias == "champion"
    assert project.register(first).alias == "champion"
    assert project.register(leader, confidence=0.999).alias == "champion"
    assert project.register(first).alias == "champion"
    assert project.register(leader, confidence=0.6).alias == "challenger"


def test_a_challenger_that_becomes_champion_challenges_no_more(project):
    project.register(project.train(90))
    challenger = project.train(20)
    project.register(challenger)
    project.register(project.train(95))
    assert project.aliases() == {"champion": 3}
    project.register(challenger)
    assert project.aliases() == {"champion": 3, "challenger": 2}
    promote(2, project.params.tracking)
    assert project.aliases() == {"champion": 2}
    assert project.register(challenger).alias == "champion"


def test_what_was_interrupted_is_done_by_the_next_call(project, monkeypatch):
    project.register(project.train(90))
    leader = project.train(95)
    for call in ("create_model_version", "set_model_version_tag", "update_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                project.register(leader)
    assert project.aliases() == {"champion": 1}
    assert project.register(leader).alias == "champion"
    assert project.aliases() == {"champion": 2}
    assert len(project.client.search_model_versions("name = 'graft'")) == 2


def test_a_champion_whose_predictions_are_not_known_is_followed_and_the_reason_says_so(project):
    project.register(project.train(90, predictions=False))
    done = project.register(project.train(10))
    assert done.alias == "champion"
    assert "version 1 cannot be compared: its run has no predictions" in done.reason
    bad = project.root / "bad" / "predictions.parquet"
    bad.parent.mkdir()
    bad.write_bytes(b"no table")
    project.client.log_artifact(project.version(2).run_id, str(bad))
    done = project.register(project.train(11))
    assert "version 2 cannot be compared: the predictions of its run are damaged" in done.reason
    for run_id, reason in ((None, "it belongs to no run"), ("0" * 32, "its run is gone")):
        version = project.client.create_model_version("graft", str(bad.parent), run_id).version
        project.client.set_registered_model_alias("graft", "champion", version)
        assert f"version {version} cannot be compared: {reason}" in project.register(project.train(12)).reason


def test_a_champion_of_before_the_gate_stays_it(project):
    leader = project.train(90)
    project.register(leader)
    for tag in project.version(1).tags:
        project.client.delete_model_version_tag("graft", "1", tag)
    assert project.register(leader).reason == "it was the champion before there was a gate"


def test_a_version_made_champion_by_hand_stays_until_a_newer_one_is_judged(project, monkeypatch):
    first, second = project.train(90), project.train(95)
    project.register(first)
    project.register(second)
    said = promote(1, project.params.tracking)
    assert said == (
        "version 1 of graft is the champion, in place of version 2; it stays until a version after 2 is judged "
        "against it. A server that runs keeps the model it loaded."
    )
    assert project.aliases() == {"champion": 1}
    assert project.version(1).tags["graft.gate"] == "made the champion by hand, in place of version 2"

    done = project.register(second)
    assert (done.version, done.alias) == ("2", "challenger")
    assert "version 1 was made the champion by hand" in done.reason
    assert "`graft promote 2`" in done.reason
    assert project.aliases() == {"champion": 1, "challenger": 2}
    with monkeypatch.context() as patch:
        for name in (*WRITES, "download_artifacts"):
            patch.setattr(MlflowClient, name, lambda *_, **__: pytest.fail("nothing is new"))
        assert project.register(second) == done
    assert project.register(first).reason == "made the champion by hand, in place of version 2"

    third = project.register(project.train(92))
    assert (third.version, third.alias) == ("3", "champion")
    assert project.aliases() == {"champion": 3}
    assert project.register(first).alias == "champion"  # through the gate
    assert "graft.gate.by_hand" not in project.version(1).tags
    assert project.register(second).alias == "champion"


def test_promoting_a_version_that_does_not_exist_lists_those_there_are(project):
    with pytest.raises(RegistryError, match=r"^graft at sqlite:///.* has no version 1; it has: none; `dvc repro`"):
        promote(1, project.params.tracking)
    project.register(project.train(90))
    project.register(project.train(20))
    with pytest.raises(RegistryError, match=r"has no version 7; it has: 1, 2$"):
        promote(7, project.params.tracking)
    assert "version 2 of graft is the champion, in place of version 1;" in promote(2, project.params.tracking)
    assert "version 2 of graft is the champion; it stays" in promote(2, project.params.tracking)


def test_a_version_asked_for_twice_after_a_lost_answer_is_one(project, monkeypatch):
    create = MlflowClient.create_model_version
    monkeypatch.setattr(
        MlflowClient, "create_model_version", lambda *args, **named: (create(*args, **named), create(*args, **named))[1]
    )
    leader = project.train(90)
    assert project.register(leader).version == project.register(leader).version == "1"
    assert len(project.client.search_model_versions("name = 'graft'")) == 1
