"""Models on their way through a phase, epoch by epoch: trained together, stopped and resumed each for itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.batches import Rows, resident, training_batches, validation_batches
from graft.errors import GraftError

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
        self.history: list[dict[str, Any]] = []
        self.best_weights: list[np.ndarray] | None = None
        self.failure = ""
        self._patience, self._first_epoch, self._publish = patience, first_epoch, publish

    @property
    def best_loss(self) -> float:
        """The lowest validation loss so far; infinite before the first epoch."""
        return min(self._losses, default=math.inf)

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
        if self._publish is not None:
            self._publish(number, name, metrics)


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
        self._train_step = self._graph("train_step", train)
        self._test_step = self._graph("test_step", validation)

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

    def run(self, trials: Sequence[Trial], *, batch_size: int, seed: int, until: int) -> None:
        """Train, one trial for each model, from where they stand until all are done or have so many epochs."""
        from tqdm import tqdm

        same = self._train.inputs is self._validation.inputs
        train = replace(self._train, inputs=resident(self._train.inputs))
        validation = replace(self._validation, inputs=train.inputs if same else resident(self._validation.inputs))
        first = max(len(trial.history) for trial in trials)
        for epoch in tqdm(range(first, until), desc=trials[0].phase.name, unit="epoch", disable=None):
            going = [not trial.done for trial in trials]
            if not any(going):
                break
            trained = self._measured(self._train_step, training_batches(train, self._classes, batch_size, seed, epoch))
            validated = self._measured(self._test_step, validation_batches(validation, self._classes, batch_size))
            for index in (index for index, goes in enumerate(going) if goes):
                model = self._models[index]
                metrics = trained[index] | {f"val_{name}": value for name, value in validated[index].items()}
                metrics["learning_rate"] = float(model.optimizer.learning_rate)
                trials[index].add(metrics, model)

    def _measured(self, step: Callable[..., None], batches: Any) -> list[dict[str, float]]:
        for model in self._models:
            model.reset_metrics()
        for batch in batches:
            step(*batch)
        return [{name: float(value) for name, value in model.get_metrics_result().items()} for model in self._models]
