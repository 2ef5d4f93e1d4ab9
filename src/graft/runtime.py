"""What must be settled before TensorFlow is imported, and the one seed."""

from __future__ import annotations

import functools
import gc
import os
import sys

from graft.machines import describe_machine


def configure(seed: int) -> None:
    """Set TensorFlow up and seed Python, NumPy and Keras; call it first in every stage that trains or extracts.

    oneDNN is switched on because TensorFlow leaves it off on CPUs without AVX-512, where its own input-gradient
    convolution is several times slower. On a GPU, kernels whose result depends on timing are refused; on a CPU the same
    seed and thread count already give the same weights, and asking for it again would only cost time.

    Raises:
        RuntimeError: TensorFlow was imported earlier with oneDNN off.
    """
    if "tensorflow" in sys.modules and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1":
        raise RuntimeError("runtime.configure() must run before tensorflow is imported, received it imported")
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # at 2, a machine without a GPU reports an error
    import keras
    import tensorflow as tf

    gc.freeze()  # else every full collection walks TensorFlow's objects again while Keras builds graphs
    keras.utils.clear_session()  # layer names count from 1 again, whatever was built before, so that saved files agree
    keras.utils.set_random_seed(seed)
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


@functools.cache
def machine() -> dict[str, str]:
    """What, beside code and inputs, float32 results depend on: library versions, processor, threads and GPUs."""
    import tensorflow as tf

    devices = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    gpus = ", ".join(str(device.get("device_name")) for device in devices)
    return describe_machine(("tensorflow", "keras", "numpy", "scikit-learn")) | {"gpus": gpus}
