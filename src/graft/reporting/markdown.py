"""Tables and names as Markdown that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SIGNS = re.compile(r"[\\`*|<]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is no sign


def escaped(text: str) -> str:
    """The text such that Markdown shows it as it is, on one line."""
    return _SIGNS.sub(r"\\\g<0>", " ".join(text.split()))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table, its columns as wide as their widest cell; the first so many hold words, the others numbers.

    Cells are escaped.
    """
    lines = [[escaped(cell) for cell in line] for line in (columns, *rows)]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(columns))]
    sides = ["<" if place < words else ">" for place in range(len(columns))]
    rule = [
        "-" * (width - (side == ">")) + (":" if side == ">" else "") for width, side in zip(widths, sides, strict=True)
    ]
    padded = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)] for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))
