"""How many views a second do Graft and the alternatives draw, and how far are their pixels from SciPy's?

    taskset -c 0,1 python benchmarks/augmentation.py

All of them resample once, bilinearly, with the same affine maps and contrasts. The images are noise, which shows every
difference; `differing` is the share of values (0..255) that are not SciPy's, `most` the largest difference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from scipy import ndimage

from graft.augmentation import Transformation, affine, apply, draw
from graft.sections import Augment

RANGES = Augment(views=2, horizontal_flip=True, rotation=0.1, zoom=0.1, translation=0.1, contrast=0.1, fill="nearest")
Resample = Callable[[np.ndarray, Transformation], np.ndarray]
Engine = Callable[[np.ndarray, list[Transformation]], np.ndarray]
BATCH = 32  # images that a thread takes at a time


def contrasted(moved: np.ndarray, contrast: float) -> np.ndarray:
    mean = moved.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.rint((moved - mean) * contrast + mean).clip(0, 255).astype(np.uint8)


def scipy_view(image: np.ndarray, drawn: Transformation) -> np.ndarray:
    matrix, offset = affine(drawn, *image.shape[:2])
    moved = np.empty(image.shape, np.float32)
    for channel in range(3):
        ndimage.affine_transform(
            image[..., channel], matrix, offset, output=moved[..., channel], order=1, mode="nearest"
        )
    return contrasted(moved, drawn.contrast)


def pillow_view(image: np.ndarray, drawn: Transformation) -> np.ndarray:
    """Pillow knows no fill but black, so that the image is extended beforehand as far as the view reaches."""
    height, width = image.shape[:2]
    matrix, offset = affine(drawn, height, width)
    corners = np.array([[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]]) @ matrix.T + offset
    before = np.ceil(np.maximum(0, 1 - corners.min(axis=0))).astype(int)
    after = np.ceil(np.maximum(0, corners.max(axis=0) - [height - 2, width - 2])).astype(int)
    extended = np.pad(image, (*zip(before, after, strict=True), (0, 0)), "edge").astype(np.float32)
    (a, b), (c, d) = matrix[::-1, ::-1]
    down, right = offset + before + 0.5 - matrix.sum(axis=1) / 2  # Pillow counts from a pixel's corner
    planes = [
        Image.fromarray(extended[..., channel]).transform(
            (width, height), Image.Transform.AFFINE, (a, b, right, c, d, down), Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return contrasted(np.stack(planes, axis=-1), drawn.contrast)


def graft_view(image: np.ndarray, drawn: Transformation) -> np.ndarray:
    return apply(image, drawn, "nearest")


def pooled(resample: Resample, threads: int) -> Engine:
    """An engine whose threads take BATCH images at a time."""

    def engine(images: np.ndarray, drawn: list[Transformation]) -> np.ndarray:
        def batch(first: int) -> list[np.ndarray]:
            part = slice(first, first + BATCH)
            return [resample(image, each) for image, each in zip(images[part], drawn[part], strict=True)]

        if threads == 1:
            return np.concatenate([batch(first) for first in range(0, len(images), BATCH)])
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(batch, range(0, len(images), BATCH))))

    return engine


def tensorflow(threads: int) -> Engine:
    """tf.data with the operation behind Keras' random layers."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1", "3"
    import tensorflow as tf

    def view(image: tf.Tensor, transform: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(image, tf.float32)[None],
            transforms=transform[None],
            output_shape=tf.shape(image)[:2],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )[0]
        mean = tf.reduce_mean(moved, axis=(0, 1))
        return tf.cast(tf.clip_by_value(tf.round((moved - mean) * contrast + mean), 0, 255), tf.uint8)

    def engine(images: np.ndarray, drawn: list[Transformation]) -> np.ndarray:
        maps = [affine(each, *images.shape[1:3]) for each in drawn]
        flat = [[*np.column_stack([matrix[::-1, ::-1], offset[::-1]]).reshape(6), 0, 0] for matrix, offset in maps]
        contrasts = np.array([each.contrast for each in drawn], np.float32)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = tf.data.Dataset.from_tensor_slices((images, np.array(flat, np.float32), contrasts))
        dataset = dataset.map(view, num_parallel_calls=threads).batch(BATCH).with_options(options)
        return np.concatenate(list(dataset.as_numpy_iterator()))

    return engine


def engines(threads: list[int]) -> Iterator[tuple[str, int, Engine]]:
    """TensorFlow last, so that its threads exist for nobody else."""
    for name, resample in (("SciPy", scipy_view), ("Pillow", pillow_view), ("Graft (OpenCV)", graft_view)):
        for count in threads:
            yield name, count, pooled(resample, count)
    for count in threads:
        yield "tf.data", count, tensorflow(count)


def main(
    sizes: Annotated[str, typer.Option(help="Pixels per side.")] = "224,32",
    threads: Annotated[str, typer.Option()] = "1,2",
    repeats: Annotated[int, typer.Option(help="The fastest counts.")] = 5,
) -> None:
    """Print one line per size, engine and number of threads, and the rate relative to SciPy with one thread."""
    print(f"{'px':>4} {'engine':<15} {'threads':>7} {'views/s':>8} {'relative':>8} {'differing':>9} {'most':>4}")
    for size in map(int, sizes.split(",")):
        count = max(64, 2**23 // size**2)
        images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
        drawn = [draw(f"{index}", RANGES, 1, 1) for index in range(count)]
        exact, slowest = pooled(scipy_view, 1)(images, drawn).astype(int), 0.0
        for name, used, engine in engines([int(each) for each in threads.split(",")]):
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                result = engine(images, drawn)
                seconds.append(time.perf_counter() - started)
            slowest = slowest or min(seconds)
            apart = np.abs(result - exact)
            print(
                f"{size:>4} {name:<15} {used:>7} {count / min(seconds):>8,.0f} {slowest / min(seconds):>8.2f} "
                f"{(apart > 0).mean():>9.4%} {apart.max():>4}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
