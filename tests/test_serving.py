import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from image_files import encoded, scene
from tiny_models import COLOURS, png, save_network, write_facts

from graft.images import ImageError
from graft.serving import BATCH, load_classifier
from graft.storage import ArtifactError


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


def test_a_picture_above_the_limit_of_pixels_is_refused_by_its_header():
    assert COLOURS.pixels(png("red", (20, 10)), max_pixels=200).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"^too-large: 20 x 10 px are more than 199 pixels$"):
        COLOURS.pixels(png("red", (20, 10)), max_pixels=199)


def test_an_array_is_resized_as_the_same_picture_in_a_file_is():
    picture = scene(1)
    np.testing.assert_array_equal(COLOURS.resized(picture), COLOURS.pixels(encoded(picture, "PNG")))


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


def test_importing_it_imports_neither_mlflow_nor_tensorflow():
    code = (
        "import sys, graft.serving; sys.exit(any(name in sys.modules for name in ('mlflow', 'tensorflow', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
