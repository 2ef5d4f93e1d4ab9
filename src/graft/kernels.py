"""Filters made by hand, as image processing used them before networks learned their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

MASK_SIGMA = (2 * np.log(2)) ** -0.5  # px: the next pixel counts half, which gives the usual mask 1 2 1
MOST_SIDE = 64  # px of an image at which a kernel of three can still be seen to do something


@dataclass(frozen=True)
class Kernel:
    """Weights by which every pixel is replaced by a sum over its neighbourhood.

    Attributes:
        name: of the kernel.
        formula: what it computes of an image f at each place.
        meaning: what one sees.
        weights: of shape (h, w), odd sides; not flipped, as the layers of networks apply theirs (correlation).
        divisor: by which whole numbers, as they stand in books, are divided to give the weights.
    """

    name: str
    formula: str
    meaning: str
    weights: np.ndarray
    divisor: int = 1

    @property
    def smooths(self) -> bool:
        """Whether it is a mean of some sort: no negative weight, so that grey stays grey."""
        return bool((self.weights >= 0).all())


def _weights(apply: Callable[[np.ndarray], np.ndarray], side: int) -> np.ndarray:
    """The kernel behind a filter of SciPy: its answer to one bright pixel, turned by half a circle."""
    impulse = np.zeros((side, side))
    impulse[side // 2, side // 2] = 1
    return apply(impulse)[::-1, ::-1]


_smoothed = partial(ndimage.gaussian_filter, sigma=MASK_SIGMA, radius=1)

MEAN = Kernel(
    "Mean",
    "Σ f / 9",
    "Smooths: every neighbour counts the same. Noise goes, and so do edges.",
    _weights(partial(ndimage.uniform_filter, size=3), 3),
    9,
)
GAUSSIAN = Kernel(
    "Gaussian",
    "Σ f G, G ∝ exp(−(x² + y²) / 2σ²), σ = 0.85 px",
    "Smooths: a neighbour counts the less, the further away it is. Edges last longer than under the mean.",
    _weights(_smoothed, 3),
    16,
)
LAPLACIAN = Kernel(
    "Laplacian",
    "∂²f / ∂x² + ∂²f / ∂y²",
    "The second derivative in all directions: zero where brightness is even or rises evenly, and it changes its sign "
    "on an edge.",
    _weights(ndimage.laplace, 3),
)
LAPLACIAN_OF_GAUSSIAN = Kernel(
    "Laplacian of Gaussian",
    "∇²(G ∗ f)",
    "The Laplacian after Gaussian smoothing: edges with less of the noise that a second derivative enlarges.",
    _weights(lambda image: ndimage.laplace(_smoothed(image)), 5),
    16,
)
SOBEL_X = Kernel(
    "Sobel, across",
    "∂f / ∂x, smoothed along y",
    "The derivative from left to right, smoothed from top to bottom: upright edges, with their sign.",
    _weights(partial(ndimage.sobel, axis=1), 3),
)
SOBEL_Y = Kernel(
    "Sobel, down",
    "∂f / ∂y, smoothed along x",
    "The derivative from top to bottom, smoothed from left to right: level edges, with their sign.",
    _weights(partial(ndimage.sobel, axis=0), 3),
)


def _line(name: str, direction: str, places: tuple[tuple[int, int], ...]) -> Kernel:
    """A mask for lines one pixel wide: 2 on the line and −1 beside it, so that even brightness gives zero."""
    weights = np.full((3, 3), -1.0)
    for place in places:
        weights[place] = 2.0
    return Kernel(f"Line, {name}", "2 Σ f on the line − Σ f beside it", f"Answers to thin lines {direction}.", weights)


LINES = (
    _line("horizontal", "from left to right", ((1, 0), (1, 1), (1, 2))),
    _line("vertical", "from top to bottom", ((0, 1), (1, 1), (2, 1))),
    _line("+45°", "that rise to the right", ((0, 2), (1, 1), (2, 0))),
    _line("−45°", "that fall to the right", ((0, 0), (1, 1), (2, 2))),
)
KERNELS = (MEAN, GAUSSIAN, LAPLACIAN, *LINES, SOBEL_X, SOBEL_Y, LAPLACIAN_OF_GAUSSIAN)


def respond(kernel: Kernel, image: np.ndarray) -> np.ndarray:
    """A kernel's answer at every place of a grey image (h, w), of the same shape; beyond its edges it goes on as there.

    Args:
        kernel: is laid upon every place, multiplied and summed up.
        image: of any numbers; the answer is in the same unit.
    """
    return np.asarray(ndimage.correlate(np.asarray(image, float), kernel.weights, mode="nearest"))


def gradient_magnitude(image: np.ndarray) -> np.ndarray:
    """√(Sx² + Sy²) of the two Sobel kernels' answers to a grey image (h, w): edges of every direction."""
    return np.asarray(ndimage.generic_gradient_magnitude(np.asarray(image, float), ndimage.sobel, mode="nearest"))


def in_grey(image: np.ndarray, most: int = MOST_SIDE) -> np.ndarray:
    """RGB 0..255 (h, w, 3) as brightness 0..255 (h, w), shrunk to at most so many px on its longer side."""
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
    factor = min(1.0, most / max(grey.size))
    width, height = (max(1, round(side * factor)) for side in grey.size)
    return np.asarray(grey.resize((width, height), Image.Resampling.LANCZOS))
