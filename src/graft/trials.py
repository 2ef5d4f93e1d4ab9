"""Models on their way through a phase, epoch by epoch: trained together, stopped and resumed each for itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.batches import Rows, resident, training_batches, validation_batches
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.errors import GraftError
from graft.faults import reached

if TYPE_CHECKING:
    import keras

Publish = Callable[[int, str, dict[str, float]], None]  # epoch, phase, metrics


class TrainingError(GraftError):
    """Training cannot go on; the message says at which epoch and why."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a learning rate of its own."""

    name: str
    epochs: int
    learning_rate: float


class Trial:
    """A model's way through a phase: its epochs so far, whether it goes on, and its weights where it was best.

    Args:
        phase: how long it may become.
        patience: epochs without a lower validation loss after which it stops.
        first_epoch: the number of its first epoch.
        publish: called after each epoch; None in a grid, where a trial whose loss is no longer finite just ends.
    """

    def __init__(self, phase: Phase, patience: int, first_epoch: int, publish: Publish | None) -> None:
        self.phase = phase
        self._patience, self._first_epoch, self._publish = patience, first_epoch, publish
        self.restart()

    def restart(self) -> None:
        """Be as before the first epoch."""
        self.history: list[dict[str, Any]] = []
        self.best_weights: list[np.ndarray] | None = None
        self.failure = ""

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far; infinite before the first epoch."""
        return self.best_loss_within(len(self.history))

    def best_loss_within(self, epochs: int) -> float:
        """The lowest validation loss of so many first epochs."""
        return min(self._losses[:epochs], default=math.inf)

    @property
    def done(self) -> bool:
        """Whether its epochs are spent, its loss has not fallen for `patience` of them, or is not finite any more."""
        stale = len(self.history) - self._losses.index(self.best_loss) - 1 if self.history else 0
        return bool(self.failure) or len(self.history) >= self.phase.epochs or stale >= self._patience

    @property
    def _losses(self) -> list[float]:
        return [record["val_loss"] for record in self.history]

    def add(self, metrics: dict[str, float], model: keras.Model) -> None:
        """Take in one more epoch, after which the model is as it is.

        Raises:
            TrainingError: its loss is not finite.
        """
        number, name = self._first_epoch + len(self.history), self.phase.name
        if not all(map(math.isfinite, metrics.values())):
            self.failure = (
                f"the loss must stay finite, received {metrics['loss']} (validation {metrics['val_loss']}) in "
                f"epoch {number} ({name}); lower the learning rate, now {self.phase.learning_rate:g}"
            )
            if self._publish is not None:
                raise TrainingError(self.failure)
            return
        if metrics["val_loss"] < self.best_loss:
            self.best_weights = model.get_weights()
        self.history.append({"epoch": number, "phase": name, **metrics})
        # Although no checkpoint may hold it yet: an epoch that is lost with the process is trained again to the bit.
        self._tell(self.history[-1:])

    def restore(self, facts: dict[str, Any], best_weights: list[np.ndarray]) -> None:
        """Be as another one was when `facts` was read; its epochs are published again.

        Args:
            facts: of a snapshot.
            best_weights: empty where they had been forgotten.
        """
        self.history, self.failure, self.best_weights = facts["history"], facts["failure"], best_weights or None
        self._tell(self.history)

    def _tell(self, records: list[dict[str, Any]]) -> None:
        if self._publish is not None:
            publish_epochs(records, self._publish)


def publish_epochs(records: list[dict[str, Any]], publish: Publish) -> None:
    """Publish epochs of a history."""
    for record in records:
        metrics = {name: value for name, value in record.items() if name not in ("epoch", "phase")}
        publish(record["epoch"], record["phase"], metrics)


def snapshot(trials: Sequence[Trial], state: Sequence[Any] = ()) -> Saved:
    """Trials as a checkpoint holds them; without the state of their models they can tell what was, but not go on."""
    best = [trial.best_weights or [] for trial in trials]
    facts = [
        {"history": trial.history, "failure": trial.failure, "best_weights": len(weights)}
        for trial, weights in zip(trials, best, strict=True)
    ]
    return Saved([*state, *(array for weights in best for array in weights)], {"state": len(state), "trials": facts})


def values(variables: Iterable[Any]) -> list[np.ndarray]:
    """The variables' values, copied."""
    return [np.array(variable) for variable in variables]


