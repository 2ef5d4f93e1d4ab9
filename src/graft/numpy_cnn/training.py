"""Training of a network in NumPy: the same batches, records, patience and checkpoints as that of a Keras network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from graft.batches import RESIDENT_BYTES, Rows, training_batches, validation_batches
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.faults import reached
from graft.numpy_cnn.losses import SoftmaxCrossEntropy
from graft.numpy_cnn.network import Network
from graft.numpy_cnn.optimizers import SGD
from graft.sections import Optimisation
from graft.training import Outcome, steps_of
from graft.trials import Phase, Publish, Trial, snapshot

MOMENTUM = 0.9  # with Nesterov's look ahead, as training.build_optimizer
MASKS = 2  # beside a seed and an epoch: the stream of random numbers of dropout


def fit_network(
    network: Network,
    train: Rows,
    validation: Rows,
    *,
    classes: int,
    settings: Optimisation,
    phase: Phase,
    seed: int,
    publish: Publish,
    checkpoints: Checkpoints = NOTHING_KEPT,
) -> Outcome:
    """Train until the epochs are done or the validation loss has not fallen for `patience` epochs.

    As training.fit_phase: the network is left with the weights of its lowest validation loss, and a checkpoint is gone
    on from to the same bits. Masks of dropout are drawn from the seed and the epoch alone.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    content = {"phase": asdict(phase), "settings": settings.model_dump(mode="json"), "seed": seed, "engine": "numpy"}
    checkpoint = checkpoints.phase(phase.name, content)
    trial = Trial(phase, settings.patience, 1, publish)
    steps = steps_of(train, settings.rows_per_step, phase.epochs)
    trainer = NetworkTrainer(network, settings, learning_rate=phase.learning_rate, steps=steps)
    if saved := checkpoint.load():
        trainer.restore(trial, saved)
    if not trial.done:
        rows = (_in_memory(train), _in_memory(validation))
        # Of BLAS: products of batches are small, and threads that wait for a core take longer than one alone.
        with threadpool_limits(1, user_api="blas"):
            _run(trainer, trial, *rows, classes=classes, seed=seed, checkpoint=checkpoint)
    assert trial.best_weights is not None
    network.set_weights(trial.best_weights)
    return Outcome(trial.history, checkpoint.seconds)


def _run(
    trainer: NetworkTrainer,
    trial: Trial,
    train: Rows,
    validation: Rows,
    *,
    classes: int,
    seed: int,
    checkpoint: Checkpoints,
) -> None:
    from tqdm import tqdm

    size = trainer.settings.rows_per_step
    for epoch in tqdm(range(len(trial.history), trial.phase.epochs), desc=trial.phase.name, unit="epoch", disable=None):
        random = np.random.default_rng([seed, epoch, MASKS])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the trial names a loss that is not finite
            trained = trainer.train(training_batches(train, classes, size, seed, epoch), random)
            validated = trainer.validate(validation_batches(validation, classes, size))
        held_out = {f"val_{name}": value for name, value in validated.items()}
        trial.add(trained | held_out | {"learning_rate": trainer.learning_rate}, trainer.network)
        reached("epoch")
        if trial.done or checkpoint.due():
            checkpoint.save(snapshot([trial], trainer.state))
        if trial.done:
            break


class NetworkTrainer:
    """A network with its loss and its optimiser.

    Args:
        network: to be trained.
        settings: with optimiser sgd.
        learning_rate: at the first step.
        steps: of the whole training, over which a cosine schedule brings the learning rate to zero.
    """

    def __init__(self, network: Network, settings: Optimisation, *, learning_rate: float, steps: int) -> None:
        self.network, self.settings = network, settings
        self._first_rate, self._steps = learning_rate, steps
        self._loss = SoftmaxCrossEntropy(settings.label_smoothing)
        self._optimizer = SGD(
            network.weights,
            momentum=MOMENTUM,
            nesterov=True,
            weight_decay=settings.weight_decay,
            decayed=[name == "kernel" for name in network.weight_names],  # not biases and normalisation
        )

    @property
    def learning_rate(self) -> float:
        """Of the next step, in single precision."""
        rate = self._first_rate
        if self.settings.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, self._optimizer.steps / self._steps)))
        return float(np.float32(rate))

    @property
    def state(self) -> list[Any]:
        """All that the next step depends on: weights, moving statistics, velocities and the number of steps."""
        return [*self.network.get_weights(), *self._optimizer.velocities, np.array(self._optimizer.steps)]

    def restore(self, trial: Trial, saved: Saved) -> None:
        """Be, and let the trial be, as they were when a snapshot was taken."""
        (facts,), count = saved.facts["trials"], len(self.network.get_weights())
        state, best = saved.arrays[: saved.facts["state"]], saved.arrays[saved.facts["state"] :]
        self.network.set_weights(state[:count])
        for velocity, values in zip(self._optimizer.velocities, state[count:-1], strict=True):
            velocity[...] = values
        self._optimizer.steps = int(state[-1])
        trial.restore(facts, list(best))

    def train(self, batches: Iterable[Any], random: np.random.Generator) -> dict[str, float]:
        """One step per batch; loss and accuracy are those before each step, with dropout, over all images."""
        measured = _Measured(self._loss)
        for inputs, targets, *weights in batches:
            scores = self.network.forward(inputs, random)
            measured.add(scores, targets, *weights)
            gradients = self.network.backward(self._loss.gradient(scores, targets, *weights))
            self._optimizer.step(gradients, self.learning_rate)
        return measured.metrics

    def validate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Loss and accuracy over all images, in inference."""
        measured = _Measured(self._loss)
        for inputs, targets in batches:
            measured.add(self.network.forward(inputs), targets)
        return measured.metrics


class _Measured:
    """Loss and accuracy over batches, each image counting the same, but for its weight in the loss."""

    def __init__(self, loss: SoftmaxCrossEntropy) -> None:
        self._loss, self._sum, self._right, self._count = loss, 0.0, 0, 0

    def add(self, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> None:
        self._sum += self._loss.value(scores, targets, weights) * len(scores)
        self._right += int((scores.argmax(axis=1) == targets.argmax(axis=1)).sum())
        self._count += len(scores)

    @property
    def metrics(self) -> dict[str, float]:
        return {"loss": self._sum / self._count, "accuracy": self._right / self._count}


def _in_memory(rows: Rows) -> Rows:
    """The same rows, read once where they are few enough; else batch by batch."""
    size = len(rows.inputs) * math.prod(rows.inputs.row_shape) * np.dtype(rows.inputs.dtype).itemsize
    if size > RESIDENT_BYTES:
        return rows
    pixels: Any = rows.inputs[:]  # an array is indexed alike
    return replace(rows, inputs=pixels)
