"""Phase 1 and 2 on cached activations are the same training as end to end with the trunk frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import backbone, learnable_digits

from graft import backbones, finetuning, networks, runtime
from graft.artifacts import FeatureSet, Manifest, read_features, view_rows
from graft.features import build_extractor, write_features
from graft.finetuning import Images, fine_tune
from graft.sections import Backbone
from graft.shards import Shards, ShardWriter
from graft.training import Outcome, Rows, fit_phase, training_batches


@pytest.fixture
def data(tmp_path: Path) -> tuple[Manifest, Images, pd.DataFrame]:
    """Thirty training images in two views (the second mirrored), the others for validation."""
    pixels, labels = learnable_digits()
    rows = pd.DataFrame(
        {
            "image_id": [f"{index:02d}" for index in range(60)],
            "label": [f"digit {label}" for label in labels],
            "split": ["train", "validation"] * 30,
            "group": [f"{index:02d}" for index in range(60)],
            "source": "", "width": 8, "height": 8,
        }
    )  # fmt: skip
    manifest = Manifest(rows, ("digit 0", "digit 1", "digit 2"))
    train = manifest.positions("train")
    views = pd.DataFrame({"image_id": np.tile(rows["image_id"].to_numpy()[train], 2), "view": np.repeat([0, 1], 30)})
    for name, content in (("prepared", [pixels]), ("augmented", [pixels[train], pixels[train, :, ::-1]])):
        with ShardWriter(tmp_path / name, "images", (32, 32, 3), np.uint8) as writer:
            for part in content:
                writer.append(part)
    prepared, augmented = (Shards(tmp_path / name, "images") for name in ("prepared", "augmented"))
    return manifest, Images(prepared, augmented, view_rows(views)), views


def extract(folder: Path, base: Any, row: Backbone, data: tuple[Manifest, Images, pd.DataFrame]) -> FeatureSet:
    manifest, images, views = data
    extractor = build_extractor(
        base, application=row.base.application, input_size=32, image_size=32, pooling=row.features.pooling,
        frozen_until=row.features.frozen_until,
    )  # fmt: skip
    write_features(folder, extractor, manifest, images.prepared, views, images.augmented, batch_size=16)
    return read_features(folder, manifest)


def calibrated(row: Backbone) -> Any:
    """A base whose BatchNormalization has seen images, as that of any pretrained base has."""
    import keras

    runtime.configure(1)
    base = backbones.build_base(row.base)
    pixels, _ = learnable_digits()
    inputs = backbones.preprocess(row.base.application, pixels.astype("float32"))
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.3  # else twenty passes leave more of the initial variance than there is of the images'
    for _ in range(20):
        base(inputs, training=True)
    return base


def plain(base: Any, row: Backbone, data: tuple[Manifest, Images, pd.DataFrame], scale: Any) -> Any:
    """End-to-end Keras: the whole model on pixels, trunk frozen by hand, every batch through every layer."""
    import keras

    manifest, images, _ = data
    settings, labels = row.finetune, manifest.labels
    head = networks.build_head(int(np.prod(base.output_shape[1:])), 3, settings.dropout, scale)
    pixels = networks.image_input(32)
    maps = base(backbones.preprocess(row.base.application, pixels), training=False)
    model = keras.Model(pixels, head(networks.pool(maps, row.features.pooling)))
    rows = {
        "views": images.views,
        "inputs": images.augmented,
        "labels": labels[manifest.positions("train")],
    }
    at = [layer.name for layer in base.layers].index(row.features.frozen_until)
    for rate, tail in ((settings.learning_rate, False), (settings.unfrozen_learning_rate, True)):
        for index, layer in enumerate(base.layers):
            layer.trainable = tail and index > at and not isinstance(layer, keras.layers.BatchNormalization)
        model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
        batches = training_batches(Rows(**rows), 3, settings.batch_size, seed=5)
        for _ in range(2 * 4):  # two epochs of four batches
            model.train_on_batch(*next(batches))
    return model


def scale_of(features: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean and floored variance over both views of the training images, by NumPy in one go."""
    train = features.top[np.flatnonzero((features.index["split"] == "train").to_numpy())].astype(np.float64)
    return train.mean(axis=0), np.maximum(train.var(axis=0), 0.1 * train.var(axis=0).mean())


