"""Second phases: one, or a grid over cuts, rates and batch sizes, in full or by successive halving."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.halving import rungs
from graft.heads import best_trial, candidates
from graft.sections import Backbone
from graft.training import Candidate, compile_model, steps_of
from graft.trials import Phase, Publish, Trainer, Trial, assign, publish_epochs, snapshot, values

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
    sizes = settings.tails.batch_size if settings.tails else [settings.rows_per_step]
    return [TailParams(*values) for values in itertools.product(cuts, rates, sizes)]


@dataclass(frozen=True)
class Tail:
    """What the candidates of one cut train.

    Attributes:
        model: rows to probabilities; not yet compiled.
        train: training rows.
        validation: validation rows.
        before: as in training.Trainer.
    """

    model: keras.Model
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
        self._start = values(self._trainer.state)

    def run(self, trial: Trial, params: TailParams, seed: int, until: int, checkpoint: Checkpoints) -> None:
        """Take a candidate from where its checkpoint left it, else from the start, to so many epochs."""
        trial.restart()
        assign(self._trainer.state, self._start)
        self._rate.assign(params.unfrozen_learning_rate)
        self._steps.assign(steps_of(self.tail.train, params.batch_size, trial.phase.epochs))
        if self._constant:
            self.tail.model.optimizer.learning_rate = params.unfrozen_learning_rate
        self._trainer.run([trial], batch_size=params.batch_size, seed=seed, until=until, checkpoint=checkpoint)


class Benches:
    """The benches of all cuts, of which one at a time has the base's weights to itself.

    Args:
        build: makes the tail of a cut, through the very layers of base and head.
        variables: of base and head; as they are now, every candidate finds them.
        row: the backbone's.
        classes: number of classes.
    """

    def __init__(self, build: Callable[[str], Tail], variables: list[Any], row: Backbone, classes: int) -> None:
        self.row = row
        self._build, self._classes = build, classes
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
                self._benches[cut] = _Bench(self._build(cut), self.row, self._classes)
            self._active = cut
        return self._benches[cut]


def fit_tails(
    benches: Benches,
    *,
    phase: str,
    first_epoch: int,
    loss_to_beat: float,
    seed: int,
    publish: Publish,
    checkpoint: Checkpoints = NOTHING_KEPT,
) -> tuple[Trial, list[Candidate]]:
    """Phase 2: train the layers after the cut with the head, or every candidate of the grid from the same start.

    A candidate that goes on from one rung to the next does so from where it stopped: weights, optimiser, order of the
    batches and masks of dropout; so the last one ends as if it had been alone.

    Args:
        benches: on which they are trained.
        phase: its name.
        first_epoch: the number of its first epoch.
        loss_to_beat: validation loss of the start; the best candidate's weights are kept where its is lower.
        seed: of the order of the batches.
        publish: called for each epoch; of a grid for those of the best candidate, once it is known.
        checkpoint: those of the candidates lie below it; where there are any, training goes on from them.

    Returns:
        The trial of the lowest validation loss, the first of equals, base and head at its best weights or at the
        start; and the grid's candidates, none without a grid.

    Raises:
        TrainingError: the loss of the only candidate, or of every one, is no longer finite.
    """
    grid = tail_grid(benches.row)
    alone = benches.row.finetune.tails is None and len(grid) == 1
    trials = _trials(benches.row, grid, phase, first_epoch, publish if alone else None)
    _climb(benches, grid, trials, seed, checkpoint)
    best = best_trial(trials)
    benches.reset()
    if best.best_loss < loss_to_beat:
        benches.at(grid[trials.index(best)].frozen_until).tail.model.set_weights(best.best_weights)
    if alone:
        return best, []
    publish_epochs(best.history, publish)
    return best, candidates("tail", grid, trials, best if best.best_loss < loss_to_beat else None)


def _trials(
    row: Backbone, grid: Sequence[TailParams], phase: str, first_epoch: int, publish: Publish | None
) -> list[Trial]:
    lengths = [Phase(phase, row.finetune.unfrozen_epochs, params.unfrozen_learning_rate) for params in grid]
    return [Trial(length, row.finetune.patience, first_epoch, publish) for length in lengths]


def _climb(
    benches: Benches, grid: Sequence[TailParams], trials: Sequence[Trial], seed: int, checkpoint: Checkpoints
) -> None:
    """Take the best so many of the trials to so many epochs, rung by rung.

    After an interruption all rungs are climbed again. A trial stands at once where its checkpoint left it, which may be
    beyond the rung: who goes on is decided by the epochs of the rung alone, so they are the same ones again.
    """
    settings = benches.row.finetune
    steps = rungs(len(grid), settings.unfrozen_epochs, settings.tails.halving if settings.tails else 1)
    going, before = list(range(len(grid))), 0
    with checkpoint.lasting() if len(steps) > 1 else nullcontext(checkpoint) as kept:
        places = [kept.at(f"tail-{number:02d}", asdict(params)) for number, params in enumerate(grid, start=1)]
        for size, until in steps:
            ranked = sorted((trials[number].best_loss_within(before), number) for number in going)
            for _, number in ranked[size:]:
                places[number].save(snapshot([trials[number]]))  # in place of a state from which none will go on
            going = sorted(number for _, number in ranked[:size])
            for number in going:
                if not trials[number].done:
                    bench = benches.at(grid[number].frozen_until)
                    bench.run(trials[number], grid[number], seed, until, places[number])
                    _forget_all_but_the_best(trials, places)
            before = until


def _forget_all_but_the_best(trials: Sequence[Trial], places: Sequence[Checkpoints]) -> None:
    """Drop the best weights of every trial that another has beaten: as they are, they will not be asked for.

    The checkpoint of one that has also ended keeps its history alone.
    """
    least = min(trial.best_loss for trial in trials)
    for trial, place in zip(trials, places, strict=True):
        if trial.best_loss > least and trial.best_weights is not None:
            trial.best_weights = None
            if trial.done:
                place.save(snapshot([trial]))
