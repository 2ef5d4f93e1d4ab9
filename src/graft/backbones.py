"""keras.applications by name: build, scale, initialise, preprocess, and cut into trunk and tail."""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError
from graft.hdf5_files import check_weights
from graft.model_files import load_network
from graft.sections import KEYWORD_WEIGHTS, Base
from graft.widths import prepare_config

if TYPE_CHECKING:
    import keras


class BackboneError(GraftError):
    """A row of `backbones` asks for something that its keras.applications model cannot be or do."""


class WeightsError(BackboneError):
    """The weights that a row asks for cannot be had."""


def application(name: str) -> Callable[..., keras.Model]:
    """The constructor of a keras.applications model.

    Raises:
        BackboneError: there is none of this name; the message lists the closest and all known ones.
    """
    import keras

    known = sorted(key for key in dir(keras.applications) if key[0].isupper())
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise BackboneError(f"application must be one of {', '.join(known)}, received {name!r}{hint}")
    constructor: Callable[..., keras.Model] = getattr(keras.applications, name)
    return constructor


def preprocess(name: str, images: Any) -> Any:
    """What the application expects in place of RGB 0..255 (n, H, W, 3), from the module that defines its constructor.

    Applied to a symbolic input it becomes part of the model and is saved with it.
    """
    module = sys.modules[application(name).__module__]
    return module.preprocess_input(images)


def build_base(base: Base) -> keras.Model:
    """The base without its top, randomly initialised; images (n, input_size, input_size, 3) to maps (n, h, w, c).

    `width` multiplies the channels of every layer that has some of its own; applications with an `alpha` of their own
    get it as that. Kernels start He-normal (He et al. 2015), without which a plain VGG does not begin to learn, and
    BatchNormalization averages with momentum 0.9, since 0.99 needs more steps than a short source training has.

    Raises:
        BackboneError: the application is unknown, refuses the input size, or cannot be scaled.
    """
    import keras

    own_width = "alpha" in inspect.signature(application(base.application)).parameters
    try:
        config = _construct(base, weights=None).get_config()
        prepare_config(config, width=1.0 if own_width else base.width)
        return keras.Model.from_config(config)
    except ValueError as error:
        raise BackboneError(
            f"{base.application} cannot be built at input_size {base.input_size} and width {base.width:g}: "
            f"{_first_line(error)}"
        ) from error


def _construct(base: Base, weights: str | None) -> keras.Model:
    constructor = application(base.application)
    arguments: dict[str, Any] = {"input_shape": (base.input_size, base.input_size, 3)}
    if "alpha" in inspect.signature(constructor).parameters:
        arguments["alpha"] = base.width
    return constructor(include_top=False, weights=weights, **arguments)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def imagenet_base(base: Base) -> keras.Model:
    """The base with Keras' ImageNet weights, from its cache (KERAS_HOME) or download.

    Raises:
        WeightsError: no such weights exist, or they can be neither found nor downloaded; the message says what to do.
    """
    constructor = application(base.application)
    if base.width != 1 and "alpha" not in inspect.signature(constructor).parameters:
        raise WeightsError(
            f"ImageNet weights of {base.application} exist at width 1 only, received width {base.width:g}; "
            "set width: 1, or weights: source or random"
        )
    try:
        return _construct(base, weights="imagenet")
    except ValueError as error:  # Keras' own check, e.g. of MobileNet's alpha, says what exists
        raise WeightsError(f"{base.application}: {_first_line(error)}, received width {base.width:g}") from error
    except Exception as error:  # keras.utils.get_file raises a bare Exception where the download fails
        raise WeightsError(
            f"the ImageNet weights of {base.application} are not in Keras' cache and could not be downloaded "
            f"({_first_line(error)}); connect once, or set KERAS_HOME to a folder whose models/ holds them, "
            "or set weights: to a file, source or random"
        ) from error


