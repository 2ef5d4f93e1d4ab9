"""Small but real inputs of the training stages: digits prepared by the pipeline's own code, and narrow bases."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graft.params import Params, load_params
from graft.sections import Backbone

ROOT = Path(__file__).resolve().parents[1]


def tiny_params(**changes: object) -> Params:
    """The committed params, cut down to seconds: one VGG16 and one MobileNet a tenth as wide, few images and epochs."""
    values = load_params(ROOT / "params.yaml").model_dump(mode="json")
    values["data"] |= {"train_per_class": 6}
    values["augment"] |= {"views": 3}
    values["pretrain"] |= {"images_per_class": 4, "validation": 0.25}
    values["backbones"] = {name: values["backbones"][name] for name in ("vgg16", "mobilenet")}
    for name, width in (("vgg16", 0.1), ("mobilenet", 0.25)):
        backbone = values["backbones"][name]
        backbone["base"]["width"] = width
        backbone["pretrain"]["epochs"] = 1
        backbone["finetune"] |= {"epochs": 2, "unfrozen_epochs": 2}
        backbone["svm"] |= {"kernels": ["rbf"], "c": [1, 10], "folds": 2}
    values["baselines"] = {"cnn": values["baselines"]["cnn"]}
    values["baselines"]["cnn"]["train"] |= {"epochs": 2}
    values["transferability"] |= {"folds": 2, "max_points": 50}
    values["inspect"] |= {"images": 2, "occlusion_stride": 8, "repeats": 5}
    values["curve"] |= {"seeds": 2}
    values["compare"] |= {"resamples": 200}
    values["tracking"] |= {"live": False}
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = values
        for parent in parents:
            node = node[parent]
        node[last] = value
    return Params.model_validate(values)


def learnable_digits(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Sixty images (60, size, size, 3) of three digits and their labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:20] for digit in range(3)])
    images = np.repeat(np.repeat(pixels[chosen].reshape(-1, 8, 8), size // 8, axis=1), size // 8, axis=2)
    return np.repeat((images * 255 / 16).round().astype(np.uint8)[..., None], 3, axis=3), labels[chosen]


def backbone(name: str = "mobilenet", **changes: object) -> Backbone:
    """A row of tiny_params."""
    return tiny_params(**{f"backbones__{name}__{key}": value for key, value in changes.items()}).backbones[name]