@pytest.mark.parametrize(("name", "rate"), [("vgg16", 1e-4), ("mobilenet", 1e-5)])
def test_cached_phases_equal_end_to_end_training(
    name: str, rate: float, data: tuple[Manifest, Images, pd.DataFrame], tmp_path: Path
) -> None:
    """Without dropout, whose masks the two ways would draw differently; both phases must improve on validation."""
    row = backbone(
        name, finetune__dropout=0.0, finetune__optimizer="adam", finetune__weight_decay=0.0, finetune__batch_size=8,
        finetune__learning_rate=1e-3,
        finetune__unfrozen_learning_rate=rate,
    )  # fmt: skip
    base = calibrated(row)
    start = base.get_weights()
    features = extract(tmp_path / "features", base, row, data)
    runtime.configure(1)
    trained = fine_tune(
        base, row, data[0], features, data[1], class_weights="none", seed=5, publish=lambda *record: None
    )
    losses = [record["val_loss"] for record in trained.history]
    assert losses == sorted(losses, reverse=True), "the best epoch must be the last one for the two to be compared"

    runtime.configure(1)
    reference = backbones.build_base(row.base)
    reference.set_weights(start)
    runtime.configure(1)  # the head draws the same first weights
    expected = plain(reference, row, data, scale_of(features))
    images = data[1].prepared[:]
    np.testing.assert_allclose(
        trained.model.predict(images, verbose=0), expected.predict(images, verbose=0), rtol=1e-3, atol=1e-5
    )
    moved = [np.abs(a - b).max() for a, b in zip(base.get_weights(), start, strict=True)]
    assert max(moved) > 0
    for mine, theirs in zip(base.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_the_trunk_and_batch_normalization_stay_as_they_were(
    data: tuple[Manifest, Images, pd.DataFrame], tmp_path: Path
) -> None:
    row = backbone("mobilenet", finetune__unfrozen_learning_rate=1e-4)
    base = calibrated(row)
    before = {weight.path: weight.numpy() for weight in base.weights}
    features = extract(tmp_path / "features", base, row, data)
    trained = fine_tune(
        base, row, data[0], features, data[1], class_weights="none", seed=1, publish=lambda *record: None
    )
    assert [record["phase"] for record in trained.history] == ["frozen"] * 2 + ["unfrozen"] * 2
    assert [record["epoch"] for record in trained.history] == [1, 2, 3, 4]
    names = [layer.name for layer in base.layers]
    trunk = names[: names.index(row.features.frozen_until) + 1]
    moved = {weight.path.split("/")[-2] for weight in base.weights if (weight.numpy() != before[weight.path]).any()}
    assert not moved & set(trunk)
    assert not {name for name in moved if name.endswith("_bn")}
    assert "conv_pw_12" in moved


def test_a_second_phase_that_only_harms_is_undone(
    data: tuple[Manifest, Images, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights do move in phase 2; its losses are made out to be worse than phase 1's."""
    row = backbone("vgg16")
    base = calibrated(row)
    before = base.get_weights()
    features = extract(tmp_path / "features", base, row, data)
    moved = []

    def worse(model: Any, *arguments: Any, phase: Any, **options: Any) -> Outcome:
        outcome = fit_phase(model, *arguments, phase=phase, **options)
        if phase.name == "frozen":
            return outcome
        moved.append(any((a != b).any() for a, b in zip(base.get_weights(), before, strict=True)))
        return Outcome([record | {"val_loss": 99.0} for record in outcome.history], outcome.seconds)

    monkeypatch.setattr(finetuning, "fit_phase", worse)
    trained = fine_tune(
        base, row, data[0], features, data[1], class_weights="none", seed=1, publish=lambda *record: None
    )
    assert moved == [True]
    for mine, theirs in zip(base.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(trained.history) == 4


def test_frozen_until_none_trains_the_whole_base_on_images(
    data: tuple[Manifest, Images, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = backbone("mobilenet", features__frozen_until="none", finetune__train_batch_normalization=True)
    base = calibrated(row)
    before = {weight.path: weight.numpy() for weight in base.weights}
    features = extract(tmp_path / "features", base, row, data)
    assert features.cut is None
    phases = []

    def better(model: Any, *arguments: Any, phase: Any, **options: Any) -> Outcome:
        outcome = fit_phase(model, *arguments, phase=phase, **options)
        phases.append(phase.name)
        return Outcome([record | {"val_loss": 9.0 - len(phases)} for record in outcome.history], outcome.seconds)

    monkeypatch.setattr(finetuning, "fit_phase", better)  # so that phase 2 is kept, however few its epochs are
    fine_tune(base, row, data[0], features, data[1], class_weights="none", seed=1, publish=lambda *record: None)
    assert phases == ["frozen", "whole"]
    moved = [weight.path for weight in base.weights if (weight.numpy() != before[weight.path]).any()]
    assert any("conv1/" in path for path in moved)
    assert any("conv1_bn/moving_mean" in path for path in moved)


def test_two_classes_are_the_same_path(data: tuple[Manifest, Images, pd.DataFrame], tmp_path: Path) -> None:
    manifest, images, views = data
    two = manifest.rows.assign(label=np.where(manifest.labels == 0, "zero", "other"))
    binary = (Manifest(two, ("other", "zero")), images, views)
    row = backbone("mobilenet")
    base = calibrated(row)
    features = extract(tmp_path / "features", base, row, binary)
    trained = fine_tune(
        base, row, binary[0], features, images, class_weights="none", seed=1, publish=lambda *record: None
    )
    probabilities = trained.model.predict(images.prepared[:4], verbose=0)
    assert probabilities.shape == (4, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
