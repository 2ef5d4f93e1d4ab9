from __future__ import annotations

import numpy as np

from graft.inference import apply_model


def test_the_last_batch_is_padded_and_the_padding_dropped() -> None:
    import keras

    shapes = []

    class Spy(keras.layers.Layer):
        def call(self, x):  # type: ignore[no-untyped-def]
            shapes.append(x.shape)
            return x * 2

    vectors = keras.Input((3,))
    model = keras.Model(vectors, Spy()(vectors))
    inputs = np.arange(21, dtype="float32").reshape(7, 3)
    rows = np.array([6, 0, 1, 2, 3])
    outputs = [batch for (batch,) in apply_model(model, inputs, rows, batch_size=2)]
    assert [len(batch) for batch in outputs] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(outputs), inputs[rows] * 2)
    assert {tuple(shape) for shape in shapes[1:]} == {(2, 3)}
