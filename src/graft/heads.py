"""Heads on a frozen base: one, or a grid of them trained in one pass over the same rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import networks
from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.sections import Finetune
from graft.training import Candidate, compile_model, steps_of
from graft.trials import Phase, Publish, Trainer, TrainingError, Trial, publish_epochs

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class HeadParams:
    """One combination of the grid."""

    learning_rate: float
    dropout: float
    hidden_units: int


def head_grid(settings: Finetune) -> list[HeadParams]:
    """Every combination, the last list varying fastest; without a grid the row's own values alone."""
    if settings.heads is None:
        return [HeadParams(settings.learning_rate, settings.dropout, settings.hidden_units)]
    grid = settings.heads
    return [HeadParams(*values) for values in itertools.product(grid.learning_rate, grid.dropout, grid.hidden_units)]


@dataclass(frozen=True)
class Vectors:
    """What heads are trained on.

    Attributes:
        train: training rows.
        validation: validation rows.
        before: as in trials.Trainer.
        features: length of a vector.
        classes: number of classes.
        scale: by which the heads standardise, as in networks.build_head.
    """

    train: Rows
    validation: Rows
    before: Any
    features: int
    classes: int
    scale: tuple[np.ndarray, np.ndarray] | None


def fit_heads(
    vectors: Vectors, settings: Finetune, *, seed: int, publish: Publish, checkpoint: Checkpoints = NOTHING_KEPT
) -> tuple[keras.Model, Trial, list[Candidate]]:
    """Phase 1: train the head, or every head of the grid at once, each to what it would be alone.

    All read the same batches and start from the seed. A head that has stopped by its patience keeps its weights and its
    history while the others go on.

    Args:
        vectors: what they are trained on.
        settings: phase 1's.
        seed: of the first weights, the batches and the masks of dropout.
        publish: called for each epoch; of a grid for those of the best head, once it is known.
        checkpoint: of all heads together; where there is one, training goes on from it.

    Returns:
        The head of the lowest validation loss, the first of equals, at its best weights; its trial; and the grid's
        candidates, none without a grid.

    Raises:
        TrainingError: the loss of the head, or of every head, is no longer finite.
    """
    grid, tell = head_grid(settings), publish if settings.heads is None else None
    heads = [_compiled_head(vectors, settings, params, seed) for params in grid]
    phases = [Phase("frozen", settings.epochs, params.learning_rate) for params in grid]
    trials = [Trial(phase, settings.patience, 1, tell) for phase in phases]
    trainer = Trainer(heads, vectors.train, vectors.validation, classes=vectors.classes, before=vectors.before)
    trainer.run(trials, batch_size=settings.rows_per_step, seed=seed, until=settings.epochs, checkpoint=checkpoint)
    best = best_trial(trials)
    head = heads[trials.index(best)]
    head.set_weights(best.best_weights)
    if tell:
        return head, best, []
    publish_epochs(best.history, publish)
    return head, best, candidates("head", grid, trials, best)


def _compiled_head(vectors: Vectors, settings: Finetune, params: HeadParams, seed: int) -> keras.Model:
    head = networks.build_head(
        vectors.features, vectors.classes, params.dropout, vectors.scale, hidden_units=params.hidden_units, seed=seed
    )
    steps = steps_of(vectors.train, settings.rows_per_step, settings.epochs)
    compile_model(head, settings, params.learning_rate, steps)
    return head


def candidates(kind: str, grid: Sequence[Any], trials: Sequence[Trial], chosen: Trial | None) -> list[Candidate]:
    """The trials of a grid as a run records them, by number; grid holds dataclasses of their values."""
    return [
        Candidate(f"{kind}-{number:02d}", trial.phase.name, asdict(params), trial.history, trial is chosen)
        for number, (params, trial) in enumerate(zip(grid, trials, strict=True), start=1)
    ]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The one of the lowest validation loss, the first of equals.

    Raises:
        TrainingError: none had a finite loss.
    """
    best = min(trials, key=lambda trial: trial.best_loss)
    if not best.history:
        raise TrainingError(f"every candidate failed; the first: {best.failure}")
    return best