def assign(variables: Iterable[Any], arrays: Iterable[np.ndarray]) -> None:
    """Give the variables these values."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


class Trainer:
    """Compiled models that are trained on the same batches, each by its own optimiser, as one graph.

    An epoch calls the models' own train_step and test_step batch by batch, which is what Keras' `fit` does; `fit`
    itself costs several milliseconds per batch (its data pipeline and callbacks), more than a head's whole step.

    Args:
        models: of the same inputs; none shares a weight with another.
        train: their training rows.
        validation: their validation rows.
        classes: number of classes.
        before: a frozen part of the base that the rows pass first; None where the models take them as they are.
    """

    def __init__(
        self, models: Sequence[keras.Model], train: Rows, validation: Rows, *, classes: int, before: Any = None
    ) -> None:
        self._models, self._before, self._classes = list(models), before, classes
        self._train, self._validation = train, validation
        for model in self._models:  # makes the metrics' variables, for which each graph would else be traced twice
            model.compute_metrics(None, *np.zeros((2, 1, classes), np.float32))

    @property
    def state(self) -> list[Any]:
        """The variables of models and optimisers, random states and the number of steps among them."""
        return [variable for model in self._models for variable in (*model.variables, *model.optimizer.variables)]

    @cached_property  # not traced where a checkpoint has the end of the training
    def _train_step(self) -> Callable[..., None]:
        return self._graph("train_step", self._train)

    @cached_property
    def _test_step(self) -> Callable[..., None]:
        return self._graph("test_step", self._validation)

    def _graph(self, method: str, rows: Rows) -> Callable[..., None]:
        import tensorflow as tf

        def step(inputs: Any, *targets: Any) -> None:
            if self._before is not None:
                inputs = self._before(inputs, training=False)
            for model in self._models:
                getattr(model, method)((inputs, *targets))

        signature = [
            tf.TensorSpec((None, *rows.inputs.row_shape), rows.inputs.dtype),
            tf.TensorSpec((None, self._classes), tf.float32),
        ]
        if rows.class_weights is not None:
            signature.append(tf.TensorSpec((None,), tf.float32))
        return tf.function(step, input_signature=signature, autograph=False).get_concrete_function()

    def run(
        self,
        trials: Sequence[Trial],
        *,
        batch_size: int,
        seed: int,
        until: int,
        checkpoint: Checkpoints = NOTHING_KEPT,
    ) -> None:
        """Train, one trial for each model, from where they stand until all are done or have so many epochs.

        Where there is a checkpoint, they stand where it was saved: the same batches in the same order, the same masks
        of dropout and the same steps follow as without an interruption.
        """
        from tqdm import tqdm

        if saved := checkpoint.load():
            self._restore(trials, saved)
        first = max(len(trial.history) for trial in trials)
        if first >= until or all(trial.done for trial in trials):
            return
        same = self._train.inputs is self._validation.inputs
        train = replace(self._train, inputs=resident(self._train.inputs))
        validation = replace(self._validation, inputs=train.inputs if same else resident(self._validation.inputs))
        for epoch in tqdm(range(first, until), desc=trials[0].phase.name, unit="epoch", disable=None):
            batches = training_batches(train, self._classes, batch_size, seed, epoch)
            self._epoch(trials, batches, validation_batches(validation, self._classes, batch_size))
            reached("epoch")
            ended = epoch + 1 == until or all(trial.done for trial in trials)
            if ended or checkpoint.due():
                checkpoint.save(snapshot(trials, self.state))
            if ended:
                break

    def _restore(self, trials: Sequence[Trial], saved: Saved) -> None:
        arrays = iter(saved.arrays)
        if count := saved.facts["state"]:
            assign(self.state, itertools.islice(arrays, count))
        for trial, facts in zip(trials, saved.facts["trials"], strict=True):
            trial.restore(facts, list(itertools.islice(arrays, facts["best_weights"])))

    def _epoch(self, trials: Sequence[Trial], train: Iterable[Any], validation: Iterable[Any]) -> None:
        going = [not trial.done for trial in trials]
        trained = self._measured(self._train_step, train)
        validated = self._measured(self._test_step, validation)
        for index in (index for index, goes in enumerate(going) if goes):
            model = self._models[index]
            metrics = trained[index] | {f"val_{name}": value for name, value in validated[index].items()}
            metrics["learning_rate"] = float(model.optimizer.learning_rate)
            trials[index].add(metrics, model)

    def _measured(self, step: Callable[..., None], batches: Iterable[Any]) -> list[dict[str, float]]:
        for model in self._models:
            model.reset_metrics()
        for batch in batches:
            step(*batch)
        return [{name: float(value) for name, value in model.get_metrics_result().items()} for model in self._models]
