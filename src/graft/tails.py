"""Second phases: one, or a grid over cuts, rates and batch sizes, in full or by successive halving."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.batches import Rows
from graft.halving import rungs
from graft.heads import best_trial, publish_trial
from graft.sections import Backbone
from graft.training import Candidate, compile_model, steps_of
from graft.trials import Phase, Publish, Trainer, Trial

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TailParams:
    """One combination of the grid.

    Attributes:
        frozen_until: the layer after which training begins; none: the whole base is trained.
        unfrozen_learning_rate: of this phase.
        batch_size: of this phase.
    """

    frozen_until: str
    unfrozen_learning_rate: float
    batch_size: int


def tail_grid(row: Backbone) -> list[TailParams]:
    """Every combination, the last list varying fastest; without a grid the row's own values alone."""
    settings, cuts = row.finetune, row.features.cuts or ("none",)
    rates = settings.tails.unfrozen_learning_rate if settings.tails else [settings.unfrozen_learning_rate]
    sizes = settings.tails.batch_size if settings.tails else [settings.batch_size]
    return [TailParams(*values) for values in itertools.product(cuts, rates, sizes)]


@dataclass(frozen=True)
class Tail:
    """What the candidates of one cut train.

    Attributes:
        model: rows to probabilities; not yet compiled.
        variables: all that its training changes, random states included.
        train: training rows.
        validation: validation rows.
        before: as in training.Trainer.
    """

    model: keras.Model
    variables: list[Any]
    train: Rows
    validation: Rows
    before: Any


class _Bench:
    """A tail compiled once, at which the candidates of its cut take turns."""

    def __init__(self, tail: Tail, row: Backbone, classes: int) -> None:
        import keras

        self.tail = tail
        self._constant = row.finetune.schedule == "constant"  # then the rate is a variable of the optimiser's own
        self._rate, self._steps = (keras.Variable(1.0, trainable=False) for _ in range(2))  # a schedule follows these
        compile_model(tail.model, row.finetune, *((1.0, 1) if self._constant else (self._rate, self._steps)))
        self._trainer = Trainer([tail.model], tail.train, tail.validation, classes=classes, before=tail.before)
        self._state = [*tail.variables, *tail.model.optimizer.variables]
        self._start = values(self._state)

    def run(self, trial: Trial, params: TailParams, saved: Path, seed: int, until: int) -> None:
        """Take a candidate from the start, or where it was saved, to so many epochs; save it where it may go on."""
        assign(self._state, load_values(saved) if saved.exists() else self._start)
        self._rate.assign(params.unfrozen_learning_rate)
        self._steps.assign(steps_of(self.tail.train, params.batch_size, trial.phase.epochs))
        if self._constant:
            self.tail.model.optimizer.learning_rate = params.unfrozen_learning_rate
        self._trainer.run([trial], batch_size=params.batch_size, seed=seed, until=until)
        if not trial.done:
            save_values(saved, self._state)


class _Benches:
    """The benches of all cuts, of which one at a time has the base's weights to itself.

    Args:
        build: makes the tail of a cut, through the very layers of base and head.
        variables: of base and head; as they are now, every candidate finds them.
    """

    def __init__(self, build: Callable[[str], Tail], variables: list[Any], row: Backbone, classes: int) -> None:
        self._build, self._row, self._classes = build, row, classes
        self._variables, self._start = variables, values(variables)
        self._benches: dict[str, _Bench] = {}
        self._active = ""

    def reset(self) -> None:
        """Put base and head back to the start."""
        assign(self._variables, self._start)
        self._active = ""

    def at(self, cut: str) -> _Bench:
        """The bench of a cut, ready to run a candidate."""
        if cut != self._active:
            self.reset()
            if cut not in self._benches:
                self._benches[cut] = _Bench(self._build(cut), self._row, self._classes)
            self._active = cut
        return self._benches[cut]


def fit_tails(
    build: Callable[[str], Tail],
    variables: list[Any],
    row: Backbone,
    *,
    phase: str,
    first_epoch: int,
    classes: int,
    loss_to_beat: float,
    seed: int,
    publish: Publish,
) -> tuple[Trial, list[Candidate]]:
    """Phase 2: train the layers after the cut with the head, or every candidate of the grid from the same start.

    A candidate that goes on from one rung to the next does so from where it stopped: weights, optimiser, order of the
    batches and masks of dropout; so the last one ends as if it had been alone.

    Args:
        build: makes the tail of a cut, through the very layers of base and head.
        variables: of base and head; as they are now, every candidate finds them.
        row: the backbone's.
        phase: its name.
        first_epoch: the number of its first epoch.
        classes: number of classes.
        loss_to_beat: validation loss of the start; the best candidate's weights are kept where its is lower.
        seed: of the order of the batches.
        publish: called for each epoch; of a grid for those of the best candidate, once it is known.

    Returns:
        The trial of the lowest validation loss, the first of equals, base and head at its best weights or at the
        start; and the grid's candidates, none without a grid.

    Raises:
        TrainingError: the loss of the only candidate, or of every one, is no longer finite.
    """
    settings, grid = row.finetune, tail_grid(row)
    alone = settings.tails is None and len(grid) == 1
    benches = _Benches(build, variables, row, classes)
    trials = []
    for params in grid:
        length = Phase(phase, settings.unfrozen_epochs, params.unfrozen_learning_rate)
        trials.append(Trial(length, settings.patience, first_epoch, publish if alone else None))
    halving = settings.tails.halving if settings.tails else 1
    _climb(rungs(len(grid), settings.unfrozen_epochs, halving), benches, grid, trials, seed)
    best = best_trial(trials)
    kept = best.best_loss < loss_to_beat
    benches.reset()
    if kept:
        benches.at(grid[trials.index(best)].frozen_until).tail.model.set_weights(best.best_weights)
    if alone:
        return best, []
    publish_trial(best, publish)
    return best, [
        Candidate(f"tail-{number:02d}", phase, asdict(params), trial.history, kept and trial is best)
        for number, (params, trial) in enumerate(zip(grid, trials, strict=True), start=1)
    ]


def _climb(
    steps: list[tuple[int, int]], benches: _Benches, grid: list[TailParams], trials: list[Trial], seed: int
) -> None:
    """Take the best so many of the trials to so many epochs, rung by rung."""
    going = list(range(len(grid)))
    with TemporaryDirectory() as folder:
        for size, until in steps:
            going = sorted(going, key=lambda number: trials[number].best_loss)[:size]
            for number in sorted(going):
                if not trials[number].done:
                    bench = benches.at(grid[number].frozen_until)
                    bench.run(trials[number], grid[number], Path(folder) / f"{number}.npz", seed, until)
                    _forget_all_but_the_best(trials)


def _forget_all_but_the_best(trials: list[Trial]) -> None:
    """Drop the best weights of every trial that another has beaten: as they are, they will not be asked for."""
    least = min(trial.best_loss for trial in trials)
    for trial in trials:
        if trial.best_loss > least:
            trial.best_weights = None


def values(variables: list[Any]) -> list[np.ndarray]:
    """The variables' values, copied."""
    return [variable.numpy() for variable in variables]


def assign(variables: list[Any], arrays: Iterable[np.ndarray]) -> None:
    """Give the variables these values."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def save_values(path: Path, variables: list[Any]) -> None:
    """Write the variables' values into an uncompressed .npz."""
    np.savez(path, *values(variables))


def load_values(path: Path) -> list[np.ndarray]:
    """What save_values wrote."""
    with np.load(path) as saved:
        return [saved[name] for name in saved.files]  # in the order in which they were written
