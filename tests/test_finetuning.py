"""Training on cached activations is plain end-to-end Keras training, whatever is stored and however much is frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from tuning_on_trial import SIZE, VIEWS, Digits, Memory, calibrated, digits, features, small, tuned

from graft import backbones, finetuning, networks, runtime
from graft.artifacts import Manifest
from graft.feature_sets import IMAGE, TOP, FeatureSet
from graft.sections import Backbone
from graft.tails import fit_tails
from graft.training import Trained

CUT = "conv_pw_11_relu"  # of small
EPOCHS, BATCH, SEED = 5, 8, 5  # the seed of tuned
TOLERANCE = 1e-4  # of the largest magnitude in a weight tensor, and of a loss
CASES: dict[str, dict[str, Any]] = {
    "vgg16": {"unfrozen_learning_rate": 1e-4},
    "resnet50": {"base__width": 0.1, "features__frozen_until": "conv4_block6_out"},
    "inceptionv3": {"base__width": 0.1, "base__input_size": 75, "features__frozen_until": "mixed7"},
    "mobilenet": {},
}
APPLICATIONS = {"vgg16": "VGG16", "resnet50": "ResNet50", "inceptionv3": "InceptionV3", "mobilenet": "MobileNet"}


@dataclass(frozen=True)
class Result:
    """What two trainings are compared by.

    Attributes:
        weights: trained ones, by a name.
        losses: of every epoch, training and validation.
    """

    weights: dict[str, np.ndarray]
    losses: list[tuple[float, float]]


def difference(one: Result, other: Result) -> float:
    """The largest difference: of a weight relative to the largest magnitude in its tensor, or of a loss, relative."""
    assert one.weights.keys() == other.weights.keys()
    weights = [np.abs(one.weights[name] - b).max() / (np.abs(b).max() or 1.0) for name, b in other.weights.items()]
    return float(max(*weights, *np.abs(np.array(one.losses) / np.array(other.losses) - 1).ravel()))


def case(name: str, **changes: object) -> Backbone:
    settings = {
        "epochs": EPOCHS, "unfrozen_epochs": EPOCHS, "batch_size": BATCH, "optimizer": "adam", "weight_decay": 0.0,
        "dropout": 0.1, "hidden_units": 16, "learning_rate": 0.01, "unfrozen_learning_rate": 3e-4,
        "base__application": APPLICATIONS[name],
    }  # fmt: skip
    return small("vgg16" if name == "vgg16" else "mobilenet", **settings | CASES[name] | changes)


@cache
def frozen_start(name: str) -> tuple[Any, list[np.ndarray], FeatureSet, Digits]:
    """A calibrated base, its weights, the rows at all points, and the digits."""
    data, row = digits(), case(name)
    base = calibrated(row)
    return base, base.get_weights(), features(base, row, data), data


def weights_of(base: Any, head: Any, row: Backbone) -> dict[str, np.ndarray]:
    """The weights after the cut: of the base by the place of the layer, of the head by its name."""
    names = [layer.name for layer in base.layers]
    tail = enumerate(base.layers[names.index(row.features.frozen_until) + 1 :])
    weights = {f"{place}/{i}": w for place, layer in tail for i, w in enumerate(layer.get_weights())}
    dense = [layer for layer in head.layers if layer.name in ("hidden", "classes")]
    return weights | {f"{layer.name}/{i}": w for layer in dense for i, w in enumerate(layer.get_weights())}


@cache
def cached(name: str, phases: int) -> tuple[Result, Trained]:
    """fine_tune, of one phase or of both."""
    base, start, rows, data = frozen_start(name)
    row = case(name, unfrozen_epochs=EPOCHS * (phases - 1))
    base.set_weights(start)
    trained = tuned(base, row, data, rows)
    losses = [(record["loss"], record["val_loss"]) for record in trained.history]
    return Result(weights_of(base, trained.model.get_layer("head"), row), losses), trained


def shuffled(data: Digits, shift: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every epoch's batches of pixels: view e (plus a shift) mod V, in the order that (seed, e) draws."""
    for epoch in range(EPOCHS):
        order = np.random.default_rng([SEED, epoch]).permutation(30)
        for start in range(0, 30, BATCH):
            chosen = order[start : start + BATCH]
            yield data.train[(epoch + shift) % VIEWS][chosen], data.one_hot("train")[chosen]


