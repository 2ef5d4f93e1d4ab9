from __future__ import annotations

import numpy as np
import pytest

from graft import latency
from graft.latency import BATCH, BATCHES, WARM_UP, measure_speed

IMAGES = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)


class Clock:
    """A model whose calls take what was foretold, on a clock of its own."""

    def __init__(self, singles: list[float], batches: list[float]) -> None:
        self.now, self.left = 0.0, {1: singles, BATCH: batches}
        self.seen: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        self.now += self.left[len(images)].pop(0)
        return images


def test_median_and_quartiles_leave_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(
        [9.0] * WARM_UP + [0.004, 0.001, 0.005, 0.003, 0.002], [9.0] * WARM_UP + [0.5] * (BATCHES - 1) + [8.0]
    )
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock.now)
    speed = measure_speed(clock, IMAGES, 5)
    assert speed.latency_ms == pytest.approx(3.0)
    assert (speed.latency_ms_low, speed.latency_ms_high) == (pytest.approx(2.0), pytest.approx(4.0))
    assert speed.throughput == pytest.approx(BATCH / 0.5)
    assert (speed.repeats, speed.batch) == (5, BATCH)


def test_single_images_and_whole_batches_are_timed_also_of_few_images() -> None:
    clock = Clock([0.0] * 20, [0.0] * 20)
    measure_speed(clock, IMAGES, 7)
    assert [len(images) for images in clock.seen] == [1] * (WARM_UP + 7) + [BATCH] * (WARM_UP + BATCHES)
    assert [int(images[0, 0, 0, 0]) for images in clock.seen[:4]] == [0, 1, 2, 0]
