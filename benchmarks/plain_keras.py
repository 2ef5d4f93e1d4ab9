"""Transfer learning as Keras' guide writes it: freeze, fit, unfreeze, recompile with a low rate, fit; and an SVM.

Nothing is cached: every image passes through the whole base in every epoch. With `--augment none` epoch e reads the
stored view e mod V of every image, as Graft does; with `map` or `model` the original images are augmented anew in
every epoch, by Keras' layers in the tf.data pipeline or as the model's first layers.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
import typer
from children import Stopwatch
from keras import layers
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from graft.artifacts import read_images, read_manifest, read_views
from graft.params import Params, load_params
from graft.sections import Backbone


def augmentation(params: Params) -> keras.Sequential:
    """Keras' layers with the ranges of params.yaml."""
    ranges = params.augment
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(ranges.rotation, fill_mode=ranges.fill),
            layers.RandomTranslation(ranges.translation, ranges.translation, fill_mode=ranges.fill),
            layers.RandomZoom(ranges.zoom, fill_mode=ranges.fill),
            layers.RandomContrast(ranges.contrast, value_range=(0, 255)),
        ]
    )


class Photos:
    """The prepared images and their stored views, all in memory."""

    def __init__(self, workspace: Path) -> None:
        manifest = read_manifest(workspace / "prepared")
        images = read_images(workspace / "prepared", manifest.rows)
        index = read_views(workspace / "augmented", manifest)
        stored = read_images(workspace / "augmented", index)
        train, validation = manifest.positions("train"), manifest.positions("validation")
        self.classes = len(manifest.classes)
        self.train_labels, self.val_labels = manifest.labels[train], manifest.labels[validation]
        self.val_images = images[validation]
        self.views = [stored[np.flatnonzero(index["view"] == view)] for view in range(index["view"].max() + 1)]
        self.groups = manifest.rows["group"].to_numpy()[train]


