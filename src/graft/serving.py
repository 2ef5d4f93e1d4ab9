"""A model's folder to a classifier of pictures, of either kind of model; pyfunc_model.py serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.calibration import apply_temperature, read_calibration
from graft.images import ImageError, decode, resize
from graft.model_files import load_network
from graft.storage import ArtifactError, read_json

if TYPE_CHECKING:
    import keras

BATCH = 64  # images at a time, which bounds the memory of a large request


@dataclass(frozen=True)
class Classifier:
    """A trained model of either kind with all it needs to look at a picture.

    Attributes:
        classes: names in the order of the probabilities.
        image_size: px per side that the pictures are resized to, by `resize` (stretch, crop or pad).
        apply: RGB 0..255 (n, image_size, image_size, 3) to probabilities (n, classes) as the model was trained.
        temperature: calibrates them.
        abstain_below: calibrated confidence under which a prediction is no answer; None: none is one.
        network: whole, from images to probabilities; None for an SVM.
    """

    classes: tuple[str, ...]
    image_size: int
    resize: Any
    apply: Callable[[np.ndarray], np.ndarray]
    temperature: float
    abstain_below: float | None
    network: keras.Model | None = None

    def classify(self, files: Sequence[bytes]) -> np.ndarray:
        """Calibrated probabilities (n, classes) of image files.

        Raises:
            ImageError: a file is no picture; its position and the reason are named.
        """
        parts = [self.probabilities(self._batch(files, start)) for start in range(0, len(files), BATCH)]
        return np.concatenate([np.empty((0, len(self.classes))), *parts])

    def pixels(self, content: bytes, max_pixels: int | None = None) -> np.ndarray:
        """An image file as the model sees it: RGB 0..255 (image_size, image_size, 3).

        Args:
            content: of the file.
            max_pixels: a larger picture is refused by its header; None: Pillow's own limit.

        Raises:
            ImageError: the bytes are no picture, or one that is refused.
        """
        return self.resized(decode(content, max_pixels=max_pixels))

    def resized(self, image: np.ndarray) -> np.ndarray:
        """An image of any size, uint8 RGB (height, width, 3), as the model sees it."""
        return resize(image, self.image_size, self.resize)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) of images from `pixels`, (n, image_size, image_size, 3)."""
        return apply_temperature(self.apply(images).astype(np.float64), self.temperature)

    def abstains(self, probabilities: np.ndarray) -> np.ndarray:
        """Which rows of calibrated probabilities (n, classes) are too unsure to be an answer, as booleans (n,)."""
        threshold = np.inf if self.abstain_below is None else self.abstain_below
        return np.asarray(probabilities.max(axis=1, initial=0) < threshold)

    def _batch(self, files: Sequence[bytes], start: int) -> np.ndarray:
        images = []
        for number, content in enumerate(files[start : start + BATCH], start=start):
            try:
                images.append(self.pixels(content))
            except ImageError as error:
                raise ImageError(error.reason, f"image {number}: {error.detail}") from None
        return np.stack(images)


def load_classifier(folder: Path, source: Path | None = None) -> Classifier:
    """The classifier of a models/<name> folder.

    Args:
        folder: holds classes.json, input.json and calibration.json, and model.keras or else svm.skops with base.json.
        source: models/source/<backbone>, for an SVM, which is stored without the base that makes its features.

    Raises:
        ArtifactError: a file is missing, damaged, of another base, or a model file that could run code.
    """
    classes, shape = tuple(read_json(folder / "classes.json")), read_json(folder / "input.json")
    calibration = read_calibration(folder)
    apply: Callable[[np.ndarray], np.ndarray]
    network = None
    if (folder / "model.keras").exists():
        network = load_network(folder / "model.keras")
        apply = partial(_apply_network, network)
    elif not (folder / "svm.skops").exists():
        raise ArtifactError(f"{folder} holds neither model.keras nor svm.skops; `dvc repro` makes one")
    elif source is None:
        raise ArtifactError(f"{folder} is an SVM on the features of a base; its models/source folder must be given too")
    else:
        apply = _machine(folder, source)
    return Classifier(
        classes,
        shape["image_size"],
        shape["resize"],
        apply,
        temperature=calibration.temperature,
        abstain_below=calibration.abstain_below,
        network=network,
    )


def _apply_network(network: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(network.predict_on_batch(images))


def _machine(folder: Path, source: Path) -> Callable[[np.ndarray], np.ndarray]:
    from graft.extraction import load_extractor
    from graft.svm import load_svm

    machine, extract = load_svm(folder / "svm.skops"), load_extractor(read_json(folder / "base.json"), source)
    return lambda images: machine.predict_proba(extract(images))
