"""What the timed comparisons run on: three bases, one set of photos, and a folder that both sides read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml
from PIL import Image

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"  # the real photos and weights, where a machine has them
PHOTOS, KERAS_HOME = SHARED / "hymenoptera", SHARED / "keras_home"
GENERATED = {"train": {"ants": 124, "bees": 121}, "val": {"ants": 70, "bees": 83}}  # as many as there are real ones


@dataclass(frozen=True)
class Case:
    """A base, where it is cut, and the cuts that a grid tries."""

    application: str
    input_size: int
    width: float
    pooling: str
    cut: str
    depths: tuple[str, str, str, str]
    imagenet: bool  # where Keras' cache has the weights; random ones with calibrated BatchNormalization otherwise


CASES = {
    "mobilenet": Case(
        "MobileNet", 224, 0.25, "avg", "conv_pw_11_relu",
        ("conv_pw_9_relu", "conv_pw_10_relu", "conv_pw_11_relu", "conv_pw_12_relu"), imagenet=True,
    ),
    "resnet50": Case(
        "ResNet50", 128, 1.0, "avg", "conv4_block6_out",
        ("conv4_block5_out", "conv4_block6_out", "conv5_block1_out", "conv5_block2_out"), imagenet=False,
    ),
    "vgg16": Case(
        "VGG16", 96, 1.0, "flatten", "block4_pool",
        ("block4_conv3", "block4_pool", "block5_conv1", "block5_conv2"), imagenet=False,
    ),
}  # fmt: skip


def has_imagenet(case: Case) -> bool:
    """Whether this machine has the case's ImageNet weights."""
    return case.imagenet and any(KERAS_HOME.glob("models/*_no_top.h5"))


def environment(workspace: Path) -> dict[str, str]:
    """What every measured process is given: where its work and store lie, and Keras' cache."""
    extra = {"KERAS_HOME": str(KERAS_HOME)} if KERAS_HOME.is_dir() else {}
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **extra,
        "DVC_ROOT": str(workspace),
        "PYTHONPATH": sources,
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def build(case: Case) -> keras.Model:
    """The base, randomly initialised."""
    from graft.backbones import build_base
    from graft.sections import Base

    return build_base(
        Base(
            application=case.application,
            input_size=case.input_size,
            width=case.width,
            weights="random",
            depends_on=ROOT / "params.yaml",
        )
    )


def write_photos(folder: Path, counts: dict[str, dict[str, int]], size: tuple[int, int]) -> None:
    """Generated photos of so many pixels, so many per split and class: noise, coarser and redder in one."""
    random = np.random.default_rng(0)
    for split, classes in counts.items():
        for kind, (name, count) in enumerate(classes.items()):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                coarse = random.integers(0, 256, (12 + 12 * kind, 16 + 16 * kind, 3), np.uint8)
                coarse[..., 0] |= 128 * (1 - kind)
                picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                picture.save(folder / split / name / f"{index:05d}.jpg", quality=90)


def params_of(name: str, case: Case, views: int, photos: Path, weights: str) -> dict[str, Any]:
    """The committed params with the photos, the case alone, and 10 + 10 epochs that nothing cuts short."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    watched = weights if "/" in weights else str(ROOT / "data" / "embedded.md")
    values["data"] |= {"source": "folder", "path": str(photos), "image_size": case.input_size}
    values["data"] |= {"split": "predefined", "test": "none", "train_per_class": None}
    values["data"]["near_duplicates"] = {"distance": 0, "correlation": 1.0}  # every photo stays where it is
    values["augment"] |= {"views": views, "horizontal_flip": True, "zoom": 0.15, "translation": 0.1, "fill": "reflect"}
    row = values["backbones"][name]
    row["base"] = {"application": case.application, "input_size": case.input_size, "width": case.width}
    row["base"] |= {"weights": weights, "depends_on": watched}
    row["features"] |= {"pooling": case.pooling, "frozen_until": case.cut, "batch_size": 32}
    row["finetune"] |= {"epochs": 10, "unfrozen_epochs": 10, "patience": 100, "batch_size": 32}
    row["finetune"] |= {"learning_rate": 1e-3, "unfrozen_learning_rate": 1e-4}
    row["svm"] |= {"c": [0.01, 0.1, 1, 10]}
    return values | {"backbones": {name: row}, "baselines": {}}


def write_calibrated(case: Case, images: np.ndarray, path: Path, passes: int = 30) -> None:
    """Random weights whose BatchNormalization averages are those of the images, without which activations explode."""
    import keras

    from graft.backbones import preprocess

    keras.utils.set_random_seed(1)
    base = build(case)
    random = np.random.default_rng(1)
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in base.layers):
        for _ in range(passes):
            batch = images[np.sort(random.choice(len(images), 32, replace=False))]
            base(preprocess(case.application, batch.astype("float32")), training=True)
    base.save_weights(path)


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CASES)}.")],
    views: int,
    workspace: Path,
    generate: Annotated[int, typer.Option(help="So many photos instead of the real ones, half to train on.")] = 0,
) -> None:
    """Prepare a workspace: params.yaml, prepared images, augmented views and the base's weights."""
    from graft import runtime
    from graft.artifacts import read_images, read_manifest
    from graft.params import Params
    from graft.stages import augment, prepare, pretrain

    case = CASES[name]
    photos = PHOTOS if PHOTOS.is_dir() and not generate else workspace / "photos"
    if generate:
        counts = {split: dict.fromkeys(("ants", "bees"), generate // 4) for split in ("train", "val")}
        write_photos(photos, counts, (2 * case.input_size, 2 * case.input_size))
    elif photos != PHOTOS:
        write_photos(photos, GENERATED, (500, 375))
    calibrated = workspace / "calibrated.weights.h5"
    weights = "imagenet" if has_imagenet(case) else str(calibrated)
    values = params_of(name, case, views, photos, weights)
    params = Params.model_validate(values)
    (workspace / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    prepared = workspace / "prepared"
    prepare.run(params.data, params.seed, prepared, workspace / "report")
    augment.run(params.augment, params.seed, prepared, workspace / "augmented", workspace / "preview.png")
    if weights != "imagenet":
        runtime.configure(params.seed)
        write_calibrated(case, read_images(prepared, read_manifest(prepared).rows)[:], calibrated)
    pretrain.run(params, name, workspace / "source")


if __name__ == "__main__":
    typer.run(main)
