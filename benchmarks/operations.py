"""Multiply-adds of transfer learning, with every pass through the base and with frozen layers computed once.

A backward pass costs two forward passes; where nothing below is trained there is none. Validation is one forward pass
an epoch. Heads and machines on top cost nothing beside a base. The ratio of the two is the speed-up that a perfect
implementation would reach: the ceiling beside each measured ratio.

    python benchmarks/operations.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Setting:
    """How many images pass, and how often."""

    train: int
    validation: int
    views: int
    epochs: int = 10
    unfrozen_epochs: int = 10

    @property
    def rows(self) -> int:
        """Images that are extracted once: every view of the training images, and the validation images."""
        return self.train * self.views + self.validation


@dataclass(frozen=True)
class Work:
    """What is done with the base: the frozen phase always, then others."""

    unfrozen: bool
    svm: bool


WORK = {
    "frozen": Work(unfrozen=False, svm=False),
    "frozen + unfrozen": Work(unfrozen=True, svm=False),
    "frozen + SVM": Work(unfrozen=False, svm=True),
    "frozen + unfrozen + SVM": Work(unfrozen=True, svm=True),
}


def multiply_adds(model: keras.Model, after: str | None = None) -> int:
    """Of one image through the layers of a base, or those after one."""
    from graft import backbones, costs

    return costs.multiply_adds(backbones.part(model, after, None, "tail") if after else model)


def plain(setting: Setting, work: Work, tail: float) -> float:
    """Forward passes through the whole base, every image anew in every epoch.

    Args:
        setting: how many images pass, and how often.
        work: what is done.
        tail: share of the base's multiply-adds after the cut.
    """
    images = setting.train + setting.validation
    passes = float(setting.epochs * images)
    if work.unfrozen:
        passes += setting.unfrozen_epochs * (images + 2 * tail * setting.train)
    if work.svm:
        passes += setting.rows
    return passes


def once(setting: Setting, work: Work, tail: float) -> float:
    """The same where frozen layers are computed once per image and view."""
    trained = setting.unfrozen_epochs * tail * (3 * setting.train + setting.validation) if work.unfrozen else 0.0
    return setting.rows + trained


def ceiling(setting: Setting, work: Work, tail: float) -> float:
    """How many times less is computed where frozen layers are computed once."""
    return plain(setting, work, tail) / once(setting, work, tail)


def grid_ceiling(setting: Setting, tails: Sequence[tuple[float, int]], candidates: Sequence[float]) -> float:
    """Of a grid of candidates that differ in phase 2 only.

    Args:
        setting: how many images pass, and how often.
        tails: of each candidate trained on cached activations, the share after its cut and the epochs it was given.
        candidates: the share after the cut of each candidate, all of which plain training trains in full.
    """
    epoch = 3 * setting.train + setting.validation
    shared = setting.rows + sum(tail * epochs * epoch for tail, epochs in tails)
    return sum(plain(setting, WORK["frozen + unfrozen"], tail) for tail in candidates) / shared


def main(train: int = 245, validation: int = 153) -> None:
    """Print the ceilings of every base, workload and number of views."""
    from cases import CASES, build

    print(f"| base | cut | multiply-adds (M) | after the cut | views | {' | '.join(WORK)} |")
    print(f"|---|---|--:|--:|--:|{'--:|' * len(WORK)}")
    for case in CASES.values():
        base = build(case)
        total, after = multiply_adds(base), multiply_adds(base, case.cut)
        for views in (5, 1):
            setting = Setting(train, validation, views)
            found = " | ".join(f"{ceiling(setting, work, after / total):.1f}" for work in WORK.values())
            row = f"{case.application}, {case.input_size} px | {case.cut} | {total / 1e6:,.0f} | {after / total:.1%}"
            print(f"| {row} | {views} | {found} |")


if __name__ == "__main__":
    typer.run(main)
