"""The width of a base: how many channels its layers have, changed in the configuration that it is built from."""

from __future__ import annotations

from typing import Any


def prepare_config(config: dict[str, Any], width: float) -> None:
    """Change a functional model's configuration, and those of the models in it, to that of a base to be trained.

    Its topology stays. Kernels start He-normal, and BatchNormalization averages with momentum 0.9.

    Args:
        config: as get_config gives it; changed in place.
        width: by which channels are multiplied, at least 1 staying.
    """
    config.pop("build_input_shape", None)
    for layer in config["layers"]:
        layer.pop("build_config", None)  # the unscaled input shape
        settings = layer["config"]
        if "layers" in settings:
            if layer["class_name"] == "Sequential":  # its input has as many channels as what it is called with
                settings["layers"] = [inner for inner in settings["layers"] if inner["class_name"] != "InputLayer"]
            prepare_config(settings, width)
            continue
        if width != 1:
            _scale(layer["class_name"], settings, width)
        if "kernel_initializer" in settings:
            settings["kernel_initializer"] = "he_normal"
        if layer["class_name"] == "BatchNormalization":
            settings["momentum"] = 0.9


def _scale(kind: str, settings: dict[str, Any], width: float) -> None:
    """Multiply the channels that a layer's settings state.

    These are the filters of convolutions, one for each group in a depthwise one; the units of dense layers, which are
    1x1 convolutions in ConvNeXt; the factors of its LayerScale; and the channels that EfficientNet's squeeze-and-
    excitation reshapes to 1x1 maps. Equal numbers stay equal, so that what is added or multiplied still fits.
    """

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    if settings.get("groups", 1) > 1 and settings["groups"] == settings["filters"]:
        settings["groups"] = scaled(settings["filters"])
    for name in ("filters", "units", "projection_dim"):
        if name in settings:
            settings[name] = scaled(settings[name])
    if kind == "Reshape" and list(settings["target_shape"][:-1]) == [1, 1]:
        settings["target_shape"] = (1, 1, scaled(settings["target_shape"][-1]))
