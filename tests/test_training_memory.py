"""Estimates worked out by hand in comments, and one that is held against the peak of a real training."""

from __future__ import annotations

import pytest
from networks_on_trial import backbone
from peak_memory import growth

from graft import training_memory
from graft.finetuning_memory import finetuning_memory
from graft.training_memory import (
    APPLIED_LAYER_BYTES,
    LAYER_BYTES,
    PROCESS_BYTES,
    SAFETY,
    TrainingMemory,
    applied,
    head,
    network_memory,
    resident,
    trained,
)

MEGA = 2**20
TRAINING = """
import numpy as np
from graft import runtime
runtime.configure(1)
from graft.baselines import build_cnn
from graft.batches import Rows
from graft.training import Phase, fit_phase
from graft.training_memory import PROCESS_BYTES, SAFETY, network_memory
from networks_on_trial import tiny_params
class Noise:
    row_shape, dtype = (128, 128, 3), np.dtype(np.uint8)
    def __init__(self): self.rows = np.random.default_rng(0).integers(0, 256, (96, 128, 128, 3), np.uint8)
    def __len__(self): return len(self.rows)
    def __getitem__(self, rows): return self.rows[rows]
before = 0
row = tiny_params(baselines__cnn__input_size=128, baselines__cnn__train__batch_size=32).baselines["cnn"]
model, rows, labels = build_cnn(row, 128, 10), Noise(), np.arange(96) % 10
import sys
print(network_memory(model, "adamw", 96).bytes(32), file=sys.stderr)
fit_phase(model, Rows(rows, [np.arange(64)], labels[:64]), Rows(rows, [np.arange(64, 96)], labels[64:]), classes=10,
          settings=row.train, phase=Phase("scratch", 2, 1e-3), first_epoch=1, seed=1, publish=lambda *told: None)
"""


def test_bytes_and_the_largest_batch_are_each_other_s_inverse() -> None:
    memory = TrainingMemory(fixed=40 * MEGA, per_row=2 * MEGA)
    assert memory.bytes(100) == round(SAFETY * (PROCESS_BYTES + 240 * MEGA))
    assert memory.largest_batch(memory.bytes(100)) == 100
    assert memory.largest_batch(memory.bytes(100) - MEGA) == 99
    assert memory.largest_batch(MEGA) < 1
    assert memory + TrainingMemory(1, 2) == TrainingMemory(40 * MEGA + 1, 2 * MEGA + 2)


def test_a_network_by_hand() -> None:
    import keras

    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    # outputs of a row: image 48, convolution, normalisation, ReLU and vector 128 each, classes 2; ReLU takes the
    # normalisation's place; three times the largest pass; 4 bytes a number
    assert trained(model, "adamw").per_row == 4 * (48 + 3 * 128 + 2 + 3 * 128)
    # weights: 3x3x3x8, 4x8, 128x2 + 2; 7 copies and twice 2 slots, or twice 1 with sgd
    weights = 216 + 32 + 258
    assert trained(model, "adamw").fixed == 4 * weights * 11 + 6 * LAYER_BYTES
    assert trained(model, "sgd").fixed == 4 * weights * 9 + 6 * LAYER_BYTES
    assert applied(model) == TrainingMemory(4 * weights + 6 * APPLIED_LAYER_BYTES, 4 * 3 * 128)
    assert network_memory(model, "sgd", 10).fixed == trained(model, "sgd").fixed + 2 * 10 * 48


def test_layers_of_a_nested_model_count_wherever_they_stand() -> None:
    import keras

    inner_input = keras.Input((4, 4, 3))
    inner = keras.Model(inner_input, keras.layers.Conv2D(8, 3, padding="same")(inner_input))
    outer_input = keras.Input((4, 4, 3))
    outer = keras.Model(outer_input, keras.layers.Flatten()(inner(outer_input)))
    # image twice, as the input of either; convolution and vector; the largest three times
    assert trained(outer, "sgd").per_row == 4 * (2 * 48 + 2 * 128 + 3 * 128)


def test_a_sequential_part_counts_with_its_layers() -> None:
    """As ConvNeXt's stem."""
    import keras

    inputs = keras.Input((4, 4, 3))
    parts = [keras.layers.Conv2D(8, 2, strides=2), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    model = keras.Model(inputs, keras.layers.Flatten()(keras.Sequential(parts)(inputs)))
    # image twice, as the input of either; convolution and ReLU, in the normalisation's place, and vector
    assert trained(model, "sgd").per_row == 4 * (2 * 48 + 3 * 32 + 3 * 48)
    assert applied(model).per_row == 4 * 3 * 48


def test_rows_that_stay_on_the_disk_take_no_memory() -> None:
    assert resident(100, 1000).fixed == 200_000
    assert resident(10**6, 1000).fixed == 0


def test_a_head_by_hand() -> None:
    # (5 + 1) x 3 + (3 + 1) x 2 weights and the scale's 2 x 5
    assert head(5, 2, 3, "sgd").fixed == 4 * (18 + 8 + 10) * 9 + 4 * LAYER_BYTES
    assert head(5, 2, 0, "sgd").per_row == 4 * (4 * 5 + 3 * 2)


def test_fine_tuning_is_as_large_as_what_it_trains() -> None:
    from graft.backbones import build_base

    row = backbone("mobilenet")
    base = build_base(row.base)
    sizes = {"image_size": 32, "classes": 10, "rows": 50, "itemsize": 4}
    both = finetuning_memory(base, row, stored=("conv_pw_11_relu", "top"), **sizes)
    assert len(both) == 2  # the head, and the layers after the cut with it
    assert both[0].per_row < both[1].per_row
    from_images = finetuning_memory(base, row, stored=(), **sizes)
    assert all(far.per_row > near.per_row for far, near in zip(from_images, both, strict=True))
    whole = finetuning_memory(base, backbone("mobilenet", features__frozen_until="none"), stored=("top",), **sizes)
    assert whole[1].per_row > from_images[1].per_row
    assert len(finetuning_memory(base, backbone("mobilenet", finetune__unfrozen_epochs=0), stored=(), **sizes)) == 1
    grid = {"learning_rate": [1e-3, 1e-2], "dropout": [0.1, 0.2], "hidden_units": [0, 8]}
    heads = finetuning_memory(base, backbone("mobilenet", finetune__heads=grid), stored=("top",), **sizes)
    alone = head(256, 10, 0, "adamw").per_row
    assert heads[0].per_row == 4 * alone + 4 * head(256, 10, 8, "adamw").per_row + 4 * 256  # and the row itself


@pytest.mark.slow
def test_a_real_training_stays_below_its_estimate() -> None:
    peak, told = growth(TRAINING)
    estimate = next(int(line) for line in told.splitlines() if line.isdigit())
    assert 0.5 * estimate < peak * 1024 < estimate
    assert training_memory.SAFETY > 1
