"""Heads on a frozen base: one, or a grid of them trained in one pass over the same rows."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import networks
from graft.batches import Rows
from graft.sections import Finetune
from graft.training import Candidate, compile_model, steps_of
from graft.trials import Phase, Publish, Trainer, TrainingError, Trial

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


def fit_heads(
    train: Rows,
    validation: Rows,
    settings: Finetune,
    *,
    features: int,
    classes: int,
    scale: tuple[np.ndarray, np.ndarray] | None,
    before: Any,
    seed: int,
    publish: Publish,
) -> tuple[keras.Model, Trial, list[Candidate]]:
    """Phase 1: train the head, or every head of the grid at once, each to what it would be alone.

    All read the same batches and start from the seed. A head that has stopped by its patience keeps its weights and its
    history while the others go on.

    Args:
        train: training rows.
        validation: validation rows.
        settings: phase 1's.
        features: length of a vector.
        classes: number of classes.
        scale: by which the heads standardise, as in networks.build_head.
        before: as in training.Trainer.
        seed: of the first weights, the batches and the masks of dropout.
        publish: called for each epoch; of a grid for those of the best head, once it is known.

    Returns:
        The head of the lowest validation loss, the first of equals, at its best weights; its trial; and the grid's
        candidates, none without a grid.

    Raises:
        TrainingError: the loss of the head, or of every head, is no longer finite.
    """
    grid, alone = head_grid(settings), settings.heads is None
    heads, trials = [], []
    for params in grid:
        head = networks.build_head(
            features, classes, params.dropout, scale, hidden_units=params.hidden_units, seed=seed
        )
        compile_model(head, settings, params.learning_rate, steps_of(train, settings.batch_size, settings.epochs))
        heads.append(head)
        phase = Phase("frozen", settings.epochs, params.learning_rate)
        trials.append(Trial(phase, settings.patience, 1, publish if alone else None))
    trainer = Trainer(heads, train, validation, classes=classes, before=before)
    trainer.run(trials, batch_size=settings.batch_size, seed=seed, until=settings.epochs)
    best = best_trial(trials)
    head = heads[trials.index(best)]
    head.set_weights(best.best_weights)
    if alone:
        return head, best, []
    publish_trial(best, publish)
    return (
        head,
        best,
        [
            Candidate(f"head-{number:02d}", "frozen", asdict(params), trial.history, trial is best)
            for number, (params, trial) in enumerate(zip(grid, trials, strict=True), start=1)
        ],
    )


def best_trial(trials: list[Trial]) -> Trial:
    """The one of the lowest validation loss, the first of equals.

    Raises:
        TrainingError: none had a finite loss.
    """
    best = min(trials, key=lambda trial: trial.best_loss)
    if not best.history:
        raise TrainingError(f"every candidate failed; the first: {best.failure}")
    return best


def publish_trial(trial: Trial, publish: Publish) -> None:
    """Publish the epochs of a trial that was chosen after it had ended."""
    for record in trial.history:
        metrics = {name: value for name, value in record.items() if name not in ("epoch", "phase")}
        publish(record["epoch"], record["phase"], metrics)
