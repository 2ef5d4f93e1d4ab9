"""What does it cost that every row is held against its checksum when it is first read?

    taskset -c 0,1 python benchmarks/integrity.py

Rows are written to a temporary folder, then read in batches of random rows, as an epoch reads them: once by an object
that has verified none of them, once again by the same object, which has verified all. Both are medians of `repeats`
objects, with the files in the system's cache. An epoch is one of a small network on these rows, reading included: three
convolutions for images, one (a third of VGG16's last block) for activations, a dense layer alone for pooled ones.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from graft import runtime
from graft.shards import Shards, ShardWriter

if TYPE_CHECKING:
    import keras

KINDS: dict[str, tuple[tuple[int, ...], str]] = {
    "digits, 32 px": ((32, 32, 3), "uint8"),
    "photos, 224 px": ((224, 224, 3), "uint8"),
    "activations, 14 x 14 x 512": ((14, 14, 512), "float32"),
    "pooled activations, 512": ((512,), "float32"),
}
MOST_BYTES = 2**28
BATCH, CLASSES = 64, 10


def write(folder: Path, shape: tuple[int, ...], dtype: str, rows: int) -> None:
    """Random rows, fewer where they would not fit into MOST_BYTES."""
    random, row_bytes = np.random.default_rng(0), int(np.prod(shape)) * np.dtype(dtype).itemsize
    with ShardWriter(folder, "rows", shape, dtype) as writer:
        for start in range(0, min(rows, MOST_BYTES // row_bytes), BATCH):
            writer.append(random.integers(0, 256, (min(BATCH, rows - start), *shape)).astype(dtype))


def batches(rows: Shards) -> Iterator[np.ndarray]:
    """All rows, in a random order."""
    order = np.random.default_rng(1).permutation(len(rows))
    for start in range(0, len(order), BATCH):
        yield rows[order[start : start + BATCH]]


def seconds(rows: Shards) -> float:
    """Of reading all of them."""
    started = time.perf_counter()
    for _ in batches(rows):
        pass
    return time.perf_counter() - started


def network(shape: tuple[int, ...]) -> keras.Model:
    """A small one of those that are trained on such rows."""
    import keras

    layers: list[Any] = [keras.Input(shape)]
    if shape[-1] == 3:
        for filters in (16, 32, 64):
            layers += [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.MaxPooling2D()]
    elif len(shape) == 3:
        layers.append(keras.layers.Conv2D(shape[-1], 3, activation="relu"))
    if len(shape) == 3:
        layers.append(keras.layers.GlobalAveragePooling2D())
    model = keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def epoch(rows: Shards) -> float:
    """Seconds of the second epoch; the first one traces the graph."""
    model, spent = network(rows.row_shape), 0.0
    for _ in range(2):
        started = time.perf_counter()
        for batch in batches(rows):
            model.train_on_batch(batch.astype(np.float32), np.zeros(len(batch), np.int32))
        spent = time.perf_counter() - started
    return spent


def main(
    rows: Annotated[int, typer.Option(help="At most, of each kind.")] = 20_000,
    repeats: Annotated[int, typer.Option()] = 5,
) -> None:
    """Print one line per kind: both readings, their ratio, bytes verified a second, and its share of an epoch."""
    runtime.configure(0)
    print(f"{'rows':<28} {'n':>6} {'verified':>10} {'again':>10} {'ratio':>6} {'verifying':>11} {'of an epoch':>12}")
    for name, (shape, dtype) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), shape, dtype, rows)
            seconds(Shards(Path(folder), "rows"))  # into the system's cache
            pairs = []
            for _ in range(repeats):
                stored = Shards(Path(folder), "rows")
                pairs.append((seconds(stored), seconds(stored)))
            first, again = (statistics.median(times) for times in zip(*pairs, strict=True))
            size = int(np.prod(stored.shape)) * stored.dtype.itemsize
            print(
                f"{name:<28} {len(stored):>6,} {1000 * first:>7.0f} ms {1000 * again:>7.0f} ms {first / again:>6.2f} "
                f"{size / (first - again) / 2**30:>6.1f} GiB/s {(first - again) / epoch(stored):>11.1%}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
