"""Printed characters bent into something like handwriting: the source task that needs no download.

Every glyph goes the way of scikit-learn's digits (Alpaydin and Kaynak, 1998): a large bitmap, thinned, slanted, bent,
cropped to the ink, stretched to a 32x32 bitmap, counted in 4x4 blocks. Most constants are rounded means of the best
15 of 241 random candidates, by how well glyphs alone tell labelled digits apart. Only digits outside the
test images of the default split were asked for that ranking.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

# One string per class: its label, then the characters that nobody could tell from it once height and width are lost.
_LOOK_ALIKES = (
    *("0Oo", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    *("A", "B", "Cc", "D", "E", "F", "G", "H", "Il", "J", "Kk", "L", "M", "N", "Pp", "Q", "R", "Ss", "T", "Uu", "Vv"),
    *("Ww", "Xx", "Yy", "Zz", "a", "b", "d", "e", "f", "g", "h", "i", "j", "m", "n", "q", "r", "t"),
)
GLYPH_CLASSES = tuple(characters[0] for characters in _LOOK_ALIKES)

# Upright and cursive shapes; bold and oblique cuts are the same once thinned and slanted at random.
_FONTS = (
    *("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic"),
    *("cmr10", "cmss10", "cmtt10", "cmti10", "cmmi10"),
)
_FONT_SIZE = 64  # px; even x-height letters then have a centre line as fine as the bitmap

_BITMAP = 32  # px per side of the bitmap whose blocks are counted
_BLOCK = 4
_BLOCK_MAXIMUM = _BLOCK * _BLOCK

_SLANT = 0.15  # standard deviation of the shear, px across per px down
_ROTATION = 0.09  # standard deviation, radians
_BEND_GRID = 3  # control points per axis: three move whole loops and bars, more only make the strokes tremble
_BEND = (0.025, 0.135)  # range of a glyph's displacement, as a fraction of its height
_WIDTH = 18.5  # px, of a character 0.6 times as wide as high
_WIDTH_EXPONENT = 0.7  # of the character's own width: below one, as digits are stretched towards a common width
_WIDTH_SPREAD = 0.11  # standard deviation of the logarithm
_MARGIN = 1.45  # px from the bitmap's edge to the centre line: half a stroke
_SHIFT = 0.8  # px, standard deviation across
_INK = (0.305, 0.035)  # mean and standard deviation of the inked fraction of the bitmap
_PEN = (1.0, 4.0)  # px, the pen's smallest and largest radius


def render_glyphs(per_class: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Label and greyscale image of every glyph: (8, 8) uint8, light ink on black, class after class.

    Image i of a label depends on seed, label and i alone; asking for more images leaves the first ones as they were.

    Raises:
        FileNotFoundError: matplotlib came without a font.
    """
    for characters in _LOOK_ALIKES:
        label = characters[0]
        lines = [_centre_line(bitmap) for bitmap in _thin(_print_characters(characters))]
        for index in range(per_class):
            random = np.random.default_rng([seed, ord(label), index])
            line = lines[random.integers(len(lines))]
            bitmap = _ink(_stretch(_distort(line, random), random), random)
            yield label, _count_blocks(bitmap)