def file_base(base: Base) -> keras.Model:
    """The base with the weights of the file that the row names (.h5, .weights.h5 or .keras).

    Raises:
        WeightsError: the file is missing, of another format, or belongs to another architecture.
        ArtifactError: the file could run code, or is larger than it looks.
    """
    path = Path(base.weights)
    if not path.is_file():
        raise WeightsError(
            f"weights must be one of {', '.join(KEYWORD_WEIGHTS)} or an existing file, received {base.weights!r}"
        )
    model = build_base(base)
    given = load_network(path) if path.suffix == ".keras" else None
    if given is None:
        check_weights(path)
    try:
        with warnings.catch_warnings():  # Keras only warns of layers that the file leaves as they were drawn
            warnings.filterwarnings("error", "Skipping nested container", UserWarning)
            if given is not None:
                model.set_weights(given.get_weights())
            else:
                model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise WeightsError(
            f"{path} does not fit {base.application} at width {base.width:g} without its top: {_first_line(error)}"
        ) from error
    return model


def legal_cuts(model: keras.Model) -> list[str]:
    """The layers after which exactly one tensor goes on, in order: where trunk and tail can be parted.

    The last layer is not among them, nor is one before the first trainable weights, since one side would have nothing
    to learn. Nor are bare operations, which have no name of their own.
    """
    layers = model.get_config()["layers"]
    position = {layer["config"]["name"]: index for index, layer in enumerate(layers)}
    last_use = [index for index, _ in enumerate(layers)]  # by the position of the layer that reads it last
    for index, layer in enumerate(layers):
        for source in _sources(layer["inbound_nodes"]):
            last_use[position[source]] = index
    names = {layer.name for layer in model.layers}
    weighted = min(position[layer.name] for layer in model.layers if layer.trainable_weights)
    cuts, open_until = [], 0  # the furthest reader of anything made before the layer at hand
    for index, layer in enumerate(layers[:-1]):
        if index >= weighted and open_until <= index and layer["config"]["name"] in names:
            cuts.append(layer["config"]["name"])
        open_until = max(open_until, last_use[index])
    return cuts


def _sources(node: Any) -> list[str]:
    """Names of the layers whose outputs occur in a serialised call."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return [node["config"]["keras_history"][0]]
        return [name for value in node.values() for name in _sources(value)]
    if isinstance(node, list | tuple):
        return [name for value in node for name in _sources(value)]
    return []


def check_cut(model: keras.Model, layer: str) -> None:
    """Refuse a layer after which the base cannot be cut.

    Raises:
        BackboneError: there is no such layer, or more than one tensor crosses there, or one side would have nothing to
            learn; the nearest legal ones are named.
    """
    cuts = legal_cuts(model)
    if layer in cuts:
        return
    names = [item.name for item in model.layers]
    if layer not in names:
        close = difflib.get_close_matches(layer, cuts, n=3, cutoff=0.3) or cuts[-3:]
        raise BackboneError(
            f"frozen_until must be a layer of {model.name} or none, received {layer!r}; close to it: {', '.join(close)}"
        )
    at = names.index(layer)
    before = [name for name in cuts if names.index(name) < at][-1:]
    after = [name for name in cuts if names.index(name) > at][:1]
    wanted = "one tensor alone must cross there" if before and after else "both sides must have weights to learn"
    raise BackboneError(
        f"frozen_until: {layer} of {model.name} cannot be cut, {wanted}; "
        f"the nearest layers where it can: {', '.join(before + after)}"
    )


def cut(model: keras.Model, layer: str) -> tuple[keras.Model, keras.Model]:
    """Trunk (up to and with the layer) and tail (after it), sharing the base's weights.

    Raises:
        BackboneError: as check_cut.
    """
    return part(model, None, layer, "trunk"), part(model, layer, None, "tail")


def part(model: keras.Model, after: str | None, until: str | None, name: str) -> keras.Model:
    """The layers after one (None: from the images on) up to and with another (None: to the end), sharing weights.

    Raises:
        BackboneError: as check_cut.
    """
    import keras

    for layer in filter(None, (after, until)):
        check_cut(model, layer)
    start = model.input if after is None else model.get_layer(after).output
    end = model.output if until is None else model.get_layer(until).output
    return keras.Model(start, end, name=name)


def freeze_batch_normalization(model: keras.Model) -> None:
    """Keep BatchNormalization's statistics and affine part as the source training left them."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
