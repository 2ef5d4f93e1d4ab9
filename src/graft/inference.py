"""A model applied to many rows in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def compiled(model: keras.Model) -> Callable[[Any], Any]:
    """The model in inference mode as a graph, which is traced once for each batch shape."""
    import tensorflow as tf

    @tf.function(autograph=False)  # Keras' own predict function traces twice as long, for the same bits
    def call(batch: Any) -> Any:
        return model(batch, training=False)

    return call


def apply_model(model: keras.Model, inputs: Any, rows: np.ndarray, batch_size: int) -> Iterator[list[np.ndarray]]:
    """The model's outputs for the asked rows, batch by batch, in order; as apply_compiled of the model compiled."""
    return apply_compiled(compiled(model), inputs, rows, batch_size)


def apply_compiled(
    call: Callable[[Any], Any], inputs: Any, rows: np.ndarray, batch_size: int
) -> Iterator[list[np.ndarray]]:
    """The model's outputs for the asked rows, batch by batch, in order.

    The last batch is padded to the full size, since the batch shape is part of a float32 result.

    Args:
        call: from compiled.
        inputs: of shape (n, ...), indexed by an array of row numbers.
        rows: row numbers in inputs.
        batch_size: rows per call.

    Yields:
        One array of shape (b, ...) for each output of the model; b is below batch_size only in the last ones.
    """
    import tensorflow as tf

    for start in range(0, len(rows), batch_size):
        batch = np.asarray(inputs[rows[start : start + batch_size]])
        count = len(batch)
        if count < batch_size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - count, axis=0)])
        outputs = call(tf.constant(batch))
        yield [output.numpy()[:count] for output in (outputs if isinstance(outputs, list) else [outputs])]
