"""The memory that a training takes at its peak, estimated from the graph of what is trained and never measured.

Only shapes, counts and the constants below decide, so that an estimate is the same on every machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from graft.batches import RESIDENT_BYTES

if TYPE_CHECKING:
    import keras

# Measured with TensorFlow 2.21 on a CPU: what a stage's process has before it trains, and what a layer adds to graphs.
PROCESS_BYTES = 850 * 2**20
LAYER_BYTES = 2 * 2**20
APPLIED_LAYER_BYTES = LAYER_BYTES // 4  # of a layer without a backward pass
FLOAT_BYTES = 4
SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimiser keeps for each weight
# Of the weights beside the optimiser's slots: themselves, gradients, the best ones and those that replace them, and
# what a checkpoint and the saved model hold while they are written.
WEIGHT_COPIES = 7
PASSING = 3  # of the largest output: what the layer at work reads, writes and rearranges
# Estimates are multiplied by it. Alone they were 1.01 to 1.31 times the measured peaks of 19 trainings at 32 to 224 px,
# and 1.04 to 1.18 times those of the default stages; other machines, threads and versions differ.
SAFETY = 1.2


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of memory at the peak of a training.

    Attributes:
        fixed: whatever the batch size, without the process itself.
        per_row: for each row of a batch.
    """

    fixed: int
    per_row: int

    def bytes(self, batch_size: int) -> int:
        """Of the whole process, SAFETY included."""
        return round(SAFETY * (PROCESS_BYTES + self.fixed + self.per_row * batch_size))

    def largest_batch(self, limit: int) -> int:
        """The most rows of a batch that stay within so many bytes; below 1 where not even the rest fits."""
        return int((limit / SAFETY - PROCESS_BYTES - self.fixed) // max(1, self.per_row))

    def __add__(self, other: TrainingMemory) -> TrainingMemory:
        """Of two that are there at once."""
        return TrainingMemory(self.fixed + other.fixed, self.per_row + other.per_row)


def trained(model: keras.Model, optimizer: str) -> TrainingMemory:
    """Of the layers that are trained: weights, optimiser, and the outputs that the backward pass needs.

    Args:
        model: functional; models nested in it count with their layers.
        optimizer: as in Optimisation.
    """
    sizes, overwritten = dict(_outputs(model)), _overwritten(model)
    largest = max(sizes.values(), default=0)
    kept = sum(size for name, size in sizes.items() if name not in overwritten)
    fixed = weights_bytes(model.count_params(), optimizer) + LAYER_BYTES * len(sizes)
    return TrainingMemory(fixed, kept + PASSING * largest)


def weights_bytes(weights: int, optimizer: str) -> int:
    """Of so many trained numbers, with all their copies."""
    return FLOAT_BYTES * weights * (WEIGHT_COPIES + 2 * SLOTS[optimizer])  # twice: a checkpoint holds a copy


def applied(model: keras.Model) -> TrainingMemory:
    """Of layers that are only applied: their weights, and the outputs at hand at a time."""
    sizes = dict(_outputs(model))
    fixed = FLOAT_BYTES * model.count_params() + APPLIED_LAYER_BYTES * len(sizes)
    return TrainingMemory(fixed, PASSING * max(sizes.values(), default=0))


def head(features: int, classes: int, hidden_units: int, optimizer: str) -> TrainingMemory:
    """Of a head of networks.build_head."""
    widths = [features, *([hidden_units] if hidden_units else []), classes]
    weights = sum((before + 1) * after for before, after in pairwise(widths)) + 2 * features
    return TrainingMemory(
        weights_bytes(weights, optimizer) + 4 * LAYER_BYTES, FLOAT_BYTES * (4 * features + 3 * sum(widths[1:]))
    )


def network_memory(model: keras.Model, optimizer: str, images: int) -> TrainingMemory:
    """Of a whole network that is trained on so many images, its input's size, as bytes."""
    return trained(model, optimizer) + resident(images, prod(model.input_shape[1:]))


def resident(rows: int, bytes_of_row: int) -> TrainingMemory:
    """Of rows that training reads: twice while they become one tensor, nothing where they stay on the disk."""
    size = rows * bytes_of_row
    return TrainingMemory(2 * size if size <= RESIDENT_BYTES else 0, 0)


def _outputs(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, int]]:
    """The layers and operations, by a name of their own, with the bytes of their outputs for one row."""
    import keras

    for operation in _functional(model).operations:
        name = f"{prefix}{operation.name}"
        if isinstance(operation, keras.Model):
            yield from _outputs(operation, f"{name}/")
        else:
            yield name, sum(FLOAT_BYTES * prod(size or 1 for size in shape) for shape in _shapes(operation.output))


def _functional(model: keras.Model) -> keras.Model:
    """The model as a graph, which a Sequential, such as a part of ConvNeXt, does not show."""
    import keras

    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model


def _shapes(output: Any) -> Iterator[tuple[int | None, ...]]:
    """Shapes of an operation's outputs without the rows."""
    if isinstance(output, list | tuple):
        for item in output:
            yield from _shapes(item)
    else:
        yield tuple(output.shape[1:])


def _overwritten(model: keras.Model, prefix: str = "") -> set[str]:
    """Outputs in whose place TensorFlow writes an activation: those of normalisations and sums that it alone reads."""
    import keras

    model = _functional(model)
    operations = {operation.name: operation for operation in model.operations}
    readers: dict[str, list[Any]] = defaultdict(list)
    for settings in model.get_config()["layers"]:
        for source in set(_sources(settings["inbound_nodes"])):
            readers[source].append(operations[settings["name"]])
    found: set[str] = set()
    for name, operation in operations.items():
        if isinstance(operation, keras.Model):
            found |= _overwritten(operation, f"{prefix}{name}/")
        elif isinstance(operation, keras.layers.BatchNormalization | keras.layers.Add):
            kinds = [isinstance(reader, keras.layers.Activation | keras.layers.ReLU) for reader in readers[name]]
            if kinds == [True]:
                found.add(f"{prefix}{name}")
    return found


def _sources(node: Any) -> Iterator[str]:
    """Names of the operations whose outputs occur in a serialised call."""
    if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
        yield node["config"]["keras_history"][0]
    elif isinstance(node, dict | list | tuple):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _sources(item)
