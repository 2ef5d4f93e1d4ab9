"""The networks that the lectures describe are what params.yaml builds: each layer, its parameters and its outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graft.baselines import build_cnn
from graft.params import Params, load_params

ROOT = Path(__file__).resolve().parents[1]
DEFAULT, MNIST = load_params(ROOT / "params.yaml"), load_params(ROOT / "experiments" / "mnist" / "params.yaml")
BOTH = pytest.mark.parametrize("params", [DEFAULT, MNIST], ids=["default", "mnist"])

Layers = list[tuple[str, tuple[int, ...], int]]  # kind, output without the batch, parameters


def layers_of(params: Params, row: str) -> Layers:
    """The row's layers after the scaling of pixels; resizing and the conversion to grey stand before it."""
    model = build_cnn(params.baselines[row], params.data.image_size, classes=10)
    kinds = [type(layer).__name__ for layer in model.layers]
    listed = model.layers[kinds.index("Rescaling") + 1 :]
    return [(type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params()) for layer in listed]


@BOTH
def test_lecture_small_has_30762_parameters(params: Params) -> None:
    layers = layers_of(params, "lecture_small")
    assert layers == [
        ("Conv2D", (26, 26, 16), 160),  # (3 * 3 * 1 + 1) * 16
        ("MaxPooling2D", (13, 13, 16), 0),
        ("Conv2D", (11, 11, 32), 4640),  # (3 * 3 * 16 + 1) * 32
        ("MaxPooling2D", (5, 5, 32), 0),
        ("Flatten", (800,), 0),
        ("Dense", (32,), 25632),  # (800 + 1) * 32
        ("Dense", (10,), 330),  # (32 + 1) * 10
    ]
    assert sum(count for *_, count in layers) == 30762


@BOTH
def test_lecture_dropout_has_34826_parameters(params: Params) -> None:
    layers = layers_of(params, "lecture_dropout")
    assert layers == [
        ("Conv2D", (26, 26, 32), 320),
        ("MaxPooling2D", (13, 13, 32), 0),
        ("Conv2D", (11, 11, 64), 18496),  # (3 * 3 * 32 + 1) * 64
        ("MaxPooling2D", (5, 5, 64), 0),
        ("Flatten", (1600,), 0),
        ("Dropout", (1600,), 0),
        ("Dense", (10,), 16010),
    ]
    assert sum(count for *_, count in layers) == 34826
    [dropout] = (item["Dropout"] for item in params.baselines["lecture_dropout"].layers if "Dropout" in item)
    assert dropout == {"rate": 0.5}


@BOTH
def test_lenet_has_61706_parameters(params: Params) -> None:
    layers = [layer for layer in layers_of(params, "lenet") if layer[0] != "ZeroPadding2D"]
    assert layers == [
        ("Conv2D", (28, 28, 6), 156),  # (5 * 5 * 1 + 1) * 6
        ("AveragePooling2D", (14, 14, 6), 0),
        ("Conv2D", (10, 10, 16), 2416),  # (5 * 5 * 6 + 1) * 16
        ("AveragePooling2D", (5, 5, 16), 0),
        ("Flatten", (400,), 0),
        ("Dense", (120,), 48120),
        ("Dense", (84,), 10164),
        ("Dense", (10,), 850),
    ]
    assert sum(count for *_, count in layers) == 61706


@BOTH
def test_lenet_sees_32_pixels_and_answers_with_tanh(params: Params) -> None:
    model = build_cnn(params.baselines["lenet"], params.data.image_size, classes=10)
    shapes = {layer.name: tuple(layer.output.shape[1:3]) for layer in model.layers}
    assert (32, 32) in shapes.values()
    weighted = [layer for layer in model.layers if layer.weights]
    assert [layer.activation.__name__ for layer in weighted] == [*["tanh"] * 4, "softmax"]


