import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from graft import exporting, networks
from graft.artifacts import Manifest, Predictions, write_manifest, write_predictions
from graft.calibration import Calibration, apply_temperature, write_calibration
from graft.export_formats import ExportError, load_exported
from graft.exporting import calibrated_network, export
from graft.extraction import load_extractor
from graft.journal import Journal
from graft.params import ParamsError
from graft.predicting import load_model
from graft.sections import Svm
from graft.shards import ShardWriter
from graft.storage import ArtifactError, read_json, write_json, write_table
from graft.svm import fit_svm, save_svm
from graft.weights import save_base

SIZE, CLASSES = 12, ("ants", "bees", "wasps")
SPLITS = np.repeat(["train", "validation", "test"], [24, 15, 70])
LABELS = np.arange(len(SPLITS)) % len(CLASSES)


def pixels():
    """Pictures that differ by their strongest colour."""
    random = np.random.default_rng(0)
    images = random.integers(0, 150, (len(SPLITS), SIZE, SIZE, 3))
    images[np.arange(len(LABELS)), :, :, LABELS] += 40
    return images.astype(np.uint8)


def save_network(folder):
    """A trained model with all that an input may go through: smaller, in grey beside colour, standardised."""
    keras.utils.set_random_seed(1)
    images = networks.image_input(SIZE)
    small = networks.resized(images, SIZE, 8)
    both = keras.layers.Concatenate()([small, keras.ops.image.rgb_to_grayscale(small)])
    x = keras.layers.Normalization(mean=[90.0] * 4, variance=[900.0] * 4)(both)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    outputs = keras.layers.Dense(len(CLASSES), activation="softmax")(keras.layers.Flatten()(x))
    keras.Model(images, outputs).save(folder / "model.keras")


def save_machine(folder, source, layers):
    """An SVM on a base of one convolution."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 3))
    source.mkdir(parents=True)
    maps = keras.layers.Conv2D(6, 3, strides=8, activation="relu", name="conv")(inputs)
    save_base(source, keras.Model(inputs, maps), {})
    base = {"backbone": source.name, "application": "VGG16", "input_size": 32, "image_size": SIZE}
    base["svm_layers"] = [{"layer": layer, "pooling": pooling} for layer, pooling in layers]
    base |= {"batch_size": 8, "storage": "float32", "weights_sha256": read_json(source / "card.json")["weights_sha256"]}
    write_json(folder / "base.json", base)
    train = SPLITS == "train"
    features = load_extractor(base, source)(pixels()[train])
    settings = Svm(kernels=["rbf"], c=[1.0], folds=2, max_rows=100, approximation="linear", components=2)
    save_svm(folder / "svm.skops", fit_svm(features, LABELS[train], np.arange(train.sum()), settings, 1).model)


def add_model(root, name):
    """What a training stage leaves of a model, the probabilities of the held-out images among it."""
    folder, run = root / "models" / name, root / "reports" / "runs" / name
    folder.mkdir(parents=True)
    write_json(folder / "classes.json", list(CLASSES))
    write_json(folder / "input.json", {"image_size": SIZE, "resize": "crop"})
    write_calibration(folder, Calibration(0.7, 0.8, abstain_accuracy=0.99))
    if name.endswith("-svm"):
        several = [("conv", "min"), ("top", "max"), ("conv", "flatten")]
        layers = several if name == "several-svm" else [("top", "avg")]
        save_machine(folder, root / "models" / "source" / name.removesuffix("-svm"), layers)
    else:
        save_network(folder)
    held_out = SPLITS != "train"
    probabilities = load_model(name, root / "models").probabilities(pixels()[held_out])
    digest = Manifest(rows(), CLASSES).digest
    write_predictions(run / "predictions.parquet", Predictions(rows()[held_out], probabilities, CLASSES, 0.7, digest))
    header = {"key": f"key of {name}", "model": name, "kind": "baseline", "backbone": None, "stage": name, "params": {}}
    Journal.start(root / "work" / name, header).move_to(run / "journal.jsonl")


def rows():
    ids = [f"{number:03}" for number in range(len(SPLITS))]
    columns = {"image_id": ids, "label": np.array(CLASSES)[LABELS], "split": SPLITS, "group": ids, "source": ids}
    return pd.DataFrame(columns | {"width": SIZE, "height": SIZE})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A finished project of one network, its champion."""
    prepared = tmp_path / "data" / "prepared"
    write_manifest(prepared, Manifest(rows(), CLASSES))
    with ShardWriter(prepared, "images", (SIZE, SIZE, 3), np.uint8, rows()) as writer:
        writer.append(pixels())
    add_model(tmp_path, "cnn")
    write_json(tmp_path / "reports" / "leaderboard.json", [{"model": "cnn", "champion": True}])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("out_format", "file"), [("savedmodel", ""), ("onnx", "model.onnx"), ("tflite", "model.tflite")]
)
@pytest.mark.parametrize("name", ["cnn", "vgg16-svm", "several-svm"])
def test_an_exported_model_answers_as_the_model_does(project, name, out_format, file):
    if name != "cnn":
        add_model(project, name)
    line = export(out_format, name)
    folder = project / "exports" / name / out_format
    assert line.startswith(f"exports/{name}/{out_format}/{file}".rstrip("/"))
    assert "on 70 test images probabilities differ by at most" in line

    apply = load_exported(folder / file, out_format)
    expected = load_model(name, project / "models").probabilities(pixels())
    np.testing.assert_allclose(apply(pixels()), expected, atol=1e-5)
    assert len(np.unique(expected.argmax(axis=1))) > 1
    assert read_json(folder / "classes.json") == list(CLASSES)
    card = read_json(folder / "card.json")
    assert (card["model"], card["run"], card["format"]) == (name, f"key of {name}", out_format)
    assert (card["classes"], card["temperature"], card["abstain_below"]) == (list(CLASSES), 0.7, 0.8)
    assert (card["input"]["dtype"], card["input"]["shape"]) == ("uint8", ["n", SIZE, SIZE, 3])
    assert (card["input"]["range"], card["input"]["resize"]["how"]) == ([0, 255], "crop")
    assert (card["check"]["split"], card["check"]["images"]) == ("test", 70)
    assert card["check"]["difference"] < 1e-5
    assert card["versions"]["keras"] == keras.__version__


