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

import cv2
import numpy as np

from graft.sections import Augment

BORDERS = {"nearest": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT, "constant": cv2.BORDER_CONSTANT}
cv2.setNumThreads(1)  # an image is too small to share: two threads cost twice the processor time and gain none


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
    height, width = image.shape[:2]
    matrix, offset = affine(transformation, height, width)
    moved = cv2.warpAffine(
        image.astype(np.float32),
        np.column_stack([matrix[::-1, ::-1], offset[::-1]]),  # OpenCV counts (column, row)
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=BORDERS[fill],
    )
    mean = np.array(cv2.mean(moved))  # four numbers, as OpenCV wants them; an image has three channels
    return cv2.add(moved * transformation.contrast, (1 - transformation.contrast) * mean, dtype=cv2.CV_8U)


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
    result = np.empty_like(images)
    for row, image, image_id in zip(result, images, image_ids, strict=True):
        row[:] = apply(image, draw(image_id, ranges, seed, view), ranges.fill)
    return result