def plain(name: str, phases: int = 2, *, batch_normalization_trains: bool = False, shift: int = 0) -> list[Result]:
    """The recipe of Keras' guide: one model from pixels to probabilities, trunk frozen, one fit a phase; after each."""
    import keras

    row, (_, start, rows, data) = case(name), frozen_start(name)
    settings, base = row.finetune, backbones.build_base(row.base)
    base.set_weights(start)
    at = [layer.name for layer in base.layers].index(row.features.frozen_until)
    results: list[Result] = []
    head, losses = plain_head(rows), []
    for rate, first in ((settings.learning_rate, len(base.layers)), (settings.unfrozen_learning_rate, at + 1))[:phases]:
        freeze(base, first, batch_normalization_trains)
        pixels = keras.Input((SIZE, SIZE, 3))
        inputs = backbones.preprocess(row.base.application, networks.resized(pixels, SIZE, row.base.input_size))
        maps = base(inputs, training=batch_normalization_trains)
        vectors = (keras.layers.Flatten if name == "vgg16" else keras.layers.GlobalAveragePooling2D)()(maps)
        weights = head.get_weights()
        head = plain_head(rows)  # whose dropout starts anew
        head.set_weights(weights)
        model = keras.Model(pixels, head(vectors))
        model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
        history = model.fit(
            shuffled(data, shift), steps_per_epoch=4, epochs=EPOCHS, shuffle=False, verbose=0,
            validation_data=(data.validation, data.one_hot("validation")), validation_batch_size=BATCH,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=EPOCHS, restore_best_weights=True)],
        ).history  # fmt: skip
        losses = [*losses, *zip(history["loss"], history["val_loss"], strict=True)]
        results.append(Result(weights_of(base, head, row), losses))
    return results


def freeze(base: Any, first: int, batch_normalization_trains: bool) -> None:
    """All layers before the first one, and BatchNormalization everywhere; or else its statistics alone."""
    import keras

    for index, layer in enumerate(base.layers):
        layer.trainable = index >= first
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = batch_normalization_trains
            for weight in layer.trainable_variables:
                weight.trainable = False


