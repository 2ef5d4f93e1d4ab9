"""What the layers of a trained classifier make of an image: its first filters, its maps at each resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graft import backbones
from graft.errors import GraftError

if TYPE_CHECKING:
    import keras


class ActivationError(GraftError):
    """A classifier is not built as this pipeline builds one, or has no such layer."""


@dataclass(frozen=True)
class Filters:
    """The kernels of a network's first convolution.

    Attributes:
        layer: its name.
        kernels: of shape (filters, h, w, 3), the answer to a little more red, green and blue at each place; or
            (filters, h, w, 1), where the layer does not see three colours: the mean over what it sees.
    """

    layer: str
    kernels: np.ndarray


@dataclass(frozen=True)
class Maps:
    """What one layer makes of one image.

    Attributes:
        layer: its name.
        maps: of shape (h, w, channels).
    """

    layer: str
    maps: np.ndarray


def body(classifier: keras.Model) -> keras.Model:
    """The part of a classifier that makes maps: the base nested in it, or itself where it nests none."""
    import keras

    nested = [layer for layer in classifier.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 4]
    return nested[-1] if nested else classifier


def score_layer(classifier: keras.Model) -> keras.layers.Dense:
    """The last layer, a Dense with softmax, whose inputs give the scores of the classes before the softmax.

    Raises:
        ActivationError: the classifier ends otherwise.
    """
    import keras

    last = classifier.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.softmax:
        raise ActivationError(
            f"a classifier must end in Dense with softmax, received {type(last).__name__} {last.name}"
        )
    return last


def map_layers(classifier: keras.Model) -> list[str]:
    """The last layer of its body at each resolution, from the image on; empty where it has no maps.

    Only layers count at which the whole network comes together, not branches; and not those that only move, pad, pool
    or drop what was there before, so that the last one is the map before the pooling to a vector.
    """
    import keras

    kinds = keras.layers
    passive = (
        *(kinds.MaxPooling2D, kinds.AveragePooling2D, kinds.ZeroPadding2D, kinds.Cropping2D, kinds.Dropout),
        *(kinds.SpatialDropout2D, kinds.Rescaling, kinds.Normalization, kinds.Resizing),
    )
    network = body(classifier)
    with _trainable(network):  # frozen layers count like others
        names = {*backbones.legal_cuts(network), network.layers[-1].name}
    last: dict[tuple[int, ...], str] = {}
    for layer in network.layers:
        if layer.name in names and len(layer.output.shape) == 4 and not isinstance(layer, passive):
            last[tuple(layer.output.shape[1:3])] = layer.name
    return sorted(last.values(), key=[layer.name for layer in network.layers].index)


@contextmanager
def _trainable(network: keras.Model) -> Iterator[None]:
    states = [(layer, layer.trainable) for layer in network.layers]
    for layer, _ in states:
        layer.trainable = True
    try:
        yield
    finally:
        for layer, state in states:
            layer.trainable = state


def output_of(classifier: keras.Model, layer: str) -> Any:
    """The symbolic output of a layer of the body, as probe takes it.

    Raises:
        ActivationError: the body has no such layer.
    """
    network = body(classifier)
    names = [item.name for item in network.layers]
    if layer not in names:
        raise ActivationError(f"layer must be one of {network.name}, such as {names[-1]}, received {layer!r}")
    return network.get_layer(layer).output


def probe(classifier: keras.Model, tensors: Sequence[Any], *, scores: bool = True) -> keras.Model:
    """A model from images to some tensors of the body and, last, the input of the score layer; weights are shared.

    Without scores it gives the tensors alone, of a network that may end in any way, such as a base.

    A base that is nested in the classifier is a graph of its own, whose tensors no model of the outer graph can give
    out; so the outer graph is called again, with inner models that also give out what is asked.
    """
    import keras

    last = score_layer(classifier) if scores else None
    base, head = body(classifier), classifier.layers[-1]
    if base is classifier:
        return keras.Model(classifier.input, [*tensors, last.input] if last is not None else [*tensors])
    seen = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if layer is base:
            *asked, outputs = keras.Model(base.input, [*tensors, base.output])(*arguments, **options)
            seen.extend(asked)
            return outputs
        if layer is head and last is not None:
            vectors = arguments[0]
            if isinstance(head, keras.Model):
                vectors = keras.Model(head.input, last.input)(vectors, **options)
            seen.append(vectors)
        return layer(*arguments, **options)

    again = keras.models.clone_model(classifier, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(again.input, seen)


def feature_maps(classifier: keras.Model, image: np.ndarray) -> list[Maps]:
    """What each of map_layers makes of an image (size, size, 3) of RGB 0..255."""
    layers = map_layers(classifier)
    model = probe(classifier, [output_of(classifier, layer) for layer in layers])
    *outputs, _ = _apply(model, image[None])
    return [Maps(layer, maps[0]) for layer, maps in zip(layers, outputs, strict=True)]


def first_filters(classifier: keras.Model) -> Filters | None:
    """The kernels of the first convolution, in the colours of the image; None where the network, or base, has none.

    Preprocessing may scale the colours and change their order; how much each input of the layer answers to each colour
    is asked of the network itself, at the centre of images of one colour.
    """
    import keras

    found = _first_convolution(classifier)
    if found is None:
        return None
    layer, inputs, _ = found
    if isinstance(layer, keras.layers.Conv2D):
        kernel = np.asarray(layer.kernel)
    else:
        kernel = np.asarray(layer.kernel if hasattr(layer, "kernel") else layer.depthwise_kernel)
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    kernels = np.moveaxis(kernel, -1, 0)
    if kernels.shape[-1] != 3:
        return Filters(layer.name, kernels.mean(axis=-1, keepdims=True))
    return Filters(layer.name, kernels @ _colours(classifier, inputs).T)


def first_maps(network: keras.Model, image: np.ndarray) -> Maps | None:
    """What the filters of first_filters make of an image (size, size, 3) of RGB 0..255, one channel for each of them.

    They are what the layer hands on, its bias and, where it has one of its own, its activation included; of a separable
    convolution, which hands on mixtures, the answers before they are mixed. None where there is no convolution.
    """
    import keras

    found = _first_convolution(network)
    if found is None:
        return None
    layer, before, after = found
    if not isinstance(layer, keras.layers.SeparableConv2D):
        (outputs,) = _apply(probe(network, [after], scores=False), image[None])
        return Maps(layer.name, outputs[0])
    (inputs,) = _apply(probe(network, [before], scores=False), image[None])
    answers = keras.ops.depthwise_conv(
        inputs, layer.depthwise_kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate
    )
    return Maps(layer.name, np.asarray(answers)[0])


def _first_convolution(network: keras.Model) -> tuple[Any, Any, Any] | None:
    """The layer, and its symbolic input and output as probe takes them."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return next((found for found in _in_order(body(network)) if isinstance(found[0], kinds)), None)


