"""How long a trained model takes from pixels in memory to probabilities, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BATCH = 64  # images at once, for the throughput
WARM_UP = 3  # untimed calls: graphs are traced, caches fill
BATCHES = 5  # timings of a whole batch


@dataclass(frozen=True)
class Speed:
    """How fast a model is.

    Attributes:
        latency_ms: median time of a single image.
        latency_ms_low: lower quartile.
        latency_ms_high: upper quartile.
        throughput: images a second in batches of `batch`; from the median time of a batch.
        repeats: timings of a single image.
        batch: images at once, for the throughput.
    """

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    throughput: float
    repeats: int
    batch: int


def measure_speed(apply: Callable[[np.ndarray], np.ndarray], images: np.ndarray, repeats: int) -> Speed:
    """Time a classifier as it is served.

    Args:
        apply: images to probabilities.
        images: of shape (n, size, size, 3), at least one; taken in turn.
        repeats: timings of a single image.
    """
    singles = [images[number % len(images)][None] for number in range(WARM_UP + repeats)]
    low, median, high = np.quantile(_seconds(apply, singles), (0.25, 0.5, 0.75)) * 1000
    batch = images[np.arange(BATCH) % len(images)]
    seconds = np.median(_seconds(apply, [batch] * (WARM_UP + BATCHES)))
    return Speed(float(median), float(low), float(high), float(BATCH / seconds), repeats, BATCH)


def _seconds(apply: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> list[float]:
    """Of each call after the warm-up."""
    seconds = []
    for batch in batches:
        began = time.perf_counter()
        apply(batch)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]