def training_data(photos: Photos, params: Params, augment: str, batch_size: int) -> tf.data.Dataset:
    """Shuffled batches without end, one view after the other; or the originals, augmented."""
    views = photos.views if augment == "none" else photos.views[:1]
    count = len(photos.train_labels)
    epochs = [
        tf.data.Dataset.from_tensor_slices((view, photos.train_labels))
        .shuffle(count, seed=params.seed)
        .batch(batch_size)
        for view in views
    ]
    data = functools.reduce(lambda one, other: one.concatenate(other), epochs).repeat()
    if augment == "map":
        layer = augmentation(params)
        data = data.map(lambda x, y: (layer(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return data.prefetch(tf.data.AUTOTUNE)


def build(source: Path, row: Backbone, params: Params, classes: int, augment: str) -> tuple[keras.Model, ...]:
    """The classifier, its frozen base, and images to pooled features."""
    application = getattr(keras.applications, row.base.application)
    preprocess = getattr(keras.applications, row.base.application.lower()).preprocess_input
    size = row.base.input_size
    alpha = {"alpha": row.base.width} if row.base.application == "MobileNet" else {}
    base = application(include_top=False, weights=None, input_shape=(size, size, 3), **alpha)
    base.load_weights(source / "base.weights.h5")
    base.trainable = False

    inputs = keras.Input((size, size, 3))
    x = augmentation(params)(inputs) if augment == "model" else inputs
    x = base(preprocess(x), training=False)
    x = layers.Flatten()(x) if row.features.pooling == "flatten" else layers.GlobalAveragePooling2D()(x)
    extractor = keras.Model(inputs, x)
    x = layers.Dropout(row.finetune.dropout)(x)
    outputs = layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs), base, extractor


def fit(model: keras.Model, data: Any, photos: Photos, row: Backbone, rate: float, epochs: int, **options: Any) -> Any:
    """Compile with a learning rate and fit, validating after each epoch."""
    batch_size = options.pop("batch_size")
    optimizer = keras.optimizers.AdamW(rate, weight_decay=row.finetune.weight_decay)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model.fit(
        data,
        steps_per_epoch=-(-len(photos.train_labels) // batch_size),
        validation_data=tf.data.Dataset.from_tensor_slices((photos.val_images, photos.val_labels)).batch(batch_size),
        epochs=epochs,
        verbose=0,
    ).history


def unfreeze(base: keras.Model, cut: str) -> None:
    """Make the layers after the cut trainable; BatchNormalization stays in inference mode by training=False."""
    base.trainable = True
    names = [layer.name for layer in base.layers]
    for layer in base.layers[: names.index(cut) + 1]:
        layer.trainable = False


def extract(extractor: keras.Model, photos: Photos, params: Params, augment: str, batch: int) -> tuple[Any, Any]:
    """Features of every view of the training images, and of the validation images."""
    if augment == "none":
        pixels = photos.views
    else:  # no view is stored: the original, then augmented copies
        layer, original = augmentation(params), photos.views[0]
        slices = tf.data.Dataset.from_tensor_slices(original).batch(batch)
        copies = slices.map(lambda x: layer(x, training=True), num_parallel_calls=tf.data.AUTOTUNE)
        pixels = [original, *[copies] * (params.augment.views - 1)]
    train = [extractor.predict(view, batch_size=None if view is not None and hasattr(view, "map") else batch, verbose=0)
             for view in pixels]  # fmt: skip
    return np.concatenate(train), extractor.predict(photos.val_images, batch_size=batch, verbose=0)


def fit_svm(features: np.ndarray, photos: Photos, params: Params, row: Backbone) -> GridSearchCV:
    """The best of the row's grid by cross-validation, views of an image staying together."""
    labels, groups = (np.tile(values, params.augment.views) for values in (photos.train_labels, photos.groups))
    grid = {"svc__kernel": list(row.svm.kernels), "svc__C": list(row.svm.c)}
    folds = StratifiedGroupKFold(row.svm.folds, shuffle=True, random_state=params.seed)
    search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=folds, n_jobs=-1)
    return search.fit(features, labels, groups=groups)


def main(
    workspace: Path,
    result: Annotated[Path, typer.Option()],
    augment: Annotated[str, typer.Option(help="none | map | model")] = "none",
    xla: Annotated[str, typer.Option(help="auto, as Keras does by itself, or off")] = "auto",
    svm: bool = True,
    epochs: int | None = None,
    unfrozen_epochs: int | None = None,
    cut: str | None = None,
    batch_size: int | None = None,
    unfrozen_rate: float | None = None,
) -> None:
    """Run all parts on a workspace; a grid's candidate names its cut, phase 2's batch size and rate."""
    watch = Stopwatch()
    params = load_params(workspace / "params.yaml")
    row = next(iter(params.backbones.values()))
    options: dict[str, Any] = {"jit_compile": "auto" if xla == "auto" else False}
    batch = row.finetune.batch_size
    correct: dict[str, list[int]] = {}
    with watch.part("build"):
        keras.utils.set_random_seed(params.seed)
        photos = Photos(workspace)
        model, base, extractor = build(workspace / "source", row, params, photos.classes, augment)

    def judge(name: str) -> None:
        with watch.part("predict"):
            said = model.predict(photos.val_images, batch_size=batch, verbose=0).argmax(axis=1)
            correct[name] = (said == photos.val_labels).astype(int).tolist()

    with watch.part("frozen"):
        data = training_data(photos, params, augment, batch)
        count = row.finetune.epochs if epochs is None else epochs
        fit(model, data, photos, row, row.finetune.learning_rate, count, batch_size=batch, **options)
    judge("frozen")
    if svm:
        with watch.part("extract"):
            train, validation = extract(extractor, photos, params, augment, batch)
        with watch.part("svm"):
            said = fit_svm(train, photos, params, row).predict(validation)
        correct["svm"] = (said == photos.val_labels).astype(int).tolist()
    count = row.finetune.unfrozen_epochs if unfrozen_epochs is None else unfrozen_epochs
    history: dict[str, list[float]] = {}
    if count:
        with watch.part("unfrozen"):
            unfreeze(base, cut or row.features.frozen_until)
            batch = batch_size or batch
            rate = unfrozen_rate or row.finetune.unfrozen_learning_rate
            data = training_data(photos, params, augment, batch)
            history = fit(model, data, photos, row, rate, count, batch_size=batch, **options)
        judge("unfrozen")
    watch.write(result, correct=correct, history=history)


if __name__ == "__main__":
    typer.run(main)
