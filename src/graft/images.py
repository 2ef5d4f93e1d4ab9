"""Image bytes to RGB pixels, or a named reason why not; and the one resize that prepare, predict and serving share."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from graft.image_formats import (
    ImageError,
    Reason,
    check_png_chunks,
    check_png_rows,
    check_tiff,
    scale_png_transparency,
    standard_error_muted,
)

# Each reader by the first bytes of its files. No others, for some of Pillow's start external programs; and not
# Image.open, which hides why a header cannot be read, and gives a photograph up over its list of further pictures.
READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    rb"\xff\xd8\xff": JpegImageFile,
    rb"\x89PNG\r\n\x1a\n": PngImageFile,
    rb"BM": BmpImageFile,
    rb"GIF8[79]a": GifImageFile,
    rb"RIFF....WEBP": WebPImageFile,
    rb"II\*\0|MM\0\*": TiffImageFile,
}
FORMATS = tuple(reader.format or "" for reader in READERS.values())
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B")  # Pillow knows no way to RGB from others
UNSUPPORTED = ("cannot handle", "Unsupported BMP", "unknown pixel mode")  # how Pillow's messages of that kind begin
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
LOCK = threading.Lock()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or each bad TIFF would be logged on standard error


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
        pixels: (height, width, 3), uint8 RGB.
        format: one of FORMATS.
        mode: how the file stores its pixels, by Pillow's name.
    """

    pixels: np.ndarray
    format: str
    mode: str


class _File(io.BytesIO):
    """Bytes that remember whether a reader wanted more of them than there are."""

    exhausted = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size and (not data or len(data) < size != ImageFile.MAXBLOCK):  # blocks are asked for on the off chance
            self.exhausted = True
        return data


def decode(content: bytes, *, max_pixels: int | None = None, min_side: int = 1) -> np.ndarray:
    """The pixels of `read`: (height, width, 3), uint8 RGB."""
    return read(content, max_pixels=max_pixels, min_side=min_side).pixels


def read(content: bytes, *, max_pixels: int | None = None, min_side: int = 1) -> Picture:
    """The picture in the bytes of an image file, as a viewer would show it.

    EXIF orientation is applied, transparency is shown on white, 16 bits are cut to the upper 8, and of several pictures
    in a file the first is taken. ICC profiles are ignored. A JPEG has no checksums: one that was overwritten in its
    middle may be shown as it stands.

    Args:
        content: decides about the format; a file's name does not matter.
        max_pixels: a larger picture is refused by its header, before memory is taken; None: Pillow's own limit.
        min_side: px; a picture whose shorter side has fewer is refused.

    Raises:
        ImageError: the bytes are no image of FORMATS, not a whole one, or one that is refused.
    """
    if not content:
        raise ImageError("empty-file", "the file has no bytes")
    reader = next((reader for start, reader in READERS.items() if re.match(start, content, re.DOTALL)), None)
    if reader is None:
        raise ImageError("not-an-image", f"the bytes are none of {', '.join(FORMATS)}")
    file = _File(content)
    try:
        chunks = check_png_chunks(content) if reader is PngImageFile else []
        with _alone(max_pixels) as limit:
            image = reader(file)
        with image:
            _check_header(image, limit, min_side)
            if reader is PngImageFile:
                check_png_rows(content, chunks)
            return Picture(_pixels(image, file, limit), str(image.format), image.mode)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", str(error).partition(",")[0]) from None
    except MemoryError:
        raise ImageError("too-large", "there is not enough memory to decode it") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        detail = f"{reader.format}: {str(error) or repr(error)}"
        raise ImageError(_reason(error, content, file.exhausted), detail) from None


@contextmanager
def _alone(max_pixels: int | None) -> Iterator[int]:
    """One thread at a time, under those settings of Pillow that hold for the whole process; gives the limit of pixels.

    They are: no warnings; no picture above the limit; no half of a picture, whatever another library may want.
    """
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF
        limit = max_pixels or Image.MAX_IMAGE_PIXELS or 2**62
        Image.MAX_IMAGE_PIXELS = Fraction(limit, 2)  # type: ignore[assignment]  # Pillow refuses above twice its limit
        TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader leaves missing strips black
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield limit
        finally:
            Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF = before


def _reason(error: Exception, content: bytes, exhausted: bool) -> Reason:
    """What it was that Pillow could not read."""
    if str(error).startswith(UNSUPPORTED):
        return "unsupported-mode"
    if content.startswith(b"RIFF"):  # its decoder is given all the bytes at once
        exhausted = len(content) < 8 + int.from_bytes(content[4:8], "little")
    return "truncated" if exhausted or "truncated" in str(error).lower() else "damaged"


def _check_header(image: ImageFile.ImageFile, limit: int, min_side: int) -> None:
    width, height = image.size
    if width * height > limit:
        raise ImageError("too-large", f"{width} x {height} px are more than {limit:,} pixels")
    if min(image.size) < min_side:
        raise ImageError("too-small", f"{width} x {height} px, where the shorter side must have {min_side}")
    if image.mode not in MODES:
        raise ImageError("unsupported-mode", f"what RGB the values of mode {image.mode} mean is not defined")


def _pixels(image: ImageFile.ImageFile, file: _File, limit: int) -> np.ndarray:
    """The first picture of an opened file, of shape (height, width, 3)."""
    if isinstance(image, TiffImageFile):
        check_tiff(image, limit, len(file.getbuffer()))
        with _alone(limit), standard_error_muted():  # Pillow reads its metadata only now, and turns it upright by them
            image.load()
        return np.asarray(_rgb(image))
    if isinstance(image, GifImageFile):
        return _first_frame(image, file)
    if isinstance(image, PngImageFile):
        scale_png_transparency(image, depth=file.getbuffer()[24])
    image.load()
    return np.asarray(_upright(_rgb(image), image))


def _first_frame(image: GifImageFile, file: _File) -> np.ndarray:
    frame = image.tile[0].extents
    image.load()
    canvas = Image.new("RGB", image.size, "white")  # what a first frame leaves open is transparent
    canvas.paste(_rgb(image).crop(frame), frame)
    if image.n_frames and file.exhausted:  # to count the frames, Pillow reads to the end
        raise ImageError("truncated", "the file ends before its last frame does")
    return np.asarray(canvas)


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """The picture turned as the metadata of its image say."""
    try:  # not ImageOps.exif_transpose, which also rewrites the metadata and fails where a part of them is damaged
        with _alone(None):
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
    except Exception:  # unreadable metadata beside whole pixels: shown as stored, as every viewer does
        return picture


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        grey[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        return image.convert("RGB")  # the byte is there, but not used
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
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
