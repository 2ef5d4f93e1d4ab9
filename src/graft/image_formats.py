"""What Pillow lets pass, misreads or shows otherwise than it is meant, format by format."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from PIL import TiffImagePlugin as Tiff
from PIL.PngImagePlugin import PngImageFile

from graft.errors import GraftError

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PNG_PASSES = {  # first column, first row, step of columns and of rows; by the header's method of interlacing
    0: [(0, 0, 1, 1)],
    1: [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)],
}
BLOCK = 2**16  # bytes taken or given at a time
TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg")
TIFF_PIECES = (  # where strips or tiles of pixels begin, and how many bytes they have
    (Tiff.STRIPOFFSETS, Tiff.STRIPBYTECOUNTS),
    (Tiff.TILEOFFSETS, Tiff.TILEBYTECOUNTS),
)

Reason = Literal["empty-file", "not-an-image", "truncated", "damaged", "too-large", "too-small", "unsupported-mode"]


class ImageError(GraftError):
    """Bytes that give no picture.

    Attributes:
        reason: what is wrong, for programs.
        detail: what is wrong, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_png_chunks(content: bytes) -> list[memoryview]:
    """Walk a PNG to its end, for Pillow looks at no checksum of pixel data and does not miss the end.

    Returns:
        The parts of the compressed pixels.

    Raises:
        ImageError: the file ends before, or a checksum is wrong.
    """
    position, kind, pixels = 8, b"", []
    while kind != b"IEND":
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        if kind and not kind.isalpha():
            raise ImageError("damaged", f"no chunk of a PNG begins at byte {position}")
        if end > len(content):
            raise ImageError("truncated", f"the file ends within the chunk that begins at byte {position}")
        if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise ImageError("damaged", f"wrong checksum of the {kind.decode()} chunk that begins at byte {position}")
        if kind == b"IDAT":
            pixels.append(memoryview(content)[position + 8 : end - 4])
        position = end
    return pixels


def check_png_rows(content: bytes, pixels: list[memoryview]) -> None:
    """Refuse a PNG with fewer rows than its header says, which Pillow would leave black.

    Args:
        content: the file.
        pixels: the parts of its compressed pixels.

    Raises:
        ImageError: rows are missing.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    needed = 0
    for left, top, across, down in PNG_PASSES[interlaced]:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            needed += rows * (1 + -(-columns * depth * PNG_CHANNELS[colour] // 8))
    inflater = zlib.decompressobj()
    for block in (part[start : start + BLOCK] for part in pixels for start in range(0, len(part), BLOCK)):
        rest: bytes | memoryview = block
        while needed > 0 and rest:
            needed -= len(inflater.decompress(rest, BLOCK))
            rest = inflater.unconsumed_tail
    if needed > 0:
        raise ImageError("damaged", f"{needed:,} bytes of pixels are missing")


def scale_png_transparency(image: PngImageFile, depth: int) -> None:
    """Bring the transparent colour, if there is one, from the file's bits per channel to the 8 of the pixels."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour % 2**depth * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(part >> 8 if depth == 16 else part % 256 for part in colour)


def check_tiff(image: Tiff.TiffImageFile, limit: int, size: int) -> None:
    """Refuse an opened TIFF that Pillow would misread.

    Args:
        image: the file, of which the directory is read.
        limit: pixels.
        size: bytes of the file.

    Raises:
        ImageError: says why.
    """
    tags, compression = image.tag_v2, image.info["compression"]
    if compression not in TIFF_COMPRESSIONS:
        raise ImageError("unsupported-mode", f"TIFF compressed by {compression}")
    if set(tags.get(Tiff.SAMPLEFORMAT, (1,))) != {1}:
        raise ImageError("unsupported-mode", "pixels that are no unsigned whole numbers")
    white_is_zero = tags.get(Tiff.PHOTOMETRIC_INTERPRETATION, 0) == 0
    if image.mode.startswith("I;16") and (white_is_zero or tags[Tiff.BITSPERSAMPLE] != (16,)):
        raise ImageError("unsupported-mode", "grey of 12 bits, or of 16 bits where 0 is white")
    if tags.get(Tiff.TILEWIDTH, 0) * tags.get(Tiff.TILELENGTH, 0) > limit:
        raise ImageError("too-large", f"tiles of more than {limit:,} pixels")
    for offsets, lengths in TIFF_PIECES:
        for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False):
            if offset + length > size:
                raise ImageError("truncated", "the file ends before its last strip of pixels")


@contextmanager
def standard_error_muted() -> Iterator[None]:
    """Nothing that C code writes to standard error is seen: libtiff has an opinion on many a good file."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
