"""Compile and fit: the batches of an epoch, the optimiser, and one phase of training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from graft.errors import GraftError
from graft.sections import Optimisation
from graft.shards import Shards

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Publish = Callable[[int, str, dict[str, float]], None]  # epoch, phase, metrics


class TrainingError(GraftError):
    """Training cannot go on; the message says at which epoch and why."""


@dataclass(frozen=True)
class Rows:
    """Inputs and labels of the same images, once for each view.

    Attributes:
        inputs: pixels or activations, of shape (rows, ...).
        views: row numbers in inputs of each view; all views list the same images in the same order.
        labels: class numbers of those images, of shape (n,).
        class_weights: how much an image of each class number counts in the training loss; None: all the same.
    """

    inputs: Shards
    views: Sequence[np.ndarray]
    labels: np.ndarray
    class_weights: Mapping[int, float] | None = None


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a learning rate of its own."""

    name: str
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Outcome:
    """What a phase did.

    Attributes:
        history: one record per epoch: epoch, phase, loss, accuracy, val_loss, val_accuracy, learning_rate.
        seconds: wall time, validation included.
    """

    history: list[dict[str, Any]]
    seconds: float

    @property
    def best_loss(self) -> float:
        """The lowest validation loss; infinite for no epochs."""
        return min((record["val_loss"] for record in self.history), default=math.inf)


@dataclass(frozen=True)
class Trained:
    """A network at its lowest validation loss.

    Attributes:
        model: RGB 0..255 (n, image_size, image_size, 3) to probabilities (n, classes).
        history: one record per epoch, phases following each other.
        seconds: wall time by phase.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    seconds: dict[str, float]


def class_weights(labels: np.ndarray, how: str) -> dict[int, float] | None:
    """How much an image of each class counts: None for `none`; for `balanced` n / (classes * n of its class).

    With balanced weights every class has the same share of the loss, and an image weighs one on average.
    """
    if how == "none":
        return None
    present = np.unique(labels)
    weights = compute_class_weight(how, classes=present, y=labels)
    return {int(number): float(weight) for number, weight in zip(present, weights, strict=True)}


def training_batches(rows: Rows, classes: int, batch_size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled batches without end: epoch e reads view e mod V, in an order drawn from (seed, e) alone.

    Every image occurs once in each epoch; the last batch of an epoch is smaller rather than dropped.
    """
    one_hot = np.eye(classes, dtype=np.float32)
    epoch = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(rows.labels))
        view = rows.views[epoch % len(rows.views)]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield rows.inputs[view[chosen]], one_hot[rows.labels[chosen]]
        epoch += 1


def validation_batches(rows: Rows, classes: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The first view's images in order, once."""
    one_hot = np.eye(classes, dtype=np.float32)
    for start in range(0, len(rows.labels), batch_size):
        part = slice(start, start + batch_size)
        yield rows.inputs[rows.views[0][part]], one_hot[rows.labels[part]]


def _dataset(batches: Callable[[], Iterator[Any]], rows: Rows, classes: int, length: int | None) -> tf.data.Dataset:
    """Batches as Keras reads them; without end where length (in batches) is None."""
    import tensorflow as tf

    signature = (
        tf.TensorSpec((None, *rows.inputs.row_shape), rows.inputs.dtype),
        tf.TensorSpec((None, classes), tf.float32),
    )
    count = tf.data.INFINITE_CARDINALITY if length is None else length
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)


def build_optimizer(settings: Optimisation, learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """The optimiser of a phase of so many steps; weight decay is decoupled and spares biases and normalisation."""
    import keras

    schedule: Any = learning_rate
    if settings.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=steps)
    arguments = {"learning_rate": schedule, "weight_decay": settings.weight_decay or None}
    if settings.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **arguments)
    else:
        optimizer = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[settings.optimizer](**arguments)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def fit_phase(
    model: keras.Model,
    train: Rows,
    validation: Rows,
    *,
    classes: int,
    settings: Optimisation,
    phase: Phase,
    first_epoch: int,
    seed: int,
    publish: Publish,
) -> Outcome:
    """Train until the epochs are done or the validation loss has not fallen for `patience` epochs.

    The model is left with the weights of its lowest validation loss, in which every image counts the same. Epochs are
    numbered from first_epoch on.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    import keras

    batch = settings.batch_size
    steps, validation_steps = (math.ceil(len(rows.labels) / batch) for rows in (train, validation))
    model.compile(
        optimizer=build_optimizer(settings, phase.learning_rate, steps * phase.epochs),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    record = _recorder(phase, first_epoch, publish)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True)
    started = time.perf_counter()
    model.fit(
        _dataset(lambda: training_batches(train, classes, batch, seed), train, classes, None),
        validation_data=_dataset(
            lambda: validation_batches(validation, classes, batch), validation, classes, validation_steps
        ),
        steps_per_epoch=steps,
        epochs=phase.epochs,
        class_weight=train.class_weights,
        shuffle=False,  # the batches come in an order of their own
        callbacks=[record, stop],
        verbose=0,
    )
    return Outcome(record.history, time.perf_counter() - started)


def _recorder(phase: Phase, first_epoch: int, publish: Publish) -> Any:
    """A Keras callback: one record, one published line and one step of the progress bar for each epoch."""
    import keras
    from tqdm import tqdm

    class Recorder(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.history: list[dict[str, Any]] = []
            self.bar = tqdm(total=phase.epochs, desc=phase.name, unit="epoch", disable=None)

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            metrics = {name: float((logs or {})[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
            number = first_epoch + epoch
            if not all(map(math.isfinite, metrics.values())):
                raise TrainingError(
                    f"the loss must stay finite, received {metrics['loss']} (validation {metrics['val_loss']}) in "
                    f"epoch {number} ({phase.name}); lower the learning rate, now {phase.learning_rate:g}"
                )
            metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
            self.history.append({"epoch": number, "phase": phase.name, **metrics})
            publish(number, phase.name, metrics)
            self.bar.set_postfix(val_accuracy=f"{metrics['val_accuracy']:.3f}", refresh=False)
            self.bar.update()

        def on_train_end(self, logs: dict[str, float] | None = None) -> None:
            self.bar.close()

    return Recorder()
