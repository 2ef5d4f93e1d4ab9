"""The windows through which convolution and pooling look at maps: where they stand, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graft.numpy_cnn.layers import LayerError, Shape

Pair = tuple[int, int]  # along height and width, or before and after
PADDINGS = ("valid", "same", "edge")


def output_size(size: int, window: int, stride: int, padding: Pair = (0, 0)) -> int:
    """How many windows fit side by side: floor((n + 2p - f) / s) + 1, where the lectures pad p on both sides.

    Args:
        size: n, of the maps along one axis.
        window: f, of the window or the filter.
        stride: s, from one window to the next.
        padding: before and after; together they are 2p.
    """
    return (size + sum(padding) - window) // stride + 1


def size_keeping_padding(size: int, window: int, stride: int) -> Pair:
    """What is padded before and after so that there are ceil(n / s) windows, and at stride 1 as many as values.

    Where it is an odd number, one more comes after, as in Keras and TensorFlow.
    """
    missing = max((-(-size // stride) - 1) * stride + window - size, 0)
    return missing // 2, missing - missing // 2


@dataclass(frozen=True)
class Windows:
    """Windows over maps (n, h, w, c).

    Attributes:
        size: height and width of a window.
        strides: from a window to the next one below, and to the right.
        padding: valid: none; same: zeros that keep the size; edge: the same frame, filled by repeating the maps'
            outermost values, which one lecture calls 'same' and Keras does not have.
    """

    size: Pair
    strides: Pair
    padding: str = "valid"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise LayerError(f"padding must be one of {', '.join(PADDINGS)}, received {self.padding!r}")
        if min(*self.size, *self.strides) < 1:
            raise LayerError(f"windows and strides must be at least 1, received {self.size} and {self.strides}")

    def frame(self, shape: Shape) -> tuple[Pair, Pair]:
        """What is padded above and below, left and right of maps (h, w, c)."""
        if self.padding == "valid":
            return (0, 0), (0, 0)
        rows, columns = map(size_keeping_padding, shape[:2], self.size, self.strides)
        return rows, columns

    def count(self, shape: Shape) -> Pair:
        """Rows and columns of windows over maps (h, w, c).

        Raises:
            LayerError: not one fits, or these are no maps.
        """
        if len(shape) != 3:
            raise LayerError(f"windows need maps (height, width, channels), received shape {shape}")
        rows, columns = map(output_size, shape[:2], self.size, self.strides, self.frame(shape))
        if min(rows, columns) < 1:
            raise LayerError(f"maps {shape} are smaller than the window {self.size}; use a smaller one or padding same")
        return rows, columns

    def places(self) -> Iterator[Pair]:
        """The places within a window, row by row."""
        yield from np.ndindex(self.size)

    def pad(self, maps: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """The maps in their frame; `fill` is what it is filled with at padding same."""
        rows, columns = self.frame(maps.shape[1:])
        if not any((*rows, *columns)):
            return maps
        widths = ((0, 0), rows, columns, (0, 0))
        if self.padding == "edge":
            return np.pad(maps, widths, mode="edge")
        return np.pad(maps, widths, constant_values=fill)

    def unpad(self, gradient: np.ndarray, shape: Shape) -> np.ndarray:
        """The gradient to maps (h, w, c), from that to the maps in their frame: zeros have none, copies add theirs."""
        for axis, (before, after) in enumerate(self.frame(shape), start=1):
            parts = np.split(gradient, [before, before + shape[axis - 1]], axis=axis)
            gradient = parts[1]
            if self.padding == "edge" and before + after:
                gradient = gradient.copy()
                inner = np.moveaxis(gradient, axis, 0)
                inner[0] += parts[0].sum(axis=axis)
                inner[-1] += parts[2].sum(axis=axis)
        return gradient

    def over(self, padded: np.ndarray, *, writeable: bool = False) -> np.ndarray:
        """Every window over maps in their frame, (n, rows, columns, height, width, c): a view by strides, no copy.

        Windows overlap, so that what is added to a view must be added one place of a window at a time.
        """
        view = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(1, 2), writeable=writeable)
        return view[:, :: self.strides[0], :: self.strides[1]].transpose(0, 1, 2, 4, 5, 3)
