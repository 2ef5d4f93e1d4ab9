"""Whole image files that are easily shown in wrong colours, mirrored, lying or not at all."""

import io
import struct

import numpy as np
from image_files import big_endian, bmp, chunk, encoded, interlaced_png, oriented, patched, png, scene, tiff
from PIL import Image

Odd = tuple[bytes, np.ndarray, int]  # the file; its pixels, RGB or grey; by how much a channel may differ
JPEG = 12  # levels that a good one may be off
HOLE = np.zeros((24, 32), bool)  # what stands for transparency
HOLE[5:9, 5:9] = True
ALPHA = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))


def odd_images() -> dict[str, bytes]:
    """Files that must be read, of at least 12 px per side; no two show a similar picture."""
    return {name: content for name, (content, _, _) in odd_pictures().items()}


def odd_pictures() -> dict[str, Odd]:
    return _colours() | _transparent() | _turned() | _of_several() | _bmps() | _tiffs() | _careless()


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What shows of pixels (height, width, ...) with alpha (height, width)."""
    share = alpha.reshape(*alpha.shape, *[1] * (pixels.ndim - 2)) / 255
    return np.rint(pixels * share + 255 * (1 - share))


def deep(pixels: np.ndarray) -> np.ndarray:
    """Values of 16 bits, of which the upper 8 are the pixels."""
    return pixels.astype(int) * 256 + np.random.default_rng(9).integers(0, 256, pixels.shape)


def cmyk(pixels: np.ndarray) -> Image.Image:
    """Inks that give these pixels, with half of the black that is possible."""
    inks = 255 - pixels.astype(float)
    black = np.floor(inks.min(axis=2, keepdims=True) / 2)
    inks = np.dstack([(inks - black) * 255 / (255 - black), black])
    return Image.frombytes("CMYK", pixels.shape[1::-1], np.rint(inks).astype(np.uint8).tobytes())


def ycck(pixels: np.ndarray) -> bytes:
    """A JPEG as Adobe's programs write it: cyan, magenta and yellow as YCbCr."""
    *inks, black = cmyk(pixels).split()
    stored = 255 - np.dstack([np.asarray(Image.merge("RGB", inks).convert("YCbCr")), 255 - np.asarray(black)])
    content = encoded(Image.frombytes("CMYK", black.size, stored.tobytes()), "JPEG", quality=95, subsampling=0)
    return patched(content, content.index(b"Adobe") + 11, b"\x02")  # says that it is no plain CMYK


def _colours() -> dict[str, Odd]:
    jpeg = {"quality": 95, "subsampling": 0}
    bits, few = scene(1)[..., 0] > 127, Image.fromarray(scene(2)).quantize(16)
    return {
        "cmyk.jpg": (encoded(cmyk(scene(3)), "JPEG", **jpeg), scene(3), JPEG),
        "ycck.jpg": (ycck(scene(4)), scene(4), JPEG),
        "rgb.jpg": (encoded(scene(5), "JPEG", keep_rgb=True, quality=95), scene(5), JPEG),
        "progressive.jpg": (encoded(scene(6), "JPEG", progressive=True, **jpeg), scene(6), JPEG),
        "grey.jpg": (encoded(scene(7)[..., 0], "JPEG", quality=95), scene(7)[..., 0], JPEG),
        "16-bits.png": (png(big_endian(deep(scene(8))), 16, 2), scene(8), 0),
        "16-bits-grey.png": (png(big_endian(deep(scene(9)[..., 0])), 16, 0), scene(9)[..., 0], 0),
        "1-bit.png": (png(np.packbits(bits, axis=1), 1, 0), bits * 255, 0),
        "palette.png": (encoded(few, "PNG"), np.array(few.getpalette()).reshape(-1, 3)[np.asarray(few)], 0),
        "interlaced.png": (interlaced_png(scene(11)), scene(11), 0),
        "profile.png": (encoded(scene(10), "PNG", icc_profile=bytes(200)), scene(10), 0),
    }


def _transparent() -> dict[str, Odd]:
    def key(*levels: int) -> bytes:
        return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))

    opaque = np.where(HOLE, 0, 255)
    colours = np.where(HOLE[..., None], (1, 2, 3), scene(20))
    deep_colours = np.where(HOLE[..., None], (265, 521, 777), deep(scene(21)))
    deep_levels = np.where(HOLE, 515, deep(scene(28)[..., 0] | 4))
    nibbles = np.where(HOLE, 6, scene(29)[..., 0] >> 4 | 1)
    packed = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).astype(np.uint8)
    few = Image.fromarray(scene(24)).quantize(4)
    palette = np.array(few.getpalette()).reshape(-1, 3)[np.asarray(few)]
    alphas = np.array([255, 128, 0, 255])[np.asarray(few)]
    levels, deep_alpha = scene(25)[..., 0], np.dstack([deep(scene(26)), ALPHA.astype(int) * 257])
    return {
        "colour.png": (png(colours.reshape(24, 96).astype(np.uint8), 8, 2, key(1, 2, 3)), on_white(colours, opaque), 0),
        "16-bits-colour.png": (
            png(big_endian(deep_colours), 16, 2, key(265, 521, 777)),
            on_white(deep_colours >> 8, opaque),
            0,
        ),
        "16-bits-level.png": (png(big_endian(deep_levels), 16, 0, key(515)), on_white(deep_levels >> 8, opaque), 0),
        "4-bits-level.png": (png(packed, 4, 0, key(6)), on_white(nibbles * 17, opaque), 0),
        "palette-alpha.png": (encoded(few, "PNG", transparency=bytes([255, 128, 0])), on_white(palette, alphas), 1),
        "grey-alpha.png": (encoded(np.dstack([levels, ALPHA]), "PNG"), on_white(levels, ALPHA), 1),
        "16-bits-alpha.png": (png(big_endian(deep_alpha), 16, 6), on_white(scene(26), ALPHA), 1),
        "alpha.webp": (encoded(np.dstack([scene(27), ALPHA]), "WEBP", lossless=True), on_white(scene(27), ALPHA), 1),
        "alpha.gif": (
            encoded(few.transpose(3), "GIF", transparency=2),
            on_white(palette[::-1, ::-1], 255 - 255 * (alphas == 0)[::-1, ::-1]),
            0,
        ),
    }


