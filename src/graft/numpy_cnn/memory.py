"""The memory that training a network in NumPy takes at its peak, estimated from shapes alone."""

from __future__ import annotations

from math import prod

from graft.numpy_cnn.network import Network
from graft.training_memory import FLOAT_BYTES, PASSING, TrainingMemory, resident, weights_bytes


def training_memory(network: Network, images: int) -> TrainingMemory:
    """Of a network that is trained by gradient descent on so many images, its input's size, as bytes.

    Every layer keeps its inputs, and what else its gradient needs, until the backward pass is through.
    """
    outputs = [prod(shape) for shape in network.shapes]
    kept = [layer.kept(shape) for layer, shape in zip(network.layers, network.shapes, strict=False)]
    weights = sum(array.size for array in network.get_weights())
    alone = TrainingMemory(
        weights_bytes(weights, "sgd"), FLOAT_BYTES * (sum(outputs) + sum(kept) + PASSING * max(*outputs, *kept))
    )
    return alone + resident(images, outputs[0])
