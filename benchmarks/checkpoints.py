"""What do checkpoints cost a training?

    python benchmarks/checkpoints.py                 # about 5 minutes on two cores

The trainings of the default parameters, on as many images as these give it: the small CNN, and VGG16's head (phase 1)
and upper layers (phase 2), without checkpoints and with, in turn, of which the fastest are shown. What counts is the
last column: the time within saving, relative to the rest of the phase; the wall times vary by more than that.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from children import markdown, pin
from summary import Row

from graft import runtime
from graft.artifacts import Manifest
from graft.baselines import train_baseline
from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.feature_sets import IMAGE, FeatureSet, feature_index
from graft.params import Params, load_params
from graft.training import Trained

TRAIN, VALIDATION = 200, 359  # images of the default pipeline
PHASES = ("scratch", "frozen", "unfrozen")


class Memory:
    """Rows of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.row_shape, self.dtype = array, array.shape[1:], array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.array[rows].copy()


def digits(params: Params) -> tuple[Manifest, FeatureSet]:
    """Digits as the pipeline would show them, each training image moved by a pixel or two in every view."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    side, views = params.data.image_size, params.augment.views
    images = np.kron(pixels[: TRAIN + VALIDATION].reshape(-1, 8, 8), np.ones((side // 8, side // 8)))
    images = np.repeat((images * 255 / 16).round().astype(np.uint8)[..., None], 3, axis=3)
    names = [f"{number:04d}" for number in range(TRAIN + VALIDATION)]
    rows = pd.DataFrame({"image_id": names, "label": [str(label) for label in labels[: len(names)]]})
    rows["split"] = ["train"] * TRAIN + ["validation"] * VALIDATION
    rows["group"] = rows["source"] = rows["image_id"]
    manifest = Manifest(rows.assign(width=side, height=side), tuple(map(str, range(10))))
    seen = pd.DataFrame(
        {"image_id": np.tile(names[:TRAIN], views), "view": np.repeat(np.arange(views), TRAIN)},
    )
    moved = [np.roll(images[:TRAIN], (view % 3, view // 3), axis=(1, 2)) for view in range(views)]
    stored = {IMAGE: Memory(np.concatenate([images, *moved]))}
    return manifest, FeatureSet(feature_index(manifest, seen), stored, manifest.classes)


def cnn(params: Params, manifest: Manifest, features: FeatureSet) -> Callable[[Checkpoints], Trained]:
    """The small CNN's training."""
    pixels = features.stored[IMAGE]
    views = [features.positions("train", view) for view in range(params.augment.views)]
    validation, labels = features.positions("validation"), features.labels

    def train(checkpoints: Checkpoints) -> Trained:
        runtime.configure(params.seed)
        told = Rows(pixels, views, labels[views[0]]), Rows(pixels, [validation], labels[validation])
        baseline, classes = params.baselines["cnn"], len(manifest.classes)
        return train_baseline(
            baseline, *told, classes=classes, seed=params.seed, publish=lambda *epoch: None, checkpoints=checkpoints
        )

    return train


def vgg16(params: Params, manifest: Manifest, features: FeatureSet) -> Callable[[Checkpoints], Trained]:
    """Both phases on VGG16's activations, of random weights: their number decides what a step costs."""
    from graft import backbones, extraction
    from graft.finetuning import fine_tune
    from graft.inference import apply_model

    row = params.backbones["vgg16"]
    runtime.configure(params.seed)
    known = extraction.points(base := backbones.build_base(row.base), row.features.cuts)
    passing = extraction.row_pass(base, row, params.data.image_size, IMAGE, list(known[1:]))
    pixels = features.stored[IMAGE]
    parts = zip(*apply_model(passing, pixels, np.arange(len(pixels)), row.features.batch_size), strict=True)
    arrays = {name: Memory(np.concatenate(part)) for name, part in zip(known[1:], parts, strict=True)}
    stored = FeatureSet(features.index, {IMAGE: pixels, **arrays}, features.classes)

    def train(checkpoints: Checkpoints) -> Trained:
        runtime.configure(params.seed)
        return fine_tune(
            backbones.build_base(row.base), row, manifest, stored, image_size=params.data.image_size,
            class_weights="none", seed=params.seed, publish=lambda *epoch: None, checkpoints=checkpoints,
        )  # fmt: skip

    return train


class Saves:
    """Seconds and bytes of every save, by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.bytes: dict[str, int] = {}
        save = Checkpoints.save

        def timed(place: Checkpoints, saved: Saved) -> None:
            started = time.perf_counter()
            save(place, saved)
            if place._folder is not None:
                phase = next(name for name in (place._path.stem, place._path.parent.name) if name in PHASES)
                self.seconds[phase].append(time.perf_counter() - started)
                self.bytes[phase] = place._path.stat().st_size

        Checkpoints.save = timed  # type: ignore[method-assign]


def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints.md and the checkpoints.")] = Path(".work/bench"),
    repeats: Annotated[int, typer.Option(help="Trainings with and without, each.")] = 3,
    cores: int = 2,
) -> None:
    """Measure, print a Markdown table and keep it in the out folder."""
    pin(cores)
    params = load_params(Path("params.yaml"))
    saves, lines = Saves(), []
    kept = out / "checkpoints"
    for build in (cnn, vgg16):
        train = build(params, *digits(params))
        train(NOTHING_KEPT)  # the first one pays for what TensorFlow does once
        walls: dict[tuple[str, bool], list[float]] = defaultdict(list)
        epochs: dict[str, int] = {}
        for number in range(2 * repeats):
            shutil.rmtree(kept, ignore_errors=True)
            keeps = bool(number % 2)
            trained = train(Checkpoints(kept / "training-1", runtime.machine()) if keeps else NOTHING_KEPT)
            for phase, seconds in trained.seconds.items():
                walls[phase, keeps].append(seconds)
                epochs[phase] = sum(record["phase"] == phase for record in trained.history)
        for phase, count in epochs.items():
            name, both = f"{build.__name__} {phase}", [walls[phase, keeps] for keeps in (False, True)]
            lines.append(_line(name, count, *both, saves.seconds[phase], saves.bytes[phase]))
    shutil.rmtree(kept, ignore_errors=True)
    text = f"## Checkpoints, {cores} cores, {repeats} trainings each\n\n{markdown(lines)}\n"
    print(f"\n{text}", flush=True)
    with (out / "checkpoints.md").open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")


def _line(name: str, epochs: int, without: list[float], having: list[float], saves: list[float], size: int) -> Row:
    saving = sum(saves) / len(having)
    return {
        "training": name,
        "epochs": epochs,
        "s without": min(without),
        "s with": min(having),
        "saves": len(saves) / len(having),
        "KiB": size / 1024,
        "ms each": 1000 * statistics.median(saves),
        "% of the rest": 100 * saving / (statistics.mean(having) - saving),
    }


if __name__ == "__main__":
    typer.run(main)
