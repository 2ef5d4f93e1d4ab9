"""What the data report's sentences are made of; every name in them comes from somebody's files and is never trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

NAME_LENGTH = 60


@dataclass(frozen=True)
class Finding:
    """One thing to know: look (at it before training), note, or fine."""

    level: Literal["look", "note", "fine"]
    title: str
    text: Markup


def amount(number: int, noun: str, plural: str | None = None) -> str:
    """1 image, 1,234 images."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float, whole: float) -> str:
    """17 %, or under 1 %."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 1 or not part else "under 1 %"


def abridged(text: str, most: int = NAME_LENGTH) -> str:
    """The text without its middle where it is longer than that."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]}…{text[-(most // 3) :]}"


def named(names: Sequence[str], most: int = 3) -> Markup:
    """The first few names, each kept apart from the direction of the text around it."""
    shown = Markup(", ").join(Markup("<b><bdi>{}</bdi></b>").format(abridged(name)) for name in names[:most])
    return shown + (Markup(" and {:,} more").format(len(names) - most) if len(names) > most else "")


def sentence(text: str, *words: object) -> Markup:
    """HTML with placeholders, filled with words that are escaped unless they are HTML themselves."""
    return Markup(text).format(*words)
