"""What a filter does: kernels beside what they make of one image, those made by hand and those a network learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graft import kernels
from graft.artifacts import Manifest
from graft.kernels import Kernel
from graft.learned_filters import FirstLayer, LearnedFilter
from graft.reporting.comparison import Picture
from graft.reporting.text import MINUS
from graft.shards import Shards
from graft.tiles import fitted, signed_png, stretched, to_png

NUMBERED = 5  # rows or columns up to which a kernel's numbers can be read
COMPACT = 3  # columns of numbers that a small drawing has room for
ROUNDING = 1e-6  # of brightness 0..255, below which an answer is zero but for rounding
SWATCH = 96  # px, of a filter in colours


@dataclass(frozen=True)
class Cell:
    """One weight of a drawn kernel.

    Attributes:
        row: from 0 at the top.
        column: from 0 at the left.
        text: its number; empty where there are too many.
        sign: positive, negative or zero.
        strength: from 0 to 1, relative to the largest weight.
    """

    row: int
    column: int
    text: str
    sign: str
    strength: float


@dataclass(frozen=True)
class Panel:
    """A kernel beside its answer.

    Attributes:
        title: heading.
        answer: PNG.
        formula: what is computed; may be empty.
        meaning: a sentence; may be empty.
        cells: of the kernel; empty where there is none to draw.
        sides: its rows and columns.
        factor: by which the numbers in the cells are multiplied, such as "1/9"; empty: 1.
        swatch: PNG of a kernel in colours; None where it is drawn by cells.
    """

    title: str
    answer: bytes
    formula: str = ""
    meaning: str = ""
    cells: tuple[Cell, ...] = ()
    sides: tuple[int, int] = (0, 0)
    factor: str = ""
    swatch: bytes | None = None

    @property
    def numbered(self) -> bool:
        """Whether the kernel's numbers stand in its cells."""
        return any(cell.text for cell in self.cells)

    @property
    def compact(self) -> bool:
        """Whether it can still be read where it is drawn small."""
        return bool(self.sides[0]) and not self.formula and (self.sides[1] <= COMPACT or not self.numbered)

    @property
    def words(self) -> str:
        """The kernel for those who do not see it: its rows of numbers."""
        rows, columns = self.sides
        if not self.numbered:
            return f"{rows} × {columns} weights"
        texts = [cell.text for cell in self.cells]
        numbers = "; ".join(" ".join(texts[row * columns : (row + 1) * columns]) for row in range(rows))
        return f"{self.factor} × ({numbers})" if self.factor else numbers


def first_picture(manifest: Manifest, images: Shards, split: str) -> Picture:
    """The first image of a split, which has one; row i of the images is row i of the manifest."""
    place = manifest.positions(split)[:1]
    source, label = (manifest.rows[column].iloc[place[0]] for column in ("source", "label"))
    return Picture(images[place][0], f"{split} image {source} of class {label}")


def kernel_panels(pixels: np.ndarray) -> list[Panel]:
    """The image in grey, then every kernel made by hand with its answer; after the two Sobel kernels their magnitude.

    Args:
        pixels: RGB 0..255 (h, w, 3); large ones are shrunk, so that a kernel of three pixels can be seen to act.
    """
    grey = kernels.in_grey(pixels)
    height, width = grey.shape
    panels = [Panel("The image", _grey_png(grey), meaning=f"In grey, {width} × {height} px.")]
    for kernel in kernels.KERNELS:
        panels.append(_kernel_panel(kernel, grey))
        if kernel is kernels.SOBEL_Y:
            strength = kernels.gradient_magnitude(grey)
            meaning = "How steep the brightness is in whatever direction: every edge, without its sign."
            panels.append(Panel("Sobel, magnitude", _signed(strength), "√(Sx² + Sy²)", meaning))
    return panels


def _kernel_panel(kernel: Kernel, grey: np.ndarray) -> Panel:
    answer = kernels.respond(kernel, grey)
    return Panel(
        kernel.name,
        _grey_png(answer) if kernel.smooths else _signed(answer),
        kernel.formula,
        kernel.meaning,
        _cells(kernel.weights, [_whole(value) for value in (kernel.weights * kernel.divisor).ravel()]),
        kernel.weights.shape,
        "" if kernel.divisor == 1 else f"1/{kernel.divisor}",
    )


def learned_panels(found: FirstLayer) -> list[Panel]:
    """Learned filters with their maps, in their order: numbers relative to the largest, or colours."""
    return [_learned_panel(one) for one in found.filters]


def _learned_panel(learned: LearnedFilter) -> Panel:
    title, weights = f"Filter {learned.number}", learned.weights
    if weights.shape[-1] == 3:
        swatch = to_png(fitted(stretched(weights), SWATCH))
        return Panel(title, learned.png, sides=weights.shape[:2], swatch=swatch)
    shares = weights[..., 0] / (np.abs(weights).max() or 1)
    texts = [_tenths(value) if max(shares.shape) <= NUMBERED else "" for value in shares.ravel()]
    return Panel(title, learned.png, cells=_cells(shares, texts), sides=shares.shape)


def _whole(value: float) -> str:
    return f"{round(value)}".replace("-", MINUS)


def _tenths(value: float) -> str:
    """A number from -1 to 1 as short as a cell needs it: .4, −1 or 0."""
    tenths = round(10 * value)
    text = {0: "0", 10: "1"}.get(abs(tenths), f".{abs(tenths)}")
    return MINUS + text if tenths < 0 else text


def _cells(weights: np.ndarray, texts: list[str]) -> tuple[Cell, ...]:
    most = np.abs(weights).max() or 1
    signs = {1: "positive", -1: "negative", 0: "zero"}
    return tuple(
        Cell(
            row,
            column,
            text,
            signs[int(np.sign(value))],
            round(float(abs(value) / most), 3),
        )
        for ((row, column), value), text in zip(np.ndenumerate(weights), texts, strict=True)
    )


def _grey_png(values: np.ndarray) -> bytes:
    grey = np.round(np.clip(values, 0, 255)).astype(np.uint8)
    return to_png(np.repeat(grey[..., None], 3, axis=-1))


def _signed(answer: np.ndarray) -> bytes:
    """The answer in units of its largest value of either sign."""
    most = np.abs(answer).max()
    return signed_png(answer / most if most > ROUNDING else np.zeros_like(answer))
