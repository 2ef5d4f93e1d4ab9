"""Transfer in two phases: a head on the frozen base, then the layers after the cut with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from graft import backbones, extraction, networks, training
from graft.artifacts import Manifest
from graft.batches import Rows
from graft.checkpoints import NOTHING_KEPT, Checkpoints, Saved
from graft.feature_sets import IMAGE, TOP, FeatureSet
from graft.heads import Vectors, fit_heads
from graft.inference import apply_model
from graft.sections import Backbone
from graft.tails import Benches, Tail, fit_tails
from graft.training import Candidate, Trained
from graft.trials import Publish, Trial

if TYPE_CHECKING:
    import keras


BATCH = 1024  # rows held in memory while their mean and variance are taken
LEAST_VARIANCE = 0.1  # of a feature, relative to the average feature's
HEAD_SEEDS = 2  # seeds that a head takes, from the run's on; the base's random layers have those after them


@dataclass(frozen=True)
class _Material:
    """A base and the rows that its training reads.

    Attributes:
        base: with its start weights.
        row: its row of params.yaml.
        features: what is stored, the pixels among it.
        image_size: px per side of the pixels.
        classes: number of classes.
        weights: by class number, or None.
    """

    base: keras.Model
    row: Backbone
    features: FeatureSet
    image_size: int
    classes: int
    weights: Mapping[int, float] | None

    def reach(self, point: str) -> tuple[str, Any]:
        """The nearest stored point up to and with another, and the frozen pass from there; None where it is there."""
        known = extraction.points(self.base, self.row.features.cuts)
        start = self.features.nearest(known[: known.index(point) + 1])
        return start, None if start == point else self._frozen_pass(start, point)

    def _frozen_pass(self, start: str, end: str) -> keras.Model:
        return extraction.row_pass(self.base, self.row, self.image_size, start, [end])

    def rows(self, point: str) -> tuple[Rows, Rows]:
        """Training and validation rows at a stored point."""
        features, labels, inputs = self.features, self.features.labels, self.features.stored[point]
        train = [features.positions("train", view) for view in range(features.views)]
        validation = features.positions("validation")
        return Rows(inputs, train, labels[train[0]], self.weights), Rows(inputs, [validation], labels[validation])

    def classifier(self, head: keras.Model) -> keras.Model:
        """Images to probabilities, through the very layers of base and head."""
        return networks.build_classifier(
            self.base,
            head,
            application=self.row.base.application,
            input_size=self.row.base.input_size,
            image_size=self.image_size,
            pooling=self.row.features.pooling,
        )

    def shortcut(self, head: keras.Model) -> tuple[keras.Model, Any] | None:
        """As Trained.shortcut, from before all that was trained; never from rounded rows: the model sees exact ones."""
        import keras

        before_training = self.row.features.cuts if self.row.finetune.unfrozen_epochs else (TOP,)
        known = extraction.points(self.base, self.row.features.cuts)
        start = self.features.nearest(known[: 1 + min((known.index(point) for point in before_training), default=0)])
        rows = self.features.stored[start]
        if start == IMAGE or rows.dtype != np.float32:
            return None
        if start == TOP:
            return head, rows
        upper = self._frozen_pass(start, TOP)
        return keras.Model(upper.input, head(upper.outputs[0])), rows

    def tail(self, cut: str, head: keras.Model) -> Tail:
        """What phase 2 trains: the layers after a cut and the head; of `none` the whole classifier on pixels."""
        import keras

        if cut == "none":
            return Tail(self.classifier(head), *self.rows(IMAGE), before=None)
        start, before = self.reach(cut)
        layers = backbones.part(self.base, cut, None, "tail")
        activations = keras.Input(layers.input_shape[1:], name="cut")
        outputs = head(networks.pool(layers(activations), self.row.features.pooling))
        model = keras.Model(activations, outputs, name="tail_classifier")
        return Tail(model, *self.rows(start), before=before)


def fine_tune(
    base: keras.Model,
    row: Backbone,
    manifest: Manifest,
    features: FeatureSet,
    *,
    image_size: int,
    class_weights: str,
    seed: int,
    publish: Publish,
    checkpoints: Checkpoints = NOTHING_KEPT,
) -> Trained:
    """Phase 1 trains the head on the frozen base's top; phase 2 goes on with the layers after `frozen_until`.

    Each reads the rows of the last stored point before what it trains, through the frozen layers between where there
    are any. Phase 2 starts from phase 1's best weights, at its own rate (where nothing stays frozen, on the pixels). It
    is undone where no epoch of it reaches a lower validation loss than phase 1 did. Grids: see fit_heads and fit_tails.

    Args:
        base: at its start weights; trained in place.
        row: its row of params.yaml.
        manifest: of the images.
        features: the rows at the points that are stored, the pixels (`image`) among them.
        image_size: px per side of the pixels.
        class_weights: as in training.class_weights.
        seed: of the head's first weights, the order of the batches and the masks of dropout.
        publish: called for each epoch of the run.
        checkpoints: of the phases, under their names.
    """
    weights = training.class_weights(manifest.labels[manifest.positions("train")], class_weights)
    material = _Material(base, row, features, image_size, len(manifest.classes), weights)
    kept = checkpoints.at("finetune", {"row": row.model_dump(mode="json"), "seed": seed})
    head, first = _first_phase(material, seed, publish, kept)
    phases = [first]
    if row.finetune.unfrozen_epochs:
        phases.append(_second_phase(material, head, first, seed, publish, kept))
    return Trained(
        material.classifier(head),
        [record for phase in phases for record in phase.trial.history],
        {phase.trial.phase.name: phase.seconds for phase in phases},
        [candidate for phase in phases for candidate in phase.candidates],
        material.shortcut(head),
    )


@dataclass(frozen=True)
class _Phase:
    """What came of one: its best trial, its grid's candidates, and its wall time."""

    trial: Trial
    candidates: list[Candidate]
    seconds: float