def plain_head(rows: FeatureSet) -> Any:
    """Standardised, a hidden layer of sixteen, dropout before either dense layer, all drawn from the run's seed."""
    import keras

    train = rows.stored[TOP][np.flatnonzero((rows.index["split"] == "train").to_numpy())].astype("float64")
    floored = np.maximum(train.var(axis=0), 0.1 * train.var(axis=0).mean())
    return keras.Sequential(
        [
            keras.Input((train.shape[1],)),
            keras.layers.Normalization(mean=train.mean(axis=0).astype("f"), variance=floored.astype("f")),
            keras.layers.Dropout(0.1, seed=SEED),
            keras.layers.Dense(
                16, "relu", kernel_initializer=keras.initializers.GlorotUniform(SEED + 1), name="hidden"
            ),
            keras.layers.Dropout(0.1, seed=SEED + 1),
            keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.GlorotUniform(SEED), name="classes"),
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_cached_phases_equal_plain_end_to_end_training(name: str) -> None:
    """After either phase; the training loss must have fallen by half, else equality would mean little."""
    (first, _), (second, trained) = cached(name, 1), cached(name, 2)
    assert second.losses[-1][0] < second.losses[0][0] / 2
    assert best(second.losses[EPOCHS:]) < best(second.losses[:EPOCHS]), "phase 2 must be kept"
    expected = plain(name)
    assert difference(first, expected[0]) < TOLERANCE
    assert difference(second, expected[1]) < TOLERANCE
    assert loss_on_pixels(trained, frozen_start(name)[3]) == pytest.approx(best(second.losses), rel=TOLERANCE)


@pytest.mark.parametrize("name", ["vgg16", "mobilenet"])
def test_views_in_another_order_are_another_training(name: str) -> None:
    """The comparison above can tell."""
    assert difference(cached(name, 1)[0], plain(name, 1, shift=1)[0]) > 10 * TOLERANCE


@pytest.mark.parametrize(("name", "phases"), [("resnet50", 1), ("inceptionv3", 1), ("mobilenet", 2)])
def test_batch_normalization_that_follows_the_batches_is_another_training(name: str, phases: int) -> None:
    """The comparison above can tell."""
    expected = plain(name, phases, batch_normalization_trains=True)[-1]
    assert difference(cached(name, phases)[0], expected) > 10 * TOLERANCE


def best(losses: list[tuple[float, float]]) -> float:
    """The lowest validation loss."""
    return min(validation for _, validation in losses)


def loss_on_pixels(trained: Trained, data: Digits) -> float:
    """Of the saved model, on the validation images."""
    probabilities = trained.model.predict_on_batch(data.validation)
    return float(-np.log((probabilities * data.one_hot("validation")).sum(axis=1)).mean())


def test_what_is_not_stored_is_computed_on_the_way() -> None:
    """From the nearest stored point on; the pixels are always there."""
    data = digits()
    row = small(
        epochs=2, unfrozen_epochs=2, features__frozen_until=["conv_pw_11_relu", "conv_pw_5_relu"],
        tails={"unfrozen_learning_rate": [1e-3], "batch_size": [16], "halving": 1},
    )  # fmt: skip
    base, results = calibrated(row), []
    start = base.get_weights()
    for stored in (None, (), ("conv_pw_5_relu",), ("conv_pw_11_relu", TOP)):
        base.set_weights(start)
        trained = tuned(base, row, data, features(base, row, data, stored))
        histories = [trained.history, *(candidate.history for candidate in trained.candidates)]
        losses = [(record["loss"], record["val_loss"]) for history in histories for record in history]
        results.append(Result(dict(enumerate(trained.model.get_weights())), losses))
    assert [difference(results[0], result) < TOLERANCE for result in results] == [True] * 4


def test_the_trunk_and_batch_normalization_stay_as_they_were() -> None:
    data, row = digits(), small(epochs=2, unfrozen_epochs=2)
    base = calibrated(row)
    before = {weight.path: weight.numpy() for weight in base.weights}
    published: list[Any] = []
    trained = tuned(base, row, data, features(base, row, data), published)
    assert [record["phase"] for record in trained.history] == ["frozen"] * 2 + ["unfrozen"] * 2
    assert [record["epoch"] for record in trained.history] == [1, 2, 3, 4]
    assert [(number, phase) for number, phase, _ in published] == [(r["epoch"], r["phase"]) for r in trained.history]
    assert trained.candidates == []
    names = [layer.name for layer in base.layers]
    trunk = names[: names.index(row.features.cuts[0]) + 1]
    moved = {weight.path.split("/")[-2] for weight in base.weights if (weight.numpy() != before[weight.path]).any()}
    assert not moved & set(trunk)
    assert not {name for name in moved if name.endswith("_bn")}
    assert "conv_pw_12" in moved


def test_a_second_phase_that_only_harms_is_undone() -> None:
    """At a rate of ten, no epoch is better than the frozen base was."""
    data, row = digits(), small("vgg16", epochs=4, unfrozen_epochs=2, optimizer="sgd", unfrozen_learning_rate=10)
    base = calibrated(row)
    before, rows = base.get_weights(), features(base, row, data)
    head = tuned(base, small("vgg16", epochs=4, unfrozen_epochs=0, optimizer="sgd"), data, rows).model
    trained = tuned(base, row, data, rows)
    assert len(trained.history) == 6
    for mine, theirs in zip(base.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(trained.model.get_weights(), head.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_frozen_until_none_trains_the_whole_base_on_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNormalization, too; its features end up elsewhere, and the head does not standardise by where they began."""
    changes = {"features__frozen_until": "none", "train_batch_normalization": True, "unfrozen_learning_rate": 1e-3}
    data, row = digits(), small(epochs=1, unfrozen_epochs=2, batch_size=8, **changes)
    runtime.configure(1)
    base = backbones.build_base(row.base)  # whose BatchNormalization has seen nothing yet
    before = {weight.path: weight.numpy() for weight in base.weights}
    keep = {"loss_to_beat": math.inf}  # however few epochs there are
    monkeypatch.setattr(finetuning, "fit_tails", lambda *given, **named: fit_tails(*given, **named | keep))
    trained = tuned(base, row, data, features(base, row, data))
    assert [record["phase"] for record in trained.history] == ["frozen"] + ["whole"] * 2
    assert max(record["loss"] for record in trained.history) < 3
    moved = [weight.path for weight in base.weights if (weight.numpy() != before[weight.path]).any()]
    assert any("conv1/" in path for path in moved)
    assert any("conv1_bn/moving_mean" in path for path in moved)
    assert "standardize" not in [layer.name for layer in trained.model.get_layer("head").layers]


def test_random_layers_rest_in_the_frozen_part_and_follow_the_seed_in_the_tail() -> None:
    """A base with dropout of its own, before and after the cut."""
    import keras

    data, row, weights = digits(), small(epochs=2, unfrozen_epochs=3, features__frozen_until="low"), []
    for stored in (None, ()):
        keras.utils.set_random_seed(len(weights))
        images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", kernel_initializer=constant(1))(images)
        x = keras.layers.Activation("relu", name="low")(keras.layers.Dropout(0.5)(x))
        x = keras.layers.Conv2D(8, 3, strides=2, kernel_initializer=constant(2))(keras.layers.Dropout(0.5)(x))
        base = keras.Model(images, x)
        weights.append(tuned(base, row, data, features(base, row, data, stored)).model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=1e-6)


def constant(seed: int) -> Any:
    import keras

    return keras.initializers.HeNormal(seed)


def test_rows_kept_as_float16_train_almost_alike() -> None:
    data, row = digits(), small(epochs=3, unfrozen_epochs=0)
    base = calibrated(row)
    rows = features(base, row, data)
    halved = {name: Memory(part[:].astype("float16")) for name, part in rows.stored.items() if name != IMAGE}
    losses = [
        [record["loss"] for record in tuned(base, row, data, kept).history]
        for kept in (rows, FeatureSet(rows.index, {IMAGE: rows.stored[IMAGE], **halved}, rows.classes))
    ]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)


def test_two_classes_are_the_same_path() -> None:
    data = digits()
    two = data.manifest.rows.assign(label=np.where(data.manifest.labels == 0, "zero", "other"))
    index = data.index.assign(label=np.where(data.index["label"] == "digit 0", "zero", "other"))
    data = Digits(Manifest(two, ("other", "zero")), index, data.pixels)
    row = small(epochs=1, unfrozen_epochs=1)
    base = calibrated(row)
    trained = tuned(base, row, data, features(base, row, data))
    probabilities = trained.model.predict_on_batch(data.validation)
    assert probabilities.shape == (30, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("stored", "unfrozen_epochs", "start"),
    [((CUT, TOP), 2, CUT), ((CUT, TOP), 0, TOP), ((CUT,), 0, CUT), ((TOP,), 2, None), ((), 2, None)],
    ids=["from the cut", "from the top", "from a cut to the top", "not past what was trained", "nothing is stored"],
)
def test_held_out_images_need_not_pass_the_frozen_layers_again(
    stored: tuple[str, ...], unfrozen_epochs: int, start: str | None
) -> None:
    data, row = digits(), small(unfrozen_epochs=unfrozen_epochs, epochs=1)
    base = calibrated(row)
    rows = features(base, row, data, stored)
    trained = tuned(base, row, data, rows)
    if start is None:
        assert trained.shortcut is None
        return
    assert trained.shortcut is not None
    model, inputs = trained.shortcut
    assert inputs is rows.stored[start]
    expected = trained.model.predict(data.pixels[:60], verbose=0)
    np.testing.assert_allclose(model.predict(inputs[:60], verbose=0), expected, rtol=1e-4, atol=1e-6)


def test_rounded_rows_are_no_shortcut() -> None:
    data, row = digits(), small(unfrozen_epochs=0, epochs=1)
    base = calibrated(row)
    rows = features(base, row, data)
    half = {name: Memory(array[:].astype(np.float16)) for name, array in rows.stored.items() if name != IMAGE}
    rounded = FeatureSet(rows.index, {IMAGE: rows.stored[IMAGE], **half}, rows.classes)
    assert tuned(base, row, data, rounded).shortcut is None
