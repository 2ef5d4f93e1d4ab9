"""The formats of other runtimes: a network written as one of them, and loaded again by its own runtime."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.errors import GraftError
from graft.image_formats import standard_error_muted

if TYPE_CHECKING:
    import keras

FILES = {"savedmodel": "", "onnx": "model.onnx", "tflite": "model.tflite"}  # in a folder of its own
INPUT, OUTPUT = "images", "probabilities"
SIGNATURE = "serving_default"
OPSET = 18  # of ONNX, the highest that tf2onnx writes

Apply = Callable[[np.ndarray], np.ndarray]


class ExportError(GraftError):
    """A model cannot be exported, or what was exported is not the model."""


def write_network(network: keras.Model, folder: Path, out_format: str) -> Path:
    """Write a network into a folder and say where; the number of images at a time stays open.

    Args:
        network: INPUT (n, size, size, 3) to {OUTPUT: (n, classes)}, in inference mode.
        folder: which is there.
        out_format: of FILES.

    Raises:
        ExportError: the format cannot express one of the network's layers.
    """
    path = folder / FILES[out_format]
    with _quiet(), TemporaryDirectory() as scratch:
        saved = path if out_format == "savedmodel" else Path(scratch)
        _write_saved_model(network, saved)
        if out_format == "onnx":
            _write_onnx(saved, path)
        elif out_format == "tflite":
            _write_tflite(saved, path)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Converters tell of every step; what goes wrong they raise."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), standard_error_muted():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write_saved_model(network: keras.Model, path: Path) -> None:
    """As Keras' own export, which writes every variable twice."""
    import tensorflow as tf

    images = tf.TensorSpec(network.input_shape, tf.uint8, name=INPUT)
    module = tf.Module()
    module.serve = tf.function(lambda images: network(images, training=False), [images], autograph=False)
    module.weights = module.serve.get_concrete_function().variables  # else they would not be saved
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve})


def _write_onnx(saved: Path, path: Path) -> None:
    """tf2onnx takes constants of a function for inputs of its own, so it gets the frozen graph, where they stand."""
    import onnx
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(saved))
    frozen = convert_variables_to_constants_v2(
        loaded.signatures[SIGNATURE], lower_control_flow=False, aggressive_inlining=True
    )
    given, made = frozen.inputs[0].name, frozen.outputs[0].name
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        name="graft",
        input_names=[given],
        output_names=[made],
        tensors_to_rename={given: INPUT, made: OUTPUT},
        opset=OPSET,
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    lacking = {node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)}
    if lacking:  # tf2onnx leaves these as they are
        raise ExportError(f"the model cannot be had in ONNX, which lacks {', '.join(sorted(lacking))}")
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _write_tflite(saved: Path, path: Path) -> None:
    """With TensorFlow Lite's own operations alone, which are all that its runtimes have by themselves."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        content = converter.convert()
    except Exception as error:  # the converter's own class is not public
        lacking = re.findall(r"^(?:Custom|Flex) ops: (.+)$", str(error), re.MULTILINE)
        reason = ", ".join(lacking) or str(error).strip().splitlines()[0]
        raise ExportError(f"the model cannot be had in TensorFlow Lite, which lacks {reason}") from error
    path.write_bytes(content)


def load_exported(path: Path, out_format: str) -> Apply:
    """RGB images (n, size, size, 3), uint8, to probabilities (n, classes), by the format's own runtime.

    Args:
        path: as write_network gives it.
        out_format: of FILES.
    """
    return {"savedmodel": _saved_model, "onnx": _onnx, "tflite": _tflite}[out_format](path)


def _saved_model(path: Path) -> Apply:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def apply(images: np.ndarray) -> np.ndarray:
        return np.asarray(loaded.signatures[SIGNATURE](**{INPUT: tf.constant(images)})[OUTPUT].numpy())

    return apply


def _onnx(path: Path) -> Apply:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def _tflite(path: Path) -> Apply:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated", UserWarning)
        interpreter = tf.lite.Interpreter(str(path))
    run: Any = interpreter.get_signature_runner(SIGNATURE)
    _, *shape = interpreter.get_input_details()[0]["shape"]
    with standard_error_muted():  # it says that it found the processor
        run(**{INPUT: np.zeros((1, *shape), np.uint8)})
    return lambda images: np.asarray(run(**{INPUT: images})[OUTPUT])
