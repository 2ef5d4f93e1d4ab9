"""Compile and train: the optimiser, one phase of one model, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints
from graft.sections import Optimisation
from graft.trials import Phase, Publish, Trainer, Trial

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Outcome:
    """What a phase did.

    Attributes:
        history: one record per epoch: epoch, phase, loss, accuracy, val_loss, val_accuracy, learning_rate.
        seconds: wall time, validation and that before an interruption included.
    """

    history: list[dict[str, Any]]
    seconds: float

    @property
    def best_loss(self) -> float:
        """The lowest validation loss; infinite for no epochs."""
        return min((record["val_loss"] for record in self.history), default=math.inf)


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid.

    Attributes:
        name: head-01, head-02, ... or tail-01, ..., in the grid's order.
        phase: in which it was trained.
        params: its values.
        history: as of Outcome; ends where the candidate stopped, was passed over, or lost its finite loss.
        chosen: whether the model was made of it.
    """

    name: str
    phase: str
    params: dict[str, Any]
    history: list[dict[str, Any]]
    chosen: bool


@dataclass(frozen=True)
class Trained:
    """A network at its lowest validation loss.

    Attributes:
        model: RGB 0..255 (n, image_size, image_size, 3) to probabilities (n, classes).
        history: one record per epoch, phases following each other; of a grid, the epochs of its best candidate.
        seconds: wall time by phase, all candidates of a grid and that before an interruption included.
        candidates: of the grids, in their order; empty without one.
        shortcut: stored activations, row i being those of image i of the manifest, and the model from them to the
            probabilities, so that no image passes the frozen layers again; None where there are none.
    """

    model: keras.Model
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    candidates: list[Candidate] = field(default_factory=list)
    shortcut: tuple[keras.Model, Any] | None = None


def class_weights(labels: np.ndarray, how: str) -> dict[int, float] | None:
    """How much an image of each class counts: None for `none`; for `balanced` n / (classes * n of its class).

    With balanced weights every class has the same share of the loss, and an image weighs one on average.
    """
    if how == "none":
        return None
    present = np.unique(labels)
    weights = compute_class_weight(how, classes=present, y=labels)
    return {int(number): float(weight) for number, weight in zip(present, weights, strict=True)}


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


def compile_model(model: keras.Model, settings: Optimisation, learning_rate: float, steps: int) -> None:
    """Compile for a phase of so many steps, with the optimiser's state there and at its start."""
    import keras

    model.compile(
        optimizer=build_optimizer(settings, learning_rate, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)


def steps_of(rows: Rows, batch_size: int, epochs: int) -> int:
    """Batches in so many epochs."""
    return math.ceil(len(rows.labels) / batch_size) * epochs


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
    checkpoints: Checkpoints = NOTHING_KEPT,
) -> Outcome:
    """Train until the epochs are done or the validation loss has not fallen for `patience` epochs.

    The model is left with the weights of its lowest validation loss, in which every image counts the same. Epochs are
    numbered from first_epoch on; those of a checkpoint, under the phase's name, are published again.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    content = {"phase": asdict(phase), "settings": settings.model_dump(mode="json"), "seed": seed}
    checkpoint = checkpoints.phase(phase.name, content)
    compile_model(model, settings, phase.learning_rate, steps_of(train, settings.rows_per_step, phase.epochs))
    trial = Trial(phase, settings.patience, first_epoch, publish)
    trainer = Trainer([model], train, validation, classes=classes)
    trainer.run([trial], batch_size=settings.rows_per_step, seed=seed, until=phase.epochs, checkpoint=checkpoint)
    model.set_weights(trial.best_weights)
    return Outcome(trial.history, checkpoint.seconds)
