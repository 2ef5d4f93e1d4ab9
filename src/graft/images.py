"""Image bytes to RGB pixels, or a named reason why not; and the one resize that prepare, predict and serving share."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from graft.errors import GraftError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no others: some of Pillow's readers start external programs
FILTER = Image.Resampling.BICUBIC  # antialiased when shrinking, and rings less than Lanczos when enlarging tiny images
UPRIGHT = {  # by EXIF orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHITE = (255, 255, 255, 255)

Reason = Literal["empty-file", "not-an-image", "truncated", "damaged", "too-large"]


class ImageError(GraftError):
    """Bytes that give no picture.

    Attributes:
        reason: what is wrong, for programs.
        detail: what is wrong, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode(content: bytes) -> np.ndarray:
    """The picture as a viewer would show it, of shape (height, width, 3), uint8 RGB.

    EXIF orientation is applied, transparency is shown on white, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame is taken.

    Raises:
        ImageError: the bytes are no image of FORMATS, or not a whole one.
    """
    if not content:
        raise ImageError("empty-file", "the file has no bytes")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            return np.asarray(_rgb(_upright(image)))
    except UnidentifiedImageError:
        raise ImageError("not-an-image", f"the bytes are none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", str(error)) from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        reason: Reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise ImageError(reason, str(error) or type(error).__name__) from None


def _upright(image: Image.Image) -> Image.Image:
    try:  # not ImageOps.exif_transpose, which also rewrites the metadata and fails where a part of them is damaged
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # unreadable metadata beside whole pixels: shown as stored, as every viewer does
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
        grey = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, WHITE), opaque).convert("RGB")
    return image.convert("RGB")


def resize(image: np.ndarray, size: int, how: Literal["stretch", "crop", "pad"]) -> np.ndarray:
    """The image of shape (height, width, 3) at (size, size, 3), antialiased.

    Args:
        image: uint8 RGB.
        size: px per side.
        how: stretch ignores the aspect ratio; crop keeps the largest centred square; pad keeps everything, centred on
            black.
    """
    picture, box = Image.fromarray(image), (size, size)
    if how == "stretch":
        return np.asarray(picture.resize(box, FILTER))
    if how == "crop":
        return np.asarray(ImageOps.fit(picture, box, FILTER))
    if how == "pad":
        scale = size / max(picture.size)
        inner = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), FILTER)
        padded = Image.new("RGB", box)
        padded.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
        return np.asarray(padded)
    raise ValueError(f"resize must be stretch, crop or pad, received {how!r}")
