"""The floors: a bare base called in a loop on pixels in memory, and what this machine's convolutions reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
import typer
from children import Stopwatch
from operations import multiply_adds

from graft.params import load_params
from graft.weights import load_base

CONVOLUTION = (32, 28, 28, 256)  # batch, height, width and channels of a 3x3 convolution that suits any CPU
REPEATS = 10


def main(workspace: Path, rows: int, result: Annotated[Path, typer.Option()]) -> None:
    """Time so many images through the bare base, in batches of the features stage's size."""
    watch = Stopwatch()
    row = next(iter(load_params(workspace / "params.yaml").backbones.values()))
    base = load_base(workspace / "source")
    size, batch = row.base.input_size, row.features.batch_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    call = tf.function(lambda images: base(images, training=False))
    with watch.part("first"):
        call(pixels).numpy()
    with watch.part("trunk"):
        for _ in range(-(-rows // batch)):
            call(pixels).numpy()

    layer = keras.layers.Conv2D(CONVOLUTION[-1], 3, padding="same", use_bias=False)
    maps = tf.random.normal(CONVOLUTION)
    layer.build(maps.shape)
    convolve = tf.function(lambda values: layer(values))
    convolve(maps).numpy()
    with watch.part("convolution"):
        for _ in range(REPEATS):
            convolve(maps).numpy()
    operations = REPEATS * CONVOLUTION[0] * CONVOLUTION[1] * CONVOLUTION[2] * 9 * CONVOLUTION[3] ** 2
    watch.write(result, base_operations=multiply_adds(base) * rows, convolution_operations=operations, rows=rows)


if __name__ == "__main__":
    typer.run(main)
