import keras
import numpy as np
import pytest

from graft.export_formats import FILES, INPUT, OUTPUT, ExportError, load_exported, write_network

SIZE = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def network(*layers):
    keras.utils.set_random_seed(1)
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8", name=INPUT)
    x = keras.ops.cast(images, "float32")
    for layer in layers:
        x = layer(x)
    return keras.Model(images, {OUTPUT: keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))})


@pytest.fixture(scope="module")
def small():
    """Constants, variables, moving averages and a layer that is random in training."""
    return network(
        keras.layers.Normalization(mean=[120.0] * 3, variance=[5000.0] * 3),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
    )


@pytest.mark.parametrize("out_format", FILES)
def test_any_number_of_images_gets_the_networks_probabilities(tmp_path, capfd, small, out_format):
    exported = load_exported(write_network(small, tmp_path, out_format), out_format)
    assert capfd.readouterr() == ("", "")
    expected = small.predict_on_batch(IMAGES)[OUTPUT]
    for count in (1, 5, 2):
        given = exported(IMAGES[:count])
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, expected[:count], atol=1e-6)


def test_the_saved_model_holds_each_variable_once(tmp_path, small):
    write_network(small, tmp_path, "savedmodel")
    weights = (tmp_path / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert small.count_params() * 4 <= weights < small.count_params() * 4 + 3000


def test_an_onnx_model_says_what_goes_in_and_comes_out(tmp_path, small):
    import onnxruntime

    session = onnxruntime.InferenceSession(write_network(small, tmp_path, "onnx"))
    assert [(value.name, value.shape, value.type) for value in session.get_inputs()] == [
        ("images", ["n", SIZE, SIZE, 3], "tensor(uint8)")
    ]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [("probabilities", ["n", 3])]


@pytest.mark.parametrize(
    ("out_format", "layer", "message"),
    [
        ("onnx", keras.layers.Conv2D(3, 1, groups=3), "ONNX, which lacks StatefulPartitionedCall$"),
        ("tflite", keras.layers.Resizing(5, 5, antialias=True), "TensorFlow Lite, which lacks ScaleAndTranslate$"),
    ],
)
def test_a_layer_that_a_format_lacks_is_refused_by_name(tmp_path, out_format, layer, message):
    with pytest.raises(ExportError, match=f"the model cannot be had in {message}"):
        write_network(network(layer), tmp_path, out_format)
    assert list(tmp_path.iterdir()) == []
