"""Transfer in two phases: a head on the frozen base, then the layers after the cut with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from graft import backbones, networks, training
from graft.artifacts import FeatureSet, Manifest
from graft.sections import Backbone
from graft.shards import Shards
from graft.storage import ArtifactError
from graft.training import Outcome, Phase, Publish, Rows, Trained, fit_phase

if TYPE_CHECKING:
    import keras


BATCH = 1024  # rows held in memory while their mean and variance are taken
LEAST_VARIANCE = 0.1  # of a feature, relative to the average feature's


@dataclass(frozen=True)
class Images:
    """Pixels for a base that is trained whole.

    Attributes:
        prepared: every image, in manifest order.
        augmented: the training images' views, view after view.
        views: row numbers in augmented of each view.
    """

    prepared: Shards
    augmented: Shards
    views: list[Any]


def fine_tune(
    base: keras.Model,
    row: Backbone,
    manifest: Manifest,
    features: FeatureSet,
    images: Images,
    *,
    class_weights: str,
    seed: int,
    publish: Publish,
) -> Trained:
    """Phase 1 trains the head on cached top activations; phase 2 goes on with the layers after `frozen_until`.

    Phase 2 starts from phase 1's best weights, at its own rate, on the activations cached at the cut (or on images,
    where nothing stays frozen). It is undone where no epoch of it reaches a lower validation loss than phase 1 did.
    """
    settings, classes = row.finetune, len(manifest.classes)
    head = networks.build_head(features.top.row_shape[0], classes, settings.dropout, _training_scale(features))
    classifier = _classifier(base, head, row, images.prepared.row_shape[0])
    fit = partial(fit_phase, classes=classes, settings=settings, seed=seed, publish=publish)
    weights = training.class_weights(manifest.labels[manifest.positions("train")], class_weights)
    phase = Phase("frozen", settings.epochs, settings.learning_rate)
    frozen = fit(head, *_cached(features, features.top, weights), phase=phase, first_epoch=1)
    if not settings.unfrozen_epochs:
        return Trained(classifier, frozen.history, {"frozen": frozen.seconds})

    if not settings.train_batch_normalization:
        backbones.freeze_batch_normalization(base)
    if row.features.frozen_until == "none":
        name, model, data = "whole", classifier, _pixels(manifest, images, weights)
    else:
        name, model = "unfrozen", _tail_classifier(base, head, row)
        data = _cached(features, features.cut, weights)
    phase = Phase(name, settings.unfrozen_epochs, settings.unfrozen_learning_rate)
    unfrozen = _fit_or_undo(partial(fit, phase=phase), model, data, frozen)
    history = frozen.history + unfrozen.history
    return Trained(classifier, history, {"frozen": frozen.seconds, name: unfrozen.seconds})


def _fit_or_undo(fit: Callable[..., Outcome], model: keras.Model, data: tuple[Rows, Rows], frozen: Outcome) -> Outcome:
    """Phase 2; the model is as phase 1 left it where that was at least as good."""
    before = model.get_weights()
    unfrozen = fit(model, *data, first_epoch=len(frozen.history) + 1)
    if unfrozen.best_loss >= frozen.best_loss:
        model.set_weights(before)
    return unfrozen


def _classifier(base: keras.Model, head: keras.Model, row: Backbone, image_size: int) -> keras.Model:
    """Images to probabilities, through the very layers of base and head."""
    return networks.build_classifier(
        base,
        head,
        application=row.base.application,
        input_size=row.base.input_size,
        image_size=image_size,
        pooling=row.features.pooling,
    )


def _training_scale(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every feature over all views of the training images, by which the head standardises.

    The variance is at least a tenth of the features' average one: a feature that hardly varies while the base is
    frozen would otherwise be magnified beyond all others as soon as phase 2 moves it.
    """
    scaler = StandardScaler()
    rows = np.flatnonzero((features.index["split"] == "train").to_numpy())
    for start in range(0, len(rows), BATCH):
        scaler.partial_fit(features.top[rows[start : start + BATCH]].astype(np.float64))
    floor = LEAST_VARIANCE * scaler.var_.mean()
    return scaler.mean_, np.maximum(scaler.var_, floor) if floor else np.ones_like(scaler.var_)


def _tail_classifier(base: keras.Model, head: keras.Model, row: Backbone) -> keras.Model:
    """Activations at the cut to probabilities, through the very layers of base and head."""
    import keras

    _, tail = backbones.cut(base, row.features.frozen_until)
    activations = keras.Input(tail.input_shape[1:], name="cut")
    return keras.Model(
        activations, head(networks.pool(tail(activations), row.features.pooling)), name="tail_classifier"
    )


def _cached(features: FeatureSet, inputs: Shards | None, weights: Mapping[int, float] | None) -> tuple[Rows, Rows]:
    """Training and validation rows of cached activations."""
    if inputs is None:
        raise ArtifactError("the features folder must hold activations at the cut, received none; rerun features")
    labels = features.labels
    train = [features.positions("train", view) for view in range(features.views)]
    validation = features.positions("validation")
    return Rows(inputs, train, labels[train[0]], weights), Rows(inputs, [validation], labels[validation])


def _pixels(manifest: Manifest, images: Images, weights: Mapping[int, float] | None) -> tuple[Rows, Rows]:
    """Training and validation rows of images."""
    labels, validation = manifest.labels, manifest.positions("validation")
    return (
        Rows(images.augmented, images.views, labels[manifest.positions("train")], weights),
        Rows(images.prepared, [validation], labels[validation]),
    )