@pytest.mark.parametrize(("params", "sides"), [(DEFAULT, (32, 16, 8, 3)), (MNIST, (28, 14, 7, 3))])
def test_strided_halves_the_sides_and_doubles_the_filters(params: Params, sides: tuple[int, ...]) -> None:
    layers = layers_of(params, "strided")
    # (n + 2p - k) / s + 1, rounded down: same keeps n / s, rounded up; valid has no margin, (8 - 3) / 2 + 1 = 3
    assert [layer for layer in layers if layer[0] == "Conv2D"] == [
        ("Conv2D", (side, side, filters), count)
        for side, filters, count in zip(sides, (16, 32, 64, 128), (416, 4640, 18496, 73856), strict=True)
    ]
    assert not [kind for kind, *_ in layers if "Pooling" in kind]
    assert layers[-1] == ("Dense", (10,), 11530)  # (3 * 3 * 128 + 1) * 10


def test_a_dense_layer_has_a_hundred_times_the_parameters_of_as_many_filters() -> None:
    assert layers_of(DEFAULT, "mlp") == [
        ("Flatten", (1024,), 0),
        ("Dense", (256,), 262400),  # (32 * 32 + 1) * 256
        ("Dense", (10,), 2570),
    ]
    mlp = DEFAULT.baselines["mlp"]
    [scaling, *_] = mlp.layers
    filters = {"Conv2D": {"filters": 256, "kernel_size": 3, "activation": "relu"}}
    convolution = mlp.model_copy(update={"layers": [scaling, filters, {"GlobalAveragePooling2D": {}}]})
    params = DEFAULT.model_copy(update={"baselines": {"filters": convolution}})
    assert layers_of(params, "filters")[0] == ("Conv2D", (30, 30, 256), 2560)  # (3 * 3 * 1 + 1) * 256


@BOTH
def test_default_cnn_normalises_before_its_activation_and_drops_whole_maps(params: Params) -> None:
    kinds = [kind for kind, *_ in layers_of(params, "cnn")]
    block = ["Conv2D", "BatchNormalization", "Activation", "MaxPooling2D", "SpatialDropout2D"]
    assert kinds == [*block * 3, "Flatten", "Dense", "Dropout", "Dense"]


@BOTH
def test_every_row_scales_its_pixels_itself(params: Params) -> None:
    for name, row in params.baselines.items():
        assert row.layers[0] == {"Rescaling": {"scale": pytest.approx(1 / 255, rel=1e-15)}}, name


def test_mnist_keeps_its_test_split_and_the_lectures_settings() -> None:
    data = MNIST.data
    assert (data.split, data.validation, data.train_per_class, data.image_size) == ("predefined", 0.1, None, 28)
    assert MNIST.augment.views == 1
    for name, epochs in (("lecture_dropout", 15), ("lecture_small", 10)):
        train = MNIST.baselines[name].train
        assert (train.epochs, train.batch_size, train.optimizer) == (epochs, 128, "adam")
        assert train.patience >= epochs  # none is cut short


def test_mnist_has_the_networks_of_the_default_pipeline() -> None:
    of_keras = {name for name, row in DEFAULT.baselines.items() if row.engine == "keras"}
    for name in of_keras & set(MNIST.baselines):
        default, mnist = DEFAULT.baselines[name].layers, MNIST.baselines[name].layers
        assert [item for item in mnist if "ZeroPadding2D" not in item] == default, name
    assert {"cnn", "lecture_dropout", "lecture_small", "lenet", "strided", "mlp"} <= set(MNIST.baselines)


def test_the_reported_figures_stand_beside_what_was_measured() -> None:
    results = (ROOT / "experiments" / "mnist" / "results.md").read_text(encoding="utf-8")
    for name, reported in (("lecture_dropout", 99.19), ("lecture_small", 98.92)):
        [line] = (line for line in results.splitlines() if line.startswith(f"| {name} |") and "of 10,000" in line)
        low, high = map(float, re.findall(r"(\d+\.\d+)-(\d+\.\d+)", line)[0])
        assert high >= reported
        assert low < high


def test_the_network_in_numpy_and_its_twin_in_keras_differ_in_the_engine_alone() -> None:
    twins = [DEFAULT.baselines[name].model_dump() for name in ("numpy_cnn", "keras_cnn")]
    assert [twin.pop("engine") for twin in twins] == ["numpy", "keras"]
    assert twins[0] == twins[1]
    assert twins[0]["layers"] == DEFAULT.baselines["lecture_small"].layers
    assert layers_of(DEFAULT, "numpy_cnn") == layers_of(DEFAULT, "lecture_small")