def _first_phase(
    material: _Material, seed: int, publish: Publish, checkpoints: Checkpoints
) -> tuple[keras.Model, _Phase]:
    """The head, on the nearest stored rows before it."""
    checkpoint = checkpoints.phase("frozen")
    start, before = material.reach(TOP)
    vectors = Vectors(
        *material.rows(start),
        before=before,
        features=material.features.stored[TOP].row_shape[0] if before is None else before.output_shape[-1],
        classes=material.classes,
        scale=_head_scale(material, start, before, checkpoint.at("scale")),
    )
    settings = material.row.finetune
    head, trial, candidates = fit_heads(vectors, settings, seed=seed, publish=publish, checkpoint=checkpoint)
    return head, _Phase(trial, candidates, checkpoint.seconds)


def _second_phase(
    material: _Material, head: keras.Model, first: _Phase, seed: int, publish: Publish, checkpoints: Checkpoints
) -> _Phase:
    """The layers after the cut and the head, both put back where no epoch is better than the first phase."""
    base, row = material.base, material.row
    name = "unfrozen" if row.features.cuts else "whole"
    checkpoint = checkpoints.phase(name)
    if not row.finetune.train_batch_normalization:
        backbones.freeze_batch_normalization(base)
    networks.seed_dropout(head, seed)
    networks.seed_dropout(base, seed + HEAD_SEEDS)
    variables = [*base.variables, *head.variables]
    trial, candidates = fit_tails(
        Benches(lambda cut: material.tail(cut, head), variables, row, material.classes),
        phase=name,
        first_epoch=len(first.trial.history) + 1,
        loss_to_beat=first.trial.best_loss,
        seed=seed,
        publish=publish,
        checkpoint=checkpoint,
    )
    return _Phase(trial, candidates, checkpoint.seconds)


def _head_scale(
    material: _Material, start: str, before: Any, checkpoint: Checkpoints
) -> tuple[np.ndarray, np.ndarray] | None:
    """By what the head standardises; kept where it took a pass through frozen layers, and there is time."""
    if _moves_batch_normalization(material.base, material.row):
        return None
    saved = checkpoint.load()
    if saved is None:
        saved = Saved(_training_scale(material.features, start, before, material.row.features.batch_size), {})
        if before is not None and checkpoint.due():
            checkpoint.save(saved)
    mean, variance = saved.arrays
    return mean, variance


def _moves_batch_normalization(base: keras.Model, row: Backbone) -> bool:
    """Whether phase 2 trains layers of BatchNormalization, after which the features are others altogether."""
    import keras

    if not (row.finetune.train_batch_normalization and row.finetune.unfrozen_epochs):
        return False
    names = [layer.name for layer in base.layers]
    first = min((names.index(cut) + 1 for cut in row.features.cuts), default=0)
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in base.layers[first:])


def _training_scale(features: FeatureSet, start: str, before: Any, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every feature over all views of the training images, by which the head standardises.

    The variance is at least a tenth of the features' average one: a feature that hardly varies while the base is
    frozen would otherwise be magnified beyond all others as soon as phase 2 moves it.
    """
    scaler = StandardScaler()
    rows, inputs = np.flatnonzero((features.index["split"] == "train").to_numpy()), features.stored[start]
    if before is None:
        batches = (inputs[rows[place : place + BATCH]] for place in range(0, len(rows), BATCH))
    else:
        batches = (top for (top,) in apply_model(before, inputs, rows, batch_size))
    for batch in batches:
        scaler.partial_fit(batch.astype(np.float64))
    floor = LEAST_VARIANCE * scaler.var_.mean()
    return scaler.mean_, np.maximum(scaler.var_, floor) if floor else np.ones_like(scaler.var_)