def _print_characters(characters: str) -> np.ndarray:
    """Every character in every font: bool (characters * fonts, size, size), with an empty border."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    bitmaps = []
    for name, character in itertools.product(_FONTS, characters):
        path = folder / f"{name}.ttf"
        if not path.is_file():
            raise FileNotFoundError(f"glyphs are rendered from matplotlib's fonts, but {path} is missing")
        image = Image.new("L", (2 * _FONT_SIZE, 2 * _FONT_SIZE))
        font = ImageFont.truetype(str(path), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
        ImageDraw.Draw(image).text((_FONT_SIZE // 2, _FONT_SIZE // 4), character, fill=255, font=font)
        bitmaps.append(np.asarray(image) > 127)
    return np.stack(bitmaps)


def _deletable() -> np.ndarray:
    """For both half-steps of Zhang and Suen (1984), whether a pixel with neighbourhood code c goes: bool (2, 256)."""
    tables = np.zeros((2, 256), bool)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]  # clockwise from above
        north, east, south, west = ring[::2]
        rises = sum(after > before for before, after in itertools.pairwise([*ring, ring[0]]))
        edge = 2 <= sum(ring) <= 6 and rises == 1
        tables[0, code] = edge and not (south and east and (north or west))
        tables[1, code] = edge and not (north and west and (east or south))
    return tables


_DELETABLE = _deletable()
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _thin(bitmaps: np.ndarray) -> np.ndarray:
    """Erode bool (n, height, width) bitmaps until their strokes are one pixel wide, without breaking any."""
    ink = bitmaps.astype(np.uint8)
    while True:
        before = ink.sum()
        for table in _DELETABLE:
            code = np.zeros_like(ink)
            for bit, (down, right) in enumerate(_RING):  # borders are empty, so rolling over them adds nothing
                code |= np.roll(ink, (-down, -right), axis=(1, 2)) << bit
            ink[table[code]] = 0
        if ink.sum() == before:
            return ink.astype(bool)


def _centre_line(bitmap: np.ndarray) -> np.ndarray:
    """Points (n, 2) down and right from the ink's centre, in units of its height."""
    points = np.argwhere(bitmap).astype(float)
    lowest, highest = points.min(axis=0), points.max(axis=0)
    return (points - (lowest + highest) / 2) / (highest - lowest)[0]


def _distort(line: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Bend by a coarse random displacement field, rotate and slant."""
    size = np.maximum(np.ptp(line, axis=0), 0.5)  # a bar is not bent as much across as a letter
    knots = random.normal(size=(2, _BEND_GRID, _BEND_GRID)) * random.uniform(*_BEND)
    at = (line / size + 0.5).clip(0, 1).T * (_BEND_GRID - 1)
    moved = [ndimage.map_coordinates(field, at, order=3, mode="nearest") for field in knots]
    down, right = (line + np.stack(moved, axis=1) * size.clip(max=1)).T
    angle, slant = random.normal(0, _ROTATION), random.normal(0, _SLANT)
    turned = np.cos(angle) * down + np.sin(angle) * right
    return np.stack([turned, np.cos(angle) * right - np.sin(angle) * down - slant * turned], axis=1)


def _stretch(line: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pixels (n, 2) of the bitmap: the full height, and a width that depends little on the character's own."""
    lowest, size = line.min(axis=0), np.maximum(np.ptp(line, axis=0), 1e-3)
    width = _WIDTH * (size[1] / size[0] / 0.6) ** _WIDTH_EXPONENT * np.exp(random.normal(0, _WIDTH_SPREAD))
    inner = np.array([_BITMAP - 1, min(width, _BITMAP - 1)]) - 2 * _MARGIN
    origin = np.array([_MARGIN, (_BITMAP - 1 - inner[1]) / 2 + random.normal(0, _SHIFT)])
    pixels = origin + (line - lowest) / size * inner.clip(1)
    return np.rint(pixels).astype(int).clip(0, _BITMAP - 1)


def _ink(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw with the round pen that inks the wanted fraction of the bitmap: bool (32, 32)."""
    paper = np.ones((_BITMAP, _BITMAP), bool)
    paper[pixels[:, 0], pixels[:, 1]] = False
    distance = ndimage.distance_transform_edt(paper)
    wanted = int(random.normal(*_INK) * paper.size)
    radius = np.partition(distance, wanted, axis=None)[wanted]
    return distance <= np.clip(radius, *_PEN)


def _count_blocks(bitmap: np.ndarray) -> np.ndarray:
    """Ink of every 4x4 block, 0..16, as uint8 (8, 8) in 0..255."""
    blocks = bitmap.reshape(_BITMAP // _BLOCK, _BLOCK, _BITMAP // _BLOCK, _BLOCK)
    return np.rint(blocks.sum(axis=(1, 3)) * (255 / _BLOCK_MAXIMUM)).astype(np.uint8)
