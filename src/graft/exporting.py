"""A trained model for other runtimes, from pixels to calibrated probabilities, checked against the model itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import predicting
from graft.artifacts import read_images, read_manifest, read_predictions
from graft.calibration import FLOOR
from graft.export_checks import Agreement, check
from graft.export_formats import FILES, INPUT, OUTPUT, Apply, ExportError, load_exported, write_network
from graft.images import FILTER
from graft.journal import read_journal
from graft.serving import Classifier
from graft.shards import Shards
from graft.storage import ArtifactError, new_folder, read_json, write_json

if TYPE_CHECKING:
    import keras

MODELS, RUNS, PREPARED = Path("models"), Path("reports/runs"), Path("data/prepared")
PACKAGES = ("graft", "tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime", "scikit-learn")
UNDECIDED = 2e-4  # of an SVM's decision values, on which float32 errs by up to 8e-5 in the default pipeline


def export(out_format: str, model: str | None = None, out: Path = Path("exports")) -> str:
    """Write `out`/<model>/<format>, whole or not at all, and say how it compares with the model.

    The folder holds the exported model, classes.json and card.json, which says what goes in and what comes out.

    Args:
        out_format: savedmodel, onnx or tflite.
        model: of models/; the champion of the leaderboard if not given.
        out: folder of all exported models.

    Raises:
        ExportError: there is no such format, a file is where the folder should be, the format lacks a layer of the
            model, or what was written does not give the model's probabilities on the test images (validation images
            where there are none).
        ParamsError: there is no such model.
    """
    if out_format not in FILES:
        raise ExportError(f"format must be one of {', '.join(FILES)}, received {out_format!r}")
    name = model or predicting.champion(Path("reports/leaderboard.json"))
    target = out / name / out_format
    if target.is_symlink() or any(path.exists() and not path.is_dir() for path in (target, *target.parents)):
        raise ExportError(f"{target} must be a folder, or not there yet, received a file or link on its way")
    classifier = predicting.load_model(name, MODELS)
    images = _held_out(name, classifier)
    network, undecided = _whole_network(name, classifier)
    with new_folder(target) as folder, _full_precision():
        exported = load_exported(write_network(network, folder, out_format), out_format)
        agreement = check(
            exported, classifier.probabilities, images.pixels, images.rows, saved=images.saved, undecided=undecided
        )
        write_json(folder / "classes.json", list(classifier.classes))
        write_json(folder / "card.json", _card(name, out_format, classifier, images.split, agreement))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return _line(target / FILES[out_format], size, images.split, agreement)


@contextmanager
def _full_precision() -> Iterator[None]:
    """On a GPU TensorFlow would keep ten bits of what it multiplies, and no other runtime could agree with that."""
    from tensorflow.config import experimental

    before = experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        experimental.enable_tensor_float_32_execution(before)


@dataclass(frozen=True)
class _HeldOut:
    """The images that an exported model is checked on.

    Attributes:
        split: test; validation where there is no test image.
        pixels: of all prepared images.
        rows: row numbers of the split in pixels.
        saved: probabilities (rows, classes) that training saved of them.
    """

    split: str
    pixels: Shards
    rows: np.ndarray
    saved: np.ndarray


def _held_out(name: str, classifier: Classifier) -> _HeldOut:
    """Read what a model was not trained on.

    Raises:
        ArtifactError: a file is missing, or model, predictions and images are not of the same data.
    """
    manifest = read_manifest(PREPARED)
    pixels = read_images(PREPARED, manifest.rows)
    path = RUNS / name / "predictions.parquet"
    predictions = read_predictions(path, manifest=manifest)
    split = "test" if len(manifest.positions("test")) else "validation"
    rows = manifest.positions(split)
    chosen = (predictions.rows["split"] == split).to_numpy()
    same_images = predictions.rows["image_id"][chosen].tolist() == manifest.rows["image_id"].iloc[rows].tolist()
    size = pixels.row_shape[0]
    if not (same_images and predictions.classes == classifier.classes and size == classifier.image_size):
        raise ArtifactError(
            f"{MODELS / name}, {path} and {PREPARED} must be of the same images, classes and size, received models of "
            f"different ones; `dvc repro` makes them anew"
        )
    return _HeldOut(split, pixels, rows, predictions.probabilities[chosen])


def _whole_network(name: str, classifier: Classifier) -> tuple[keras.Model, Apply]:
    """Images as uint8 to calibrated probabilities; and which images the model may decide either way.

    The latter is what svm_network.undecided says of an SVM's features; a network's probabilities have no jumps.
    """
    if classifier.network is not None:
        network = calibrated_network(classifier.network, classifier.image_size, classifier.temperature)
        return network, lambda images: np.zeros(len(images), bool)

    import keras

    from graft.extraction import described_pass, load_extractor
    from graft.svm import load_svm
    from graft.svm_network import machine_network, undecided
    from graft.weights import load_base

    description = read_json(MODELS / name / "base.json")
    source = MODELS / "source" / description["backbone"]
    machine, extract = load_svm(MODELS / name / "svm.skops"), load_extractor(description, source)
    features = described_pass(load_base(source), description)
    joined = keras.Model(features.input, machine_network(machine, description["storage"])(features.outputs[0]))
    network = calibrated_network(joined, classifier.image_size, classifier.temperature)
    return network, lambda images: undecided(machine, extract(images), UNDECIDED)


def calibrated_network(model: keras.Model, image_size: int, temperature: float) -> keras.Model:
    """RGB 0..255 `images` (n, image_size, image_size, 3) as uint8 to calibrated `probabilities` (n, classes).

    Bytes, because no runtime lacks them, and because pixels that someone divided by 255 are then refused.

    Args:
        model: the same in float32, not calibrated.
        image_size: px per side.
        temperature: as of calibration.apply_temperature.
    """
    import keras

    images = keras.Input((image_size, image_size, 3), dtype="uint8", name=INPUT)
    raw = _portable(model)(keras.ops.cast(images, "float32"), training=False)
    scaled = keras.ops.log(keras.ops.maximum(raw, FLOOR)) / temperature
    return keras.Model(images, {OUTPUT: keras.ops.softmax(scaled)}, name="exported")


def _portable(model: keras.Model) -> keras.Model:
    """The model with every antialiased resize, which TensorFlow Lite and ONNX lack, as what it is: two products."""
    import keras

    def replaced(layer: Any) -> Any:
        if not (isinstance(layer, keras.layers.Resizing) and layer.antialias):
            return layer
        return _resize_as_products(layer)

    return keras.models.clone_model(model, clone_function=replaced)


def _resize_as_products(layer: Any) -> keras.Model:
    """A layer that resizes images of one size, as a product with a matrix along each side."""
    import keras

    _, height, width, channels = layer.input.shape
    rows, columns = _weights(layer, height, 0), _weights(layer, width, 1)
    images = keras.Input((height, width, channels))
    wide = keras.ops.matmul(keras.ops.transpose(images, (0, 2, 3, 1)), rows.T)  # (n, width, channels, rows)
    small = keras.ops.matmul(keras.ops.transpose(wide, (0, 2, 3, 1)), columns.T)  # (n, channels, rows, columns)
    return keras.Model(images, keras.ops.transpose(small, (0, 2, 3, 1)), name=layer.name)


def _weights(layer: Any, size: int, axis: int) -> np.ndarray:
    """What each of `size` pixels along an axis gives to each pixel of the resized image: (resized, size)."""
    import keras

    unit = np.eye(size, dtype=np.float32)[..., None, None]  # image i is white at row i alone
    resize = keras.layers.Resizing(*((layer.height, 1) if axis == 0 else (layer.width, 1)), antialias=True)
    return np.asarray(resize(unit))[:, :, 0, 0].T


def _card(name: str, out_format: str, classifier: Classifier, split: str, agreement: Agreement) -> dict[str, Any]:
    """What a person must know to use the exported model, and whence it comes."""
    size = classifier.image_size
    shape: list[int | str] = ["n", size, size, 3]
    return {
        "model": name,
        "run": read_journal(RUNS / name / "journal.jsonl").header["key"],
        "format": out_format,
        "classes": list(classifier.classes),
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": shape,
            "range": [0, 255],
            "meaning": "RGB; decoded, turned upright by EXIF, transparency on white, and resized by whoever asks",
            "resize": {"how": classifier.resize, "filter": f"{FILTER.name} of Pillow"},
        },
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["n", len(classifier.classes)], "calibrated": True},
        "temperature": classifier.temperature,
        "abstain_below": classifier.abstain_below,
        "check": {"split": split, **asdict(agreement)},
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    installed = {package.metadata["Name"].lower(): package.version for package in metadata.distributions()}
    return {"python": sys.version.split()[0]} | {name: installed[name] for name in PACKAGES if name in installed}


def _line(path: Path, size: int, split: str, agreement: Agreement) -> str:
    aside = f", {agreement.undecided} aside that the SVM itself may decide either way" if agreement.undecided else ""
    return (
        f"{path}: {size / 1e6:.1f} MB; on {agreement.images} {split} images{aside} probabilities differ by at most "
        f"{agreement.difference:.1e} from the model's and {agreement.saved_difference:.1e} from those that training "
        f"saved, and {agreement.agreement:.1%} of the classes agree"
    )
