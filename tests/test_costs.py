from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graft import costs, runtime
from graft.costs import CostError, machine_multiply_adds, multiply_adds
from graft.planning import Segments
from graft.sections import Svm
from graft.svm import fit_svm


@pytest.fixture(autouse=True)
def _configured() -> None:
    runtime.configure(1)


def model(*layers: Any, shape: tuple[int, ...] = (8, 8, 4)) -> Any:
    import keras

    inputs = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_a_small_network_by_hand() -> None:
    from keras import layers

    network = model(
        layers.Conv2D(6, 3, strides=2, padding="same"),  # 4x4 places x 3x3x4 weights x 6 filters
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, depth_multiplier=2),  # 2x2 places x 3x3 weights x 12 maps
        layers.Flatten(),
        layers.Dense(5),  # 48 x 5
    )
    assert multiply_adds(network) == 16 * 36 * 6 + 4 * 9 * 12 + 48 * 5


def test_each_kind_of_kernel_by_hand() -> None:
    from keras import layers

    grouped = layers.Conv2D(6, 3, groups=2, padding="same")  # each filter sees half of the 4 maps
    assert multiply_adds(model(grouped)) == 64 * 9 * 2 * 6
    assert multiply_adds(model(layers.SeparableConv2D(6, 3))) == 36 * (9 * 4 + 4 * 6)
    assert multiply_adds(model(layers.Dense(3))) == 64 * 4 * 3  # at every place
    assert multiply_adds(model(layers.Conv2D(2, 3, data_format="channels_first"), shape=(4, 8, 8))) == 36 * 9 * 4 * 2


def test_a_layer_counts_each_time_that_it_is_called_and_a_nested_model_too() -> None:
    import keras

    inner = model(keras.layers.Conv2D(4, 1))
    shared = keras.layers.Dense(4)
    inputs = keras.Input((8, 8, 4))
    outputs = keras.layers.Add()([shared(shared(inner(inputs))), inner(inputs)])
    assert multiply_adds(keras.Model(inputs, outputs)) == 4 * 64 * 16
    assert multiply_adds(keras.Sequential([keras.Input((8, 8, 4)), inner])) == 64 * 16


@pytest.mark.parametrize(
    ("application", "arguments", "published"),
    [
        ("VGG16", {}, 15.35e9),
        ("MobileNet", {"alpha": 0.25}, 41e6),
        ("ResNet50", {}, 3.86e9),
    ],
)
def test_published_figures_at_224_px(application: str, arguments: dict[str, float], published: float) -> None:
    import keras

    build = getattr(keras.applications, application)
    base = build(include_top=False, weights=None, input_shape=(224, 224, 3), **arguments)
    assert multiply_adds(base) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kernels": ["rbf"]}, lambda svc: len(svc.support_vectors_) * (4 + 2)),
        ({"kernels": ["linear"]}, lambda svc: len(svc.support_vectors_) * (4 + 2)),
        ({"max_rows": 10, "components": 7}, lambda _: 7 * 4 + 7 * 7 + 7 * 3),
        ({"max_rows": 10, "approximation": "linear"}, lambda _: 4 * 3),
    ],
    ids=["rbf", "linear kernel", "nystroem", "linear"],
)
def test_machines_by_hand(changes: dict[str, Any], expected: Any) -> None:
    """Four features, three classes: an exact machine compares each of the three pairs of them."""
    values = {
        "kernels": ["rbf"],
        "c": [1.0],
        "folds": 2,
        "max_rows": 500,
        "approximation": "nystroem",
        "components": 20,
    }
    random, labels = np.random.default_rng(0), np.arange(60) % 3
    features = random.normal(size=(60, 4)) + np.eye(3, 4)[labels]
    machine = fit_svm(features, labels, np.arange(60), Svm.model_validate(values | changes), seed=1).model
    fitted = machine.calibrated_classifiers_[0].estimator[-1]
    assert machine_multiply_adds(machine) == expected(fitted)


def test_an_unknown_kernel_or_an_unfixed_size_is_refused() -> None:
    import keras

    with pytest.raises(CostError, match=r"counted in Conv2D, .*received Conv2DTranspose up with weights \[\(3, 3, 2"):
        multiply_adds(model(keras.layers.Conv2DTranspose(2, 3, name="up")))
    with pytest.raises(CostError, match=r"the input of any must have a fixed size, received \(None, None, None, 3\)"):
        multiply_adds(model(keras.layers.Conv2D(2, 3, name="any"), shape=(None, None, 3)))
    with pytest.raises(CostError, match="counted in functional models, received Sequential early"):
        multiply_adds(keras.Sequential([keras.layers.Dense(2)], name="early"))


def test_stretches_add_up_to_the_base() -> None:
    import keras

    base = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    measured = costs.segments(base, ["conv4_block6_out", "conv2_block3_out"], "avg")
    assert measured.points == ("image", "conv2_block3_out", "conv4_block6_out", "top")
    assert measured.elements == (16 * 16 * 256, 4 * 4 * 1024, 2048)
    assert sum(measured.multiply_adds) == multiply_adds(base) == measured.between("image", "top")
    assert costs.segments(base, [], "flatten") == Segments(("image", "top"), (multiply_adds(base),), (2 * 2 * 2048,))