def _turned() -> dict[str, Odd]:
    """As cameras store what was taken with the camera on its side or upside down."""
    stored = {3: lambda upright: np.rot90(upright, 2), 6: np.rot90, 8: lambda upright: np.rot90(upright, -1)}

    def turned(seed: int, orientation: int, form: str, **options) -> bytes:
        pixels = np.ascontiguousarray(stored[orientation](scene(seed)))
        return encoded(pixels, form, exif=oriented(orientation), **options)

    return {
        "on-its-side.jpg": (turned(30, 6, "JPEG", quality=95, subsampling=0), scene(30), JPEG),
        "upside-down.jpg": (turned(31, 3, "JPEG", quality=95, subsampling=0), scene(31), JPEG),
        "on-its-side.png": (turned(32, 8, "PNG"), scene(32), 0),
        "on-its-side.webp": (turned(33, 6, "WEBP", lossless=True), scene(33), 0),
        "on-its-side.tif": (turned(34, 8, "TIFF", compression="tiff_lzw"), scene(34), 0),
    }


def _of_several() -> dict[str, Odd]:
    """The first of several pictures counts."""

    def two(first: Image.Image, form: str, **options) -> bytes:
        return encoded(first, form, save_all=True, append_images=[Image.fromarray(scene(49))], **options)

    cartoon = Image.fromarray(scene(40)).quantize(64)
    corner = encoded(Image.fromarray(scene(41, 16, 12)).quantize(64), "GIF")
    canvas = np.full((24, 32, 3), 255)
    canvas[6:18, 8:24] = np.asarray(Image.open(io.BytesIO(corner)).convert("RGB"))
    corner = patched(corner, 6, b"\x20\0\x18\0")
    corner = patched(corner, corner.index(b",\0\0\0\0\x10\0\x0c\0"), b",\x08\0\x06\0")
    return {
        "animation.gif": (two(cartoon, "GIF"), np.asarray(cartoon.convert("RGB")), 0),
        "animation.webp": (two(Image.fromarray(scene(42)), "WEBP", lossless=True), scene(42), 0),
        "animation.png": (two(Image.fromarray(scene(43)), "PNG"), scene(43), 0),
        "first-frame-in-a-corner.gif": (corner, canvas, 0),
        "two-lenses.jpg": (two(Image.fromarray(scene(44)), "MPO", quality=95, subsampling=0), scene(44), JPEG),
        "pages.tif": (two(Image.fromarray(scene(45)), "TIFF"), scene(45), 0),
    }


def _bmps() -> dict[str, Odd]:
    rows = scene(50)[..., ::-1]  # BMP has blue first
    unused = np.dstack([scene(51)[::-1, :, ::-1], np.zeros((24, 32), np.uint8)])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    runs = b"".join(bytes([32, level]) + b"\0\0" for level in range(24)) + b"\0\1"
    palette = np.random.default_rng(52).integers(0, 256, (256, 4), np.uint8)
    return {
        "top-down.bmp": (bmp(rows.tobytes(), 32, -24, 24), scene(50), 0),
        "alpha-not-used.bmp": (bmp(unused.tobytes(), 32, 24, 32, 3, b"", *masks), scene(51), 0),
        "runs.bmp": (bmp(runs, 32, 24, 8, 1, palette.tobytes()), np.tile(palette[23::-1, None, 2::-1], (1, 32, 1)), 0),
    }


def _tiffs() -> dict[str, Odd]:
    levels = [scene(seed, 16, 16)[..., 0] for seed in (60, 61, 62)]
    deep_levels = deep(levels[1]).astype("<u2")
    return {
        "deflated.tif": (encoded(scene(63), "TIFF", compression="tiff_adobe_deflate"), scene(63), 0),
        "cmyk.tif": (encoded(cmyk(scene(64)), "TIFF"), scene(64), 2),
        "white-is-zero.tif": (tiff((255 - levels[0]).tobytes(), PhotometricInterpretation=0), levels[0], 0),
        "16-bits-grey.tif": (tiff(deep_levels.tobytes(), BitsPerSample=16), levels[1], 0),
        "strange-tag.tif": (tiff(levels[2].tobytes(), CFAPattern=b"abc"), levels[2], 0),
    }


def _careless() -> dict[str, Odd]:
    jpeg = encoded(scene(70), "JPEG", quality=95, subsampling=0)
    return {
        "appendix.jpg": (jpeg + b"appendix" * 100, scene(70), JPEG),
        "damaged-metadata.jpg": (
            encoded(scene(71), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + bytes(20)),
            scene(71),
            JPEG,
        ),
        "a-png-called.jpg": (encoded(scene(72), "PNG"), scene(72), 0),
        "a-jpeg-called.png": (encoded(scene(73), "JPEG", quality=95, subsampling=0), scene(73), JPEG),
    }
