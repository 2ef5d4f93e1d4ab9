"""Sources that come with the packages: handwritten digits, and characters rendered from fonts."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from graft.records import Record


def digits() -> Iterator[Record]:
    """scikit-learn's 1,797 handwritten digits of 8x8 px, in its order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for index, (values, target) in enumerate(zip(data.images, data.target, strict=True)):
        grey = np.rint(values * 255 / 16).astype(np.uint8)
        yield Record(_png(grey), str(target), None, None, f"digits/{index:04d}")


def glyphs(per_class: int, seed: int) -> Iterator[Record]:
    """So many rendered characters of each class."""
    from graft.glyphs import render_glyphs

    for index, (label, grey) in enumerate(render_glyphs(per_class, seed)):
        yield Record(_png(grey), label, None, None, f"glyphs/{index:06d}")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
