import base64
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import fake_tracked as fake
import numpy as np
import pytest
from fake_runs import fake_params
from PIL import Image

from graft import serving
from graft.calibration import Calibration, write_calibration
from graft.images import ImageError
from graft.serving import BATCH, Classifier, load_classifier
from graft.storage import ArtifactError, write_json


def png(colour, size=(20, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def reddest(images):
    """Probabilities red, green and blue of the pictures, as shares of their sums."""
    assert images.dtype == np.uint8
    assert images.shape[1:] == (8, 8, 3)
    sums = images.sum(axis=(1, 2), dtype=np.float64)
    return sums / sums.sum(axis=1, keepdims=True)


COLOURS = Classifier(("red", "green", "blue"), 8, "stretch", reddest, temperature=1.0, abstain_below=0.9)


def test_files_of_any_size_are_classified_in_their_order():
    files = [png(colour, (number % 7 + 1, 9)) for number, colour in enumerate(["red", "blue"] * BATCH)]
    probabilities = COLOURS.classify(files)
    assert probabilities.shape == (2 * BATCH, 3)
    assert probabilities.argmax(axis=1).tolist() == [0, 2] * BATCH


def test_no_files_give_no_rows():
    assert COLOURS.classify([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("bad", "reason"), [(b"", "empty-file"), (b"no picture", "not-an-image"), (png("red", (99, 99))[:80], "truncated")]
)
def test_a_file_that_is_no_picture_is_named_by_its_position(bad, reason):
    files = [png("red")] * (BATCH + 1) + [bad]
    with pytest.raises(ImageError, match=rf"^{reason}: image {BATCH + 1}: ") as caught:
        COLOURS.classify(files)
    assert caught.value.reason == reason


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"classes.json is missing"):
        load_classifier(tmp_path)
    write_facts(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds neither model.keras nor svm.skops"):
        load_classifier(tmp_path)
    (tmp_path / "svm.skops").touch()
    with pytest.raises(ArtifactError, match="is an SVM on the features of a base; its models/source folder"):
        load_classifier(tmp_path)


def test_a_model_from_before_calibration_is_refused_by_name(tmp_path):
    save_network(write_facts(tmp_path))
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(ArtifactError, match=r"calibration.json is missing; `dvc repro` makes it"):
        load_classifier(tmp_path)


def test_probabilities_are_calibrated_by_the_folders_temperature(tmp_path):
    files = [png("red"), png("#4080c0")]
    save_network(write_facts(tmp_path))
    plain = load_classifier(tmp_path).classify(files)
    calibrated = load_classifier(write_facts(tmp_path, temperature=2.0)).classify(files)
    roots = np.sqrt(plain)  # a temperature of 2 halves the logarithms
    np.testing.assert_allclose(calibrated, roots / roots.sum(axis=1, keepdims=True), rtol=1e-6)


def test_a_prediction_below_the_threshold_abstains():
    probabilities = np.array([[0.95, 0.03, 0.02], [0.9, 0.1, 0.0], [0.3, 0.1, 0.6]])
    assert COLOURS.abstains(probabilities).tolist() == [False, False, True]
    assert replace(COLOURS, abstain_below=None).abstains(probabilities).all()
    assert COLOURS.abstains(np.empty((0, 3))).shape == (0,)


def test_requirements_are_pinned_to_what_is_installed():
    from importlib.metadata import version

    pins = dict(line.split("==") for line in serving.requirements())
    assert {"tensorflow", "tensorflow-cpu"} & set(pins)
    assert pins["skops"] == version("skops")


def test_importing_it_imports_neither_mlflow_nor_tensorflow():
    code = (
        "import sys, graft.serving; sys.exit(any(name in sys.modules for name in ('mlflow', 'tensorflow', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def write_facts(folder, *, temperature=1.0, abstain_below=0.9):
    """What every model folder holds beside the model."""
    write_json(folder / "classes.json", list(fake.CLASSES))
    write_json(folder / "input.json", {"image_size": 8, "resize": "stretch"})
    write_calibration(folder, Calibration(temperature, abstain_below, abstain_accuracy=0.99))
    return folder


def save_network(folder):
    import keras

    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(scaled))
    keras.Model(images, outputs).save(folder / "model.keras")


def save_machine(folder, source):
    """An SVM on a base of one convolution."""
    import keras

    from graft.extraction import load_extractor
    from graft.sections import Svm
    from graft.svm import fit_svm, save_svm
    from graft.weights import save_base

    keras.utils.set_random_seed(1)
    images = keras.Input((32, 32, 3))
    source.mkdir(parents=True, exist_ok=True)
    save_base(source, keras.Model(images, keras.layers.Conv2D(4, 3, strides=8, activation="relu")(images)), {})
    card = json.loads((source / "card.json").read_text())
    base = {"backbone": "vgg16", "application": "VGG16", "input_size": 32, "image_size": 8, "pooling": "avg"}
    write_json(
        folder / "base.json", {**base, "batch_size": 4, "storage": "float32", "weights_sha256": card["weights_sha256"]}
    )
    random, labels = np.random.default_rng(0), np.repeat(np.arange(3), 8)
    pixels = random.integers(0, 100, (24, 8, 8, 3))
    pixels[np.arange(24), :, :, labels] += 150
    extract = load_extractor(json.loads((folder / "base.json").read_text()), source)
    settings = Svm(kernels=["rbf"], c=[1.0], folds=2, max_rows=100, approximation="linear", components=2)
    machine = fit_svm(extract(pixels.astype(np.uint8)), labels, np.arange(24), settings, 1)
    save_svm(folder / "svm.skops", machine.model)


SERVE = """\
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
good, bad = model.predict(json.loads(sys.argv[3])), []
for broken in ("no base64!", "bm8gcGljdHVyZQ=="):
    try:
        model.predict([broken])
    except mlflow.exceptions.MlflowException as error:
        bad.append([error.error_code, str(error)])
import graft
print(json.dumps([good, bad, graft.__file__]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("champion", ["cnn", "vgg16-svm"])
def test_the_registered_champion_loads_elsewhere_and_answers_as_the_model_does_here(tmp_path, monkeypatch, champion):
    from graft.tracking import publish

    params = fake_params(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fake.finished_project(tmp_path, params, champion)
    source = tmp_path / "models" / "source" / "vgg16" if champion == "vgg16-svm" else None
    if source:
        save_machine(tmp_path / "models" / champion, source)
    else:
        save_network(tmp_path / "models" / champion)
    write_facts(tmp_path / "models" / champion, temperature=1.5, abstain_below=0.5)
    uri = publish(fake.trained(tmp_path, params), fake.TRACKING, fake.project(tmp_path, params)).uri
    files = [png("red"), png("#4080c0", (5, 50))]
    classifier = load_classifier(tmp_path / "models" / champion, source)
    expected = classifier.classify(files)
    shutil.rmtree(tmp_path / "models")  # whatever answers now came from the registry

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    encoded = json.dumps([base64.b64encode(content).decode() for content in files])
    command = [sys.executable, "-W", "ignore", "-c", SERVE, uri, "models:/graft@champion", encoded]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    good, bad, package = json.loads(done.stdout.splitlines()[-1])
    assert [list(answer["probabilities"]) for answer in good] == [list(fake.CLASSES)] * 2
    given = np.array([list(answer["probabilities"].values()) for answer in good])
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert [answer["class"] for answer in good] == [fake.CLASSES[row.argmax()] for row in expected]
    assert [answer["abstain"] for answer in good] == classifier.abstains(expected).tolist()
    assert [code for code, _ in bad] == ["INVALID_PARAMETER_VALUE"] * 2
    assert "expected base64-encoded image files" in bad[0][1]
    assert "not-an-image: image 0" in bad[1][1]
    assert "mlartifacts" in package  # the package that was logged with the model
