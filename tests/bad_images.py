"""Image files as people have them, broken in every way that is known; see odd_images for those that are only odd."""

import struct
import zlib

import numpy as np
from image_files import bmp, chunk, encoded, interlaced_png, oriented, patched, png, scene, tiff
from odd_images import odd_images
from PIL import Image

__all__ = ["MAX_PIXELS", "MIN_SIDE", "bad_images", "odd_images"]

MIN_SIDE, MAX_PIXELS = 8, 50_000_000  # under which bad_images() have their reasons


def _broken() -> dict[str, dict[str, bytes]]:
    """By reason and file name."""
    picture = Image.fromarray(scene(0))
    jpeg, whole_png = encoded(picture, "JPEG"), encoded(picture, "PNG")
    gif, webp = encoded(picture, "GIF"), encoded(picture, "WEBP", lossless=True)
    animated = {"save_all": True, "append_images": [picture.rotate(180)]}
    animation, apng = encoded(picture, "GIF", **animated), encoded(picture, "PNG", **animated)
    rows, grey16 = scene(1).reshape(24, 96), bytes(range(256))
    random = np.random.default_rng(2).bytes(3000)
    frame = jpeg.index(b"\xff\xc0")  # marker, length (2), bits (1), height (2), width (2), layers (1)
    pixels = whole_png.index(b"IDAT")
    vast = struct.pack("<HH", 9900, 9900)  # less than twice MAX_PIXELS
    riff = b"RIFF" + struct.pack("<I", 3000) + b"WEBP"
    return {
        "empty-file": {"empty.jpg": b""},
        "not-an-image": {
            "text.jpg": b"a note",
            "page.jpg": b"<!DOCTYPE html><html>404 not found</html>",
            "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
            "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
            "archive.png": b"PK\x03\x04" + random,
            "program.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "layers.png": b"8BPS\x00\x01" + bytes(20),
            "icon.bmp": encoded(picture, "ICO"),
            "next.webp": encoded(picture, "AVIF"),
            "phone.jpg": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + random,
            "cinema.jpg": encoded(picture, "JPEG2000"),
            "sound.webp": b"RIFF\x24\x00\x00\x00WAVEfmt " + random,
            "zeros.png": bytes(5000),
            "random.gif": random,
            "one-byte.bmp": b"B",
            "half-a-signature.png": whole_png[:7],
            "textmode.png": whole_png.replace(b"\r\n", b"\n", 1),
        },
        "truncated": {
            **{f"cut-in-header-{place}.jpg": jpeg[:place] for place in (10, frame + 4, jpeg.index(b"\xff\xda"))},
            "cut-in-half.jpg": jpeg[: len(jpeg) // 2],
            "cut-at-last-byte.jpg": jpeg[:-1],
            "cut-progressive.jpg": encoded(picture, "JPEG", progressive=True)[:-100],
            "cut-cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG")[:-100],
            "cut-rotated.jpg": encoded(picture, "JPEG", exif=oriented(6))[:-100],
            "cut-in-metadata.jpg": encoded(picture, "JPEG", exif=oriented(6))[:40],
            "cut-in-header.png": whole_png[:20],
            "cut-before-pixels.png": whole_png[: pixels - 4],
            "cut-in-half.png": whole_png[: len(whole_png) // 2],
            "cut-at-last-byte.png": whole_png[:-1],
            "cut-animation.png": apng[:-200],
            "cut-in-header.gif": gif[:10],
            "cut-in-palette.gif": gif[:30],
            "cut-in-half.gif": gif[: -len(gif) // 4],
            "cut-at-last-byte.gif": gif[:-1],
            "pixels-end-early.gif": gif[:-100] + b"\0;",
            "cut-in-first-frame.gif": animation[: len(animation) // 3],
            "cut-in-header.webp": webp[:20],
            "cut-in-half.webp": webp[: len(webp) // 2],
            "cut-at-last-byte.webp": webp[:-1],
            "cut-in-header.bmp": encoded(picture, "BMP")[:20],
            "cut-in-half.bmp": encoded(picture, "BMP")[:1000],
            "cut-at-last-byte.bmp": encoded(picture, "BMP")[:-1],
            "cut-in-half.tif": encoded(picture, "TIFF")[:1000],
            "cut-at-last-byte.tif": tiff(bytes(256))[:-1],
            "claims-a-huge-strip.tif": tiff(bytes(256), StripByteCounts=2**31),
            "random.jpg": jpeg[:4] + random,
            "random.tif": b"II*\0" + random,
            "cut-png-called.jpg": encoded(scene(3), "PNG")[:-300],
        },
        "damaged": {
            "header-checksum.png": patched(whole_png, 29, b"\0\0\0\0"),
            "pixels-checksum.png": patched(whole_png, len(whole_png) - 16, b"\0\0\0\0"),
            "no-pixels.png": whole_png[: pixels - 4] + chunk(b"IEND", b""),
            "no-palette.png": png(rows[:, :32], 8, 3),
            "too-few-rows.png": png(rows, 8, 2, size=(32, 25)),
            "no-last-pass.png": interlaced_png(scene(1), passes=6),
            "no-such-colours.png": png(rows[:, :32], 8, 5),
            "text-bomb.png": png(rows, 8, 2, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24)))),
            "random.png": whole_png[:8] + random,
            "huffman.jpg": patched(jpeg, jpeg.index(b"\xff\xc4") + 5, b"\xff" * 16),
            "no-frame.jpg": jpeg[:frame] + jpeg[frame + 19 :],
            "no-frames.gif": gif[: 13 + 3 * 256] + b";",
            "random.webp": riff + b"VP8 " + random,
            "no-such-chunk.webp": riff + b"OGG " + random,
            "bits.webp": patched(webp, 30, bytes(40)),
            "no-width.bmp": bmp(bytes(100), 0, 10, 24),
            "runs-end-early.bmp": bmp(b"\x09\x01\0\0\0\1", 16, 16, 8, 1, random[:1024]),
            "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
            "so-many-samples.tif": tiff(bytes(256), SamplesPerPixel=65_283),
            "half-of-its-strips.tif": tiff(bytes(128), RowsPerStrip=8),
            "no-strips.tif": tiff(bytes(256), StripOffsets=(), StripByteCounts=()),
        },
        "too-large": {
            "claims.png": png(rows, 8, 2, size=(60_000, 60_000)),
            "claims.jpg": patched(jpeg, frame + 5, b"\xff\x00\xff\x00"),
            "claims.gif": patched(gif, 6, b"\xff" * 4),
            "claims-a-frame.gif": patched(gif, gif.index(b",\0\0\0\0\x20\0\x18\0") + 5, b"\xff" * 4),
            "claims-a-background.gif": patched(gif, 6, vast + gif[10:11] + b"\1")[:781]
            + b"!\xf9\4\x08\0\0\0\0,\0\0\0\0"
            + vast
            + b"\0"
            + gif[791:],
            "claims.webp": riff + b"VP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6,
            "claims.bmp": bmp(bytes(1000), 60_000, 60_000, 24),
            "claims-runs.bmp": bmp(b"\0\1", 60_000, 60_000, 8, 1, random[:1024]),
            "negative-width.bmp": bmp(bytes(1000), -16, 16, 24),
            "claims.tif": tiff(bytes(256), ImageWidth=2**31, ImageLength=2**31),
            "claims-a-tile.tif": tiff(bytes(256), TileWidth=2**16, TileLength=2**16, TileOffsets=8, TileByteCounts=9),
        },
        "too-small": {
            "pixel.png": encoded(scene(4, 1, 1), "PNG"),
            "line.jpg": encoded(scene(4, 5000, 1), "JPEG"),
            "sliver.gif": encoded(scene(4, 7, 100), "GIF"),
        },
        "unsupported-mode": {
            "float.tif": encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
            "integers.tif": encoded(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF"),
            "signed.tif": tiff(grey16, SampleFormat=2),
            "16-bits-from-white.tif": tiff(bytes(512), BitsPerSample=16, PhotometricInterpretation=0),
            "12-bits.tif": tiff(bytes(384), BitsPerSample=12),
            "lab.tif": encoded(Image.new("LAB", (9, 9)), "TIFF"),
            "fax.tif": encoded(picture.convert("1"), "TIFF", compression="group4"),
            "12-bits.jpg": patched(jpeg, frame + 4, b"\x0c"),
            "two-layers.jpg": patched(jpeg, frame + 9, b"\x02"),
            "no-such-header.bmp": patched(bmp(bytes(1000), 16, 16, 24), 14, b"\x29"),
            "two-bits.bmp": bmp(bytes(1000), 16, 16, 2),
            "holds-a-jpeg.bmp": bmp(jpeg, 32, 24, 24, 4),
        },
    }


def bad_images() -> dict[str, tuple[bytes, str]]:
    """Files that must be refused under MIN_SIDE and MAX_PIXELS, each with its reason."""
    return {name: (content, reason) for reason, files in _broken().items() for name, content in files.items()}
