"""The layers of a frozen base that a support vector machine stands on, and how the maps of each become a vector."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING

from graft.backbones import BackboneError
from graft.feature_sets import IMAGE, SVM, TOP
from graft.sections import Features

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Tap:
    """Where vectors are taken from.

    Attributes:
        layer: its name; or top, the base's output.
        pooling: of its maps, as networks.pool.
    """

    layer: str
    pooling: str


def taps_of(row: Features) -> list[Tap]:
    """Of a backbone's support vector machine, in the listed order."""
    return [Tap(layer, row.pooling if layer == TOP else row.svm_pooling) for layer in row.svm_layers]


def layers_json(row: Features) -> list[dict[str, str]]:
    """The taps of a backbone's support vector machine, as files name them."""
    return [asdict(tap) for tap in taps_of(row)]


def point_of(row: Features) -> str:
    """Where the machine's vectors are stored: with the top, on which heads stand too, or at a point of their own."""
    return TOP if row.svm_layers == [TOP] else SVM


def vector_length(base: keras.Model, taps: Sequence[Tap]) -> int:
    """Numbers in a vector."""
    shapes = zip(taps, map_shapes(base, taps), strict=True)
    return sum(prod(shape) if tap.pooling == "flatten" else shape[-1] for tap, shape in shapes)


def map_shapes(base: keras.Model, taps: Sequence[Tap]) -> list[tuple[int, ...]]:
    """Of the maps of one row at each tap: (h, w, c)."""
    return [tuple((base if tap.layer == TOP else base.get_layer(tap.layer)).output.shape[1:]) for tap in taps]


def starts(base: keras.Model, cuts: Sequence[str], taps: Sequence[Tap]) -> tuple[str, ...]:
    """From which of the images and the cuts the maps at every tap can be computed, by depth."""
    names = [layer.name for layer in base.layers]
    first = min((names.index(tap.layer) for tap in taps if tap.layer != TOP), default=len(names))
    return (IMAGE, *(cut for cut in sorted(cuts, key=names.index) if names.index(cut) <= first))


def check_layers(base: keras.Model, layers: Sequence[str]) -> None:
    """Refuse a layer that a support vector machine cannot stand on.

    The base need not be cut there, so that branches and what lies within a block will do.

    Raises:
        BackboneError: there is no such layer, or it gives no maps (n, h, w, c); the nearest that do are named.
    """
    outputs = {layer.name: getattr(layer, "output", None) for layer in base.layers[1:]}  # the first is the input
    maps = [name for name, output in outputs.items() if len(getattr(output, "shape", ())) == 4]
    for layer in layers:
        if layer == TOP or layer in maps:
            continue
        close = ", ".join(difflib.get_close_matches(layer, maps, n=3, cutoff=0.3) or maps[-3:])
        if layer in outputs:
            shape = getattr(outputs[layer], "shape", None)
            raise BackboneError(
                f"svm_layers: {layer} of {base.name} must give maps (n, h, w, c), received the shape {shape}; "
                f"close to it: {close}"
            )
        raise BackboneError(
            f"svm_layers must be top or layers of {base.name}, received {layer!r}; close to it: {close}"
        )
