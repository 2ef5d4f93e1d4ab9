"""Small pictures as PNG: equal pixels give equal bytes."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from PIL import Image

COLOURS = 256  # of a palette, which makes a file a third as large
LEVELS = 63  # of each sign
POSITIVE, NEGATIVE = (63, 143, 210), (224, 123, 57)  # of middle lightness: they are told apart on white and on black
DIMMED, OPACITY = 0.6, 0.8  # how bright an image stays under a map, and how much of it the strongest place hides


def heat(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 of any shape as RGB 0..255 (..., 3), in perceptually equal steps from dark to light."""
    return np.asarray(matplotlib.colormaps["viridis"](values, bytes=True)[..., :3])


def stretched(values: np.ndarray) -> np.ndarray:
    """Values (h, w, 1 or 3) from their lowest to their highest as RGB 0..255 (h, w, 3)."""
    low, high = values.min(), values.max()
    shares = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.broadcast_to(np.round(255 * shares).astype(np.uint8), (*values.shape[:2], 3))


def overlay(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """An image (h, w, 3) of RGB 0..255, grey and dimmed, under a map (h, w) from 0 to 1 that hides it as it glows.

    So every colour is the map's, and bright is the map, not a bright image.
    """
    grey = DIMMED * np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    glow = matplotlib.colormaps["inferno"](0.3 + 0.6 * weights, bytes=True)[..., :3]
    share = OPACITY * weights[..., None]
    return np.asarray(np.round((1 - share) * grey + share * glow), np.uint8)


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels (h, w, 3) enlarged, each still a rectangle of one colour, or shrunk, to a longer side of so many px."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method))


def signed_png(values: np.ndarray) -> bytes:
    """Values (h, w) from -1 to 1 as PNG: positive ones in blue, negative ones in orange, the more opaque the larger.

    Zero is transparent, so that the scale has its middle at the colour of the page, light or dark.
    """
    steps = np.linspace(-1, 1, 2 * LEVELS + 1)
    colours = np.where(steps[:, None] < 0, NEGATIVE, POSITIVE).astype(np.uint8)
    image = Image.fromarray(np.round(LEVELS * (np.clip(values, -1, 1) + 1)).astype(np.uint8))
    image.putpalette(colours.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG", transparency=np.round(255 * np.abs(steps)).astype(np.uint8).tobytes(), optimize=True)
    return content.getvalue()


def beside(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Two pictures of one height and a grey strip between them."""
    strip = np.full((len(left), gap, 3), 128, np.uint8)
    return np.concatenate([left, strip, right], axis=1)


def to_png(pixels: np.ndarray) -> bytes:
    """RGB pixels 0..255 (h, w, 3) as PNG; of more than 256 colours, the nearest of 256 chosen ones."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    reduced = image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    content = io.BytesIO()
    reduced.save(content, "PNG", optimize=True)
    return content.getvalue()