def test_the_champion_is_exported_and_replaces_an_earlier_export(project):
    leftover = project / "exports" / "cnn" / "savedmodel" / "leftover"
    leftover.mkdir(parents=True)
    export("savedmodel")
    assert not leftover.exists()
    assert (leftover.parent / "card.json").exists()


def test_without_test_images_validation_checks(project):
    only = rows().replace({"split": {"test": "train"}})
    manifest = Manifest(only, CLASSES)
    write_manifest(project / "data" / "prepared", manifest)
    probabilities = load_model("cnn", project / "models").probabilities(pixels()[SPLITS == "validation"])
    predictions = Predictions(only[only["split"] == "validation"], probabilities, CLASSES, 0.7, manifest.digest)
    write_predictions(project / "reports" / "runs" / "cnn" / "predictions.parquet", predictions)
    assert "on 15 validation images" in export("savedmodel")


def test_an_export_that_is_not_the_model_is_refused_and_leaves_nothing(project, monkeypatch):
    def another(model, image_size, temperature):
        return calibrated_network(model, image_size, 2 * temperature)

    monkeypatch.setattr(exporting, "calibrated_network", another)
    with pytest.raises(ExportError, match=r"differ by up to 0\.\d+ from the model's own \(70 of 70 images reach "):
        export("savedmodel")
    assert list((project / "exports" / "cnn").iterdir()) == []


def test_a_model_and_images_of_different_data_are_refused(project):
    path = project / "reports" / "runs" / "cnn" / "predictions.parquet"
    frame = pd.read_parquet(path)
    write_table(path, frame[frame["image_id"] != "100"])
    with pytest.raises(ArtifactError, match=r"cnn/predictions.parquet must have \d+ rows, as the manifest has"):
        export("onnx")


def test_an_unknown_format_is_refused_with_those_there_are(project):
    with pytest.raises(ExportError, match="format must be one of savedmodel, onnx, tflite, received 'tensorrt'"):
        export("tensorrt")
    assert not (project / "exports").exists()


@pytest.mark.parametrize("blocked", ["exports", "exports/cnn", "exports/cnn/onnx"])
def test_a_file_in_place_of_the_folder_is_refused_before_the_work(project, monkeypatch, blocked):
    (project / blocked).parent.mkdir(parents=True, exist_ok=True)
    (project / blocked).write_text("mine")
    monkeypatch.setattr(exporting, "write_network", None)
    with pytest.raises(ExportError, match="exports/cnn/onnx must be a folder, or not there yet, received"):
        export("onnx")
    assert (project / blocked).read_text() == "mine"


def test_a_link_in_place_of_the_folder_is_refused_before_the_work(project):
    (project / "exports" / "cnn").mkdir(parents=True)
    (project / "exports" / "cnn" / "onnx").symlink_to(project)
    with pytest.raises(ExportError, match="exports/cnn/onnx must be a folder, or not there yet, received"):
        export("onnx")


def test_an_unknown_model_is_refused_with_those_there_are(project):
    with pytest.raises(ParamsError, match="has no model 'vgg'; it has: cnn"):
        export("onnx", "vgg")


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_calibration_is_as_that_of_the_predictions(temperature):
    images = keras.Input((1, 1, 3))
    given = np.array([[255, 0, 0], [85, 85, 85], [200, 55, 0], [1, 0, 254]])
    model = keras.Model(images, keras.ops.reshape(images / 255.0, (-1, 3)))
    network = calibrated_network(model, 1, temperature)
    found = network.predict_on_batch(given.astype(np.uint8)[:, None, None])["probabilities"]
    np.testing.assert_allclose(found, apply_temperature(given / 255, temperature), atol=1e-6)


@pytest.mark.parametrize(("size", "resized"), [(12, 8), (9, 9), (7, 10), (31, 5)])
def test_images_are_resized_as_by_the_model(size, resized):
    images = networks.image_input(size)
    smaller = networks.resized(images, size, resized)
    model = keras.Model(images, keras.layers.Flatten()(smaller / 255.0))
    given = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    found = calibrated_network(model, size, 1.0).predict_on_batch(given)["probabilities"]
    np.testing.assert_allclose(found, apply_temperature(model.predict_on_batch(given), 1.0), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_the_command_prints_one_line_and_no_log_of_a_converter(project):
    command = [sys.executable, "-m", "graft.cli", "export", "tflite", "--out", "elsewhere"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("elsewhere/cnn/tflite/model.tflite: ")
    assert done.stdout.count("\n") == 1
    assert len([line for line in done.stderr.splitlines() if "0000 " not in line and "absl" not in line]) == 0
    assert json.loads((project / "elsewhere" / "cnn" / "tflite" / "card.json").read_text())["format"] == "tflite"
