"""Trainings that are interrupted again and again, and gone on with from their checkpoints alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from graft import checkpoints, trials
from graft.checkpoints import Checkpoints
from graft.network_runs import save_keras_model
from graft.training import Trained

MACHINE = {"processor": "of the tests"}

Result = TypeVar("Result")


class InterruptionError(Exception):
    """The process ended."""


def saved_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)


def saved_at_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int | None) -> None:
    """End training right after so many epochs more, published but not saved; None: never."""
    trained = itertools.count(1)

    def reached(point: str) -> None:
        if next(trained) == epoch:
            raise InterruptionError

    monkeypatch.setattr(trials, "reached", reached)


def in_many_lives(
    train: Callable[[Checkpoints], Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Result, int]:
    """The end of a training that has been interrupted after every epoch but one, and how many interruptions it took.

    Every life is given one epoch more than it can keep.
    """
    saved_after_every_epoch(monkeypatch)
    for interruptions in itertools.count():
        interrupt(monkeypatch, 2)
        try:
            return train(Checkpoints(folder, MACHINE)), interruptions
        except InterruptionError:
            continue
    raise AssertionError


@dataclass(frozen=True)
class Ended:
    """All that is to be equal to the bit.

    Attributes:
        numbers: history and candidates.
        file: the saved model's bytes: weights, random states and optimiser among them.
        predictions: for some images.
    """

    numbers: Any
    file: bytes
    predictions: np.ndarray

    @classmethod
    def of(cls, trained: Trained, pixels: np.ndarray, folder: Path) -> Ended:
        folder.mkdir(parents=True, exist_ok=True)
        save_keras_model(folder / "model.keras", trained.model)
        file = (folder / "model.keras").read_bytes()
        numbers = (trained.history, trained.candidates, sorted(trained.seconds))
        return cls(numbers, file, trained.model.predict_on_batch(pixels))


def assert_equal(one: Ended, other: Ended) -> None:
    assert one.numbers == other.numbers
    np.testing.assert_array_equal(one.predictions, other.predictions)
    assert one.file == other.file
