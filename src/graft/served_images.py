"""What a served model is sent in place of images, turned into pixels, or the reason why not in one short line.

An image is one of three things:

* text of base64's letters alone (A-Z a-z 0-9 + / =) and line breaks: an image file, encoded;
* any other text of up to 4096 characters: the path of an image file. A path that has no other character, such as
  photos/ant, is written ./photos/ant or given as a pathlib.Path;
* whole numbers 0..255 of shape (height, width, 3): RGB, as an array or as nested lists.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from graft.errors import GraftError
from graft.images import ImageError
from graft.serving import Classifier

MEGABYTE = 1_000_000
LONGEST_PATH, LONGEST_NAME = 4096, 255  # characters, on Linux
NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=\r\n]")
LONGEST_REASON = 200  # characters


class InputError(GraftError):
    """What a model was sent is no images, or too much."""


@dataclass(frozen=True)
class Limits:
    """What is refused before memory is taken; None: there is no such limit.

    Attributes:
        max_images: at once.
        max_image_mb: of an image file.
        max_pixels: of an image.
    """

    max_images: int | None = None
    max_image_mb: float | None = None
    max_pixels: int | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> Self:
        """From a model's configuration, in which there may be other values too.

        Raises:
            InputError: a limit is not a positive number.
        """
        limits = {field.name: (config or {}).get(field.name) for field in fields(cls)}
        for name, value in limits.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise InputError(f"{name} must be a positive number, received {value!r}")
        return cls(**limits)


def listed(received: Any, limits: Limits) -> list[Any]:
    """The images one by one, whatever holds them: a list, an array (n, height, width, 3), a table of one column.

    Raises:
        InputError: it holds no images, or too many.
    """
    if isinstance(received, pd.DataFrame):
        if received.shape[1] != 1:
            raise InputError(f"expected a table of one column of images, received {received.shape[1]} columns")
        received = received.iloc[:, 0]
    many = isinstance(received, list | tuple | pd.Series) or (isinstance(received, np.ndarray) and received.ndim > 0)
    if not many:
        raise InputError(f"expected a list of images, received {type(received).__name__}")
    if limits.max_images is not None and len(received) > limits.max_images:
        raise InputError(f"expected at most {limits.max_images} images at once, received {len(received)}")
    return list(received)


def image_pixels(image: Any, position: int, classifier: Classifier, limits: Limits, *, paths: bool) -> np.ndarray:
    """One image as the classifier sees it: RGB 0..255 (image_size, image_size, 3).

    Args:
        image: base64, path or RGB, as the module says.
        position: of the image among those that were sent, from 0.
        classifier: knows how it wants its images.
        limits: of files and pixels.
        paths: whether files may be read; not in a server, whose clients would learn of the server's files.

    Raises:
        InputError: it is none of these, or is refused; position and reason are named, the image is not repeated.
    """
    try:
        if isinstance(image, np.ndarray | list | tuple):
            return classifier.resized(_rgb(image, limits))
        content = _content(image, limits, paths=paths)
        return classifier.pixels(content, limits.max_pixels)
    except (ImageError, InputError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise InputError(f"image {position}: {reason}{_hint(image, reason) if paths else ''}") from None


def _hint(image: Any, reason: str) -> str:
    """For whoever meant a path by what was read as base64."""
    short = isinstance(image, str) and 0 < len(image) <= LONGEST_NAME
    return "; a path of such letters alone is written ./path" if short and reason.startswith("not") else ""


def _rgb(image: np.ndarray | list[Any] | tuple[Any, ...], limits: Limits) -> np.ndarray:
    expected = "expected whole numbers 0..255 of shape (height, width, 3)"
    try:
        array = np.asarray(image)
    except (ValueError, OverflowError):  # NumPy's message repeats parts of the input
        raise InputError(f"{expected}, received lists of different lengths") from None
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"{expected}, received shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InputError(f"{expected}, received {array.dtype.name}")
    height, width, _ = array.shape
    if limits.max_pixels is not None and height * width > limits.max_pixels:
        raise InputError(f"too-large: {width} x {height} px are more than {limits.max_pixels:,} pixels")
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise InputError(f"{expected}, received {array.min()}..{array.max()}")
    return array.astype(np.uint8)


def _content(image: Any, limits: Limits, *, paths: bool) -> bytes:
    """Of the image file that is encoded or named."""
    if isinstance(image, os.PathLike) or (
        isinstance(image, str) and len(image) <= LONGEST_PATH and NOT_BASE64.search(image)
    ):
        if not paths:
            raise InputError("not base64, whose letters are A-Z a-z 0-9 + / = alone; a server reads no files")
        return _read(Path(image), limits)
    if not isinstance(image, str):
        raise InputError(f"expected base64 text, a path or RGB values, received {type(image).__name__}")
    _check_size(len(image) * 3 // 4, limits)
    try:
        return base64.b64decode(image.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"not base64 of an image file: {error}") from None


def _read(path: Path, limits: Limits) -> bytes:
    try:
        if not path.is_file():  # a device or a pipe might never end
            raise InputError("the path names no file" if not path.exists() else "the path names no regular file")
        _check_size(path.stat().st_size, limits)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _check_size(size: int, limits: Limits) -> None:
    if limits.max_image_mb is not None and size > limits.max_image_mb * MEGABYTE:
        raise InputError(f"too-large: {size / MEGABYTE:.1f} MB are more than {limits.max_image_mb:g} MB")
