"""What one row costs in a Keras model: multiply-adds, counted from the layers' kernels and never timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from graft import backbones, extraction
from graft.errors import GraftError
from graft.feature_sets import IMAGE, TOP
from graft.planning import Segments

if TYPE_CHECKING:
    import keras


class CostError(GraftError):
    """The multiply-adds of a model cannot be counted."""


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one forward pass of one row.

    Every weight of a kernel is multiplied once at each place of the layer's output, which is exact for convolutions
    (grouped, depthwise and separable ones too) and dense layers. Bias, normalisation, activation, pooling and resizing
    are not counted: they add a few hundredths at most, though not always so little to the time.

    Args:
        model: functional, or a built Sequential; models nested in it count wherever they are called.

    Raises:
        CostError: a layer has a kernel of another kind, or the model is not functional.
    """
    import keras

    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    if not hasattr(model, "operations"):
        raise CostError(f"multiply-adds are counted in functional models, received {type(model).__name__} {model.name}")
    total = 0
    layers = {layer.name: layer for layer in model.layers}
    for settings in model.get_config()["layers"]:
        layer = layers.get(settings["config"]["name"])  # None: a bare operation, such as a sum
        for call in settings["inbound_nodes"]:
            if isinstance(layer, keras.Model):
                total += multiply_adds(layer)
            elif layer is not None and (size := _kernel_size(layer)):
                total += size * _places(layer, next(_input_shapes(call)))
    return total


def machine_multiply_adds(machine: Any) -> int:
    """Multiply-adds of one row in a fitted SVM of svm.py, without the base's pass, which makes its features.

    Each number of a fitted matrix is multiplied once: support vectors with the features, whatever the kernel, and their
    coefficients with what the kernel made of them, or components, normalisation and weights of an approximation.
    Scaling and the kernel's own function are not counted.
    """
    from sklearn.linear_model import SGDClassifier

    matrices = ("support_vectors_", "dual_coef_", "components_", "normalization_")
    total = 0
    for _, step in machine.calibrated_classifiers_[0].estimator.steps:
        names = ("coef_",) if isinstance(step, SGDClassifier) else matrices  # an SVC derives its coef_ from the others
        total += sum(getattr(step, name).size for name in names if hasattr(step, name))
    return total


def _input_shapes(node: Any) -> Iterator[Sequence[int | None]]:
    """Shapes of the tensors in a serialised call, in order."""
    if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
        yield node["config"]["shape"]
    elif isinstance(node, dict | list | tuple):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _input_shapes(item)


def _places(layer: keras.Layer, input_shape: Sequence[int | None]) -> int:
    """At how many places of one row's output a layer's kernel is applied."""
    shape = layer.compute_output_shape(tuple(input_shape))
    places = shape[1:-1] if getattr(layer, "data_format", "channels_last") == "channels_last" else shape[2:]
    if None in places:
        raise CostError(f"the input of {layer.name} must have a fixed size, received {tuple(input_shape)}")
    return prod(places)


def _kernel_size(layer: keras.Layer) -> int:
    """Weights in a layer's kernels; 0 where all that it has are vectors, as in normalisation."""
    import keras

    if isinstance(layer, keras.layers.SeparableConv2D):
        return prod(layer.depthwise_kernel.shape) + prod(layer.pointwise_kernel.shape)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
        return prod(layer.kernel.shape)
    if any(len(weight.shape) > 1 for weight in layer.weights):
        raise CostError(
            "multiply-adds are counted in Conv2D, DepthwiseConv2D, SeparableConv2D and Dense, "
            f"received {type(layer).__name__} {layer.name} with weights {[tuple(w.shape) for w in layer.weights]}"
        )
    return 0


def segments(base: keras.Model, cuts: Sequence[str], pooling: str) -> Segments:
    """A base measured between the points at which its rows can be kept.

    Raises:
        BackboneError: the base cannot be cut at one of the layers.
        CostError: as multiply_adds.
    """
    points = extraction.points(base, cuts)
    layers = [None if point in (IMAGE, TOP) else point for point in points]
    parts = [backbones.part(base, after, until, "stretch") for after, until in pairwise(layers)]
    shapes = [tuple(part.output.shape[1:]) for part in parts]
    if pooling != "flatten":
        shapes[-1] = shapes[-1][-1:]
    return Segments(points, tuple(map(multiply_adds, parts)), tuple(map(prod, shapes)))
