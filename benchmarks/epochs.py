"""How long does an epoch take, beside plain `model.fit` on arrays in memory?

    python benchmarks/epochs.py                      # about 5 minutes on four cores
    python benchmarks/epochs.py --row lenet --cores 2

A row of experiments/mnist/params.yaml, trained on as many images as MNIST's 60,000 leave it after validation (of noise:
no time depends on what they show), by the pipeline's own code from shards on disk, checkpoints included, and by Keras
as its guides write it: the same network, batches and optimiser, pixels in memory. `fit` takes the pipeline's images
(RGB, uint8), `fit, grey` what the lectures give it: one channel of float32 from 0 to 1, scaled before. Each training is
a process of its own; sides take turns. An epoch's time is that from its predecessor's end to its own, validation
included; the first, in which graphs are traced, does not count.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from children import HERE, Stopwatch, markdown, measure, pin

if TYPE_CHECKING:
    import keras

    from graft.sections import Baseline

PARAMS = HERE.parent / "experiments" / "mnist" / "params.yaml"
TRAIN, VALIDATION, SIDE, CLASSES = 54_000, 6_000, 28, 10
GRAFT, FIT, GREY = "graft", "fit", "fit, grey"


def noise() -> tuple[np.ndarray, np.ndarray]:
    """Grey images as RGB (n, 28, 28, 3), and class numbers (n,); those of validation follow the others."""
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (TRAIN + VALIDATION, SIDE, SIDE, 1), np.uint8)
    return np.repeat(grey, 3, axis=3), random.integers(0, CLASSES, len(grey))


def by_graft(row: Baseline) -> list[float]:
    """The ends of epochs that the pipeline trains."""
    from graft import runtime
    from graft.baselines import train_baseline
    from graft.checkpoints import Checkpoints
    from graft.shards import Shards, ShardWriter
    from graft.training import Rows

    runtime.configure(1)
    pixels, labels = noise()
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), "images", pixels.shape[1:], np.uint8) as writer:
            writer.append(pixels)
        del pixels
        images = Shards(Path(folder), "images")
        train, validation = np.arange(TRAIN), np.arange(TRAIN, len(labels))
        train_baseline(
            row,
            Rows(images, [train], labels[train]),
            Rows(images, [validation], labels[validation]),
            classes=CLASSES,
            seed=1,
            publish=lambda *epoch: ends.append(time.perf_counter()),
            checkpoints=Checkpoints(Path(folder) / "checkpoints", runtime.machine()),
        )
    return ends


def by_fit(row: Baseline, grey: bool) -> list[float]:
    """The ends of epochs that `fit` trains."""
    import keras

    keras.utils.set_random_seed(1)
    pixels, labels = noise()
    inputs: Any = pixels
    if grey:
        inputs = pixels[..., :1].astype("float32") / 255
    ends: list[float] = []
    model = network(row, inputs.shape[1:])
    model.compile(
        keras.optimizers.get({"class_name": row.train.optimizer, "config": {"learning_rate": row.train.learning_rate}}),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        inputs[:TRAIN],
        labels[:TRAIN],
        batch_size=row.train.rows_per_step,
        epochs=row.train.epochs,
        validation_data=(inputs[TRAIN:], labels[TRAIN:]),
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *epoch: ends.append(time.perf_counter()))],
        verbose=0,
    )
    return ends


def network(row: Baseline, shape: tuple[int, ...]) -> keras.Model:
    """The row's network; for images of one channel without its Rescaling."""
    import keras
    from keras import layers

    from graft.baselines import build_cnn

    if shape[-1] != 1:
        return build_cnn(row, SIDE, CLASSES)
    listed = [(name, values) for item in row.layers for name, values in item.items() if name != "Rescaling"]
    return keras.Sequential(
        [
            keras.Input(shape),
            *(getattr(layers, name)(**values) for name, values in listed),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def row_of(name: str, epochs: int) -> Baseline:
    """A row with so many epochs that nothing cuts short."""
    from graft.params import load_params

    row = load_params(PARAMS).baselines[name]
    return row.model_copy(update={"train": row.train.model_copy(update={"epochs": epochs, "patience": epochs})})


def main(
    row: Annotated[str, typer.Option(help="Of baselines in experiments/mnist/params.yaml.")] = "lecture_small",
    epochs: Annotated[int, typer.Option(help="Of each training; the first does not count.")] = 4,
    repeats: Annotated[int, typer.Option(help="Trainings by each side.")] = 5,
    cores: int = 4,
    side: Annotated[str | None, typer.Option(hidden=True)] = None,
    result: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure all sides in turn and print a Markdown table."""
    if side is not None and result is not None:  # a child
        chosen = row_of(row, epochs)
        ends = by_graft(chosen) if side == GRAFT else by_fit(chosen, grey=side == GREY)
        Stopwatch().write(result, seconds=np.diff(ends).tolist())
        return
    pin(cores)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "TF_ENABLE_ONEDNN_OPTS": "1"}
    found: dict[str, list[float]] = {GRAFT: [], FIT: [], GREY: []}
    for _ in range(repeats):
        for name, seconds in found.items():
            measured = measure("epochs.py", "--row", row, "--epochs", epochs, "--side", name, environment=environment)
            seconds.append(statistics.median(measured.facts["seconds"]))
            print(f"{name}: {seconds[-1]:.2f} s per epoch", flush=True)
    lines = [
        {
            "side": name,
            "s per epoch": statistics.median(seconds),
            "Graft to it": statistics.median(ours / other for ours, other in zip(found[GRAFT], seconds, strict=True)),
        }
        for name, seconds in found.items()
    ]
    print(f"\n## {row}, {cores} cores, {repeats} trainings of {epochs} epochs by each side\n\n{markdown(lines)}")


if __name__ == "__main__":
    typer.run(main)
