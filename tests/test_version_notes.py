import fake_tracked as fake
import pytest
from fake_runs import fake_params

from graft.version_notes import describe_version, shown_facts


@pytest.fixture
def models(tmp_path):
    params = fake_params(1)
    fake.finished_project(tmp_path, params, "vgg16")
    return {model.name: model for model in fake.trained(tmp_path, params)}


def test_the_accuracies_that_there_are_are_shown(models):
    assert shown_facts(models["vgg16"]) == {
        **{"model": "vgg16", "kind": "finetune", "val_accuracy": "0.75", "test_accuracy": "0.7"},
    }
    assert shown_facts(models["cnn"]) == {"model": "cnn", "kind": "baseline", "val_accuracy": "0.75"}


def test_the_description_says_what_each_figure_is_for(models):
    text = describe_version(models["vgg16"], 0.95)
    assert text.splitlines()[0] == f"**vgg16** (finetune), training `{models['vgg16'].key[:12]}`"
    assert "| images | accuracy | 95 % interval |" in text
    assert "| validation | 75.0 % | - to - |" in text  # the fake leaderboard has no interval
    assert "| test | 70.0 % | 60.0 % to - |" in text
    assert "never used" in text
    assert "| test |" not in describe_version(models["cnn"], 0.95)
