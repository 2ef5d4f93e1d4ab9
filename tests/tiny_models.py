"""Models that fit in a second, in the folders that the training stages write, and pictures for them."""

from __future__ import annotations

import io
import json

import fake_tracked as fake
import numpy as np
from PIL import Image

from graft.calibration import Calibration, write_calibration
from graft.serving import Classifier
from graft.storage import write_json


def png(colour, size=(20, 10)):
    """A PNG of one colour."""
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
    base = {"backbone": "vgg16", "application": "VGG16", "input_size": 32, "image_size": 8}
    base |= {"svm_layers": [{"layer": "top", "pooling": "avg"}], "batch_size": 4, "storage": "float32"}
    write_json(folder / "base.json", base | {"weights_sha256": card["weights_sha256"]})
    random, labels = np.random.default_rng(0), np.repeat(np.arange(3), 8)
    pixels = random.integers(0, 100, (24, 8, 8, 3))
    pixels[np.arange(24), :, :, labels] += 150
    extract = load_extractor(json.loads((folder / "base.json").read_text()), source)
    settings = Svm(kernels=["rbf"], c=[1.0], folds=2, max_rows=100, approximation="linear", components=2)
    machine = fit_svm(extract(pixels.astype(np.uint8)), labels, np.arange(24), settings, 1)
    save_svm(folder / "svm.skops", machine.model)