def _in_order(network: keras.Model) -> Iterator[tuple[Any, Any, Any]]:
    """The layers with their inputs and outputs in the network's graph; of models within it, as ConvNeXt's, theirs."""
    import keras

    for layer in network.layers:
        if not isinstance(layer, keras.Model):
            yield layer, layer.input, layer.output
            continue
        for inner, *tensors in _in_order(layer):  # symbols of a graph of its own, which is called again
            yield inner, *keras.Model(layer.inputs, tensors)(layer.input)


def _colours(classifier: keras.Model, tensor: Any) -> np.ndarray:
    """How much each channel of a tensor of the body grows with each colour of the image, (colours, channels)."""
    size = classifier.input.shape[1]
    images = np.zeros((4, size, size, 3), np.float32)
    images[1:] = 255 * np.eye(3)[:, None, None]
    (inputs,) = _apply(probe(classifier, [tensor], scores=False), images)
    centre = inputs[:, inputs.shape[1] // 2, inputs.shape[2] // 2]
    return np.asarray((centre[1:] - centre[0]) / 255)


def _apply(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """A few images through a model, layer by layer: tracing a graph would take longer."""
    outputs = model(np.asarray(images, np.float32), training=False)
    return [np.asarray(output) for output in (outputs if isinstance(outputs, list | tuple) else [outputs])]
