import json
import random
from pathlib import Path

import hostile_files
import keras
import numpy as np
import pytest
from tiny_models import save_machine, save_network, write_facts

from graft.model_files import check_machine, load_architecture, load_network
from graft.serving import load_classifier
from graft.storage import ArtifactError

TOUCHED = Path("touched")


def refusal(call, path, *others):
    """The one line in which a file is refused."""
    with pytest.raises(ArtifactError) as caught:
        call(path, *others)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("what", hostile_files.hostile_networks(TOUCHED))
def test_a_network_of_a_stranger_is_refused_before_keras_loads_it(tmp_path, monkeypatch, what):
    touched, path = tmp_path / "touched", tmp_path / "model.keras"
    hostile_files.hostile_networks(touched)[what](path)
    monkeypatch.setattr(keras.saving, "load_model", None)
    refusal(load_network, path)
    assert not touched.exists()


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """An SVM as svm.py writes it."""
    folder = tmp_path_factory.mktemp("machine")
    save_machine(write_facts(folder), folder / "source")
    return folder / "svm.skops"


def test_an_svm_of_a_stranger_is_refused_before_skops_loads_it(tmp_path, machine):
    touched, path = tmp_path / "touched", tmp_path / "svm.skops"
    check_machine(machine)
    tried = list(hostile_files.hostile_machines(machine, touched))
    for what, write in tried:
        path.unlink(missing_ok=True)
        write(path)
        assert refusal(check_machine, path), what
    assert len(tried) == 19
    assert not touched.exists()


@pytest.mark.parametrize("what", hostile_files.hostile_configs(TOUCHED))
def test_a_description_of_a_stranger_is_refused(tmp_path, what):
    path, weights = tmp_path / "base.json", tmp_path / "base.weights.h5"
    path.write_text(json.dumps(hostile_files.hostile_configs(tmp_path / "touched")[what]))
    weights.write_bytes(hostile_files.weights())
    refusal(load_architecture, path, weights)
    assert not (tmp_path / "touched").exists()


def test_a_model_that_has_been_trained_is_loaded_as_it_was(tmp_path):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((8, 8, 3)), keras.layers.RandomFlip(), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    head = keras.Sequential([keras.Input((72,)), keras.layers.Dropout(0.5), keras.layers.Dense(3, "softmax")])
    head.compile("adamw", "categorical_crossentropy")  # its optimizer stands in the configuration of the whole
    head.fit(np.ones((4, 72)), np.eye(3)[[0, 1, 2, 0]], verbose=0)
    model = keras.Sequential([*layers, head])
    images = np.random.default_rng(1).random((4, 8, 8, 3), np.float32)
    model.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_loading_draws_no_random_numbers_of_its_own(tmp_path):
    """Else what is drawn afterwards would depend on what was loaded before."""
    save_network(tmp_path)
    random.seed(1)
    keras.saving.load_model(tmp_path / "model.keras", compile=False)
    expected = random.random()
    random.seed(1)
    load_network(tmp_path / "model.keras")
    assert random.random() == expected


def test_a_model_whose_weights_do_not_fit_is_refused(tmp_path):
    wider = hostile_files.network(config={"name": "dense", "units": 1})
    members = {"config.json": json.dumps(wider), "model.weights.h5": hostile_files.weights()}
    hostile_files.zipped(members, tmp_path / "model.keras")
    assert "is not a readable model" in refusal(load_network, tmp_path / "model.keras")


def test_the_message_says_what_is_in_the_file_and_where(tmp_path):
    path = tmp_path / "model.keras"
    hostile_files.hostile_networks(TOUCHED)["names the system's shell"](path)
    assert refusal(load_network, path) == (
        f"{path} is refused: its configuration names 'os.system', which is none of the layers, operations and settings"
        " of Keras that a model of images consists of"
    )
    hostile_files.hostile_networks(TOUCHED)["names a layer that fills the memory"](path)
    assert refusal(load_network, path) == (
        f"{path} is refused: its layers have 4,000,000,000,000 weights, and the file of them 8"
    )
    assert refusal(load_network, tmp_path / "none.keras") == f"{tmp_path}/none.keras is missing; `dvc repro` makes it"


def test_a_model_folder_of_a_stranger_is_not_served(tmp_path):
    save_network(write_facts(tmp_path))
    hostile_files.hostile_networks(TOUCHED)["names a Lambda layer"](tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match=r"model\.keras is refused: its configuration names 'keras.layers.Lambda'"):
        load_classifier(tmp_path)
