"""Writers of image files for tests, also of those that Pillow reads but does not write."""

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2


def scene(seed: int, width: int = 32, height: int = 24) -> np.ndarray:
    """A smooth picture, of shape (height, width, 3), that looks like that of no other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray | Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: np.ndarray, depth: int, colour: int, *before: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of packed rows (height, bytes), with further chunks before the pixels; `size` if the header shall lie."""
    width, height = size or (rows.shape[1] * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)), len(rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    filtered = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    pixels = chunk(b"IDAT", zlib.compress(filtered))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + chunk(b"IEND", b"")


def interlaced_png(pixels: np.ndarray, passes: int = 7) -> bytes:
    """A PNG of RGB pixels in so many of the seven passes of Adam7."""
    grid = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[top::down, left::across] for top, left, down, across in grid[:passes]]
    stored = [np.pad(part.reshape(len(part), -1), ((0, 0), (1, 0))) for part in parts if part.size]
    header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, 2, 0, 0, 1)
    body = chunk(b"IDAT", zlib.compress(b"".join(rows.tobytes() for rows in stored)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def big_endian(values: np.ndarray) -> np.ndarray:
    """16-bit values (height, width, ...) as rows of bytes."""
    return values.astype(">u2").reshape(len(values), -1).view(np.uint8)


def bmp(
    pixels: bytes, width: int, height: int, bits: int, compression: int = 0, palette: bytes = b"", *masks: int
) -> bytes:
    """A Windows BMP; `masks` are those of red, green, blue and alpha."""
    details = struct.pack(f"<{len(masks)}I", *masks) + palette
    sizes = struct.pack("<iiHHIIiiII", width, height, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0)
    start = 14 + 4 + len(sizes) + len(details)
    file = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    return file + struct.pack("<I", 40 + 4 * len(masks)) + sizes + details + pixels


def tiff(pixels: bytes, **tags) -> bytes:
    """A little-endian TIFF of 16x16 grey pixels in one strip, but for the tags given, by Pillow's names."""
    grey = {"ImageWidth": 16, "ImageLength": 16, "BitsPerSample": 8, "Compression": 1, "PhotometricInterpretation": 1}
    strip = {"StripOffsets": 0, "RowsPerStrip": 16, "StripByteCounts": len(pixels), "SamplesPerPixel": 1}
    directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for name, value in (grey | strip | tags).items():
        directory[ExifTags.Base[name].value] = value
    return b"II*\0\x08\0\0\0" + directory.tobytes(8) + pixels  # Pillow counts offsets of strips from its end


def patched(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]
