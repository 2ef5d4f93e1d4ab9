"""Seeded random views of images, with the ranges of Keras' layers.

| range           | as                        | draws                                                           |
|-----------------|---------------------------|-----------------------------------------------------------------|
| horizontal_flip | RandomFlip("horizontal")  | mirrored in half of the views                                   |
| rotation: r     | RandomRotation(r)         | -r to +r of a full turn, positive turns counter-clockwise       |
| zoom: z         | RandomZoom(z)             | -z to +z, positive shows 1 + z times as much (zooms out)        |
| translation: t  | RandomTranslation(t, t)   | -t to +t of the size on either axis, positive is down or right  |
| contrast: c     | RandomContrast(c)         | factor 1 - c to 1 + c around each channel's mean                |
| fill            | fill_mode                 | reflect mirrors at the edge (c b a, a b c); constant is black   |

All of them act in this order, but pixels are resampled once: the geometric part is one affine map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from graft.sections import Augment

BILINEAR = 1
SCIPY_MODES = {"nearest": "nearest", "reflect": "reflect", "constant": "grid-constant"}


@dataclass(frozen=True)
class Transformation:
    """What one view does to its image; the defaults leave it as it is.

    Attributes:
        flip: mirrored left to right.
        rotation: of a full turn, counter-clockwise.
        zoom: how many times as much is shown.
        down: translation as a fraction of the height.
        right: translation as a fraction of the width.
        contrast: factor around the mean.
    """

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 1.0
    down: float = 0.0
    right: float = 0.0
    contrast: float = 1.0


def draw(image_id: str, ranges: Augment, seed: int, view: int) -> Transformation:
    """The transformation of one view of one image; view 0 is the original.

    It depends on nothing else, and the draw of one range not on the other ranges.
    """
    if view == 0:
        return Transformation()
    digest = hashlib.sha256(f"{seed}/{view}/{image_id}".encode()).digest()
    uniform = np.frombuffer(digest, "<u4") / 2**32  # a hash is as good as a generator, and needs no set-up per image
    flip, rotation, zoom, down, right, contrast = (2 * uniform[:6] - 1).tolist()
    return Transformation(
        flip=ranges.horizontal_flip and flip < 0,
        rotation=rotation * ranges.rotation,
        zoom=1 + zoom * ranges.zoom,
        down=down * ranges.translation,
        right=right * ranges.translation,
        contrast=1 + contrast * ranges.contrast,
    )


def apply(image: np.ndarray, transformation: Transformation, fill: str) -> np.ndarray:
    """The transformed image, of the same shape (height, width, 3) and type uint8."""
    matrix, offset = affine(transformation, image.shape[0], image.shape[1])
    moved = np.empty(image.shape, np.float32)
    for channel in range(image.shape[2]):  # three planes are faster than one volume
        ndimage.affine_transform(
            image[..., channel], matrix, offset, output=moved[..., channel], order=BILINEAR, mode=SCIPY_MODES[fill]
        )
    mean = moved.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    moved -= mean
    moved *= transformation.contrast
    moved += mean
    return np.rint(moved, out=moved).clip(0, 255, out=moved).astype(np.uint8)


def affine(transformation: Transformation, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a view come from: source (row, column) = matrix @ (row, column) + offset."""
    angle = 2 * np.pi * transformation.rotation
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    mirror = np.diag([1.0, -1.0 if transformation.flip else 1.0])
    matrix = transformation.zoom * mirror @ turn
    centre = np.array([height - 1, width - 1]) / 2
    shift = np.array([transformation.down * height, transformation.right * width])
    return matrix, centre - matrix @ (centre + shift)


def views(images: np.ndarray, image_ids: Sequence[str], ranges: Augment, seed: int, view: int) -> np.ndarray:
    """One view of each image.

    Args:
        images: uint8 RGB of shape (n, height, width, 3).
        image_ids: of shape (n,); an image's view does not depend on its neighbours or their order.
        ranges: of the random transformations.
        seed: of the draws.
        view: number of the view; 0 is the original.

    Returns:
        uint8 RGB of the same shape.
    """
    if view == 0:
        return images.copy()
    pairs = zip(images, image_ids, strict=True)
    result = [apply(image, draw(image_id, ranges, seed, view), ranges.fill) for image, image_id in pairs]
    return np.stack(result) if result else images.copy()
