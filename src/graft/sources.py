"""Where labelled images come from. A new source is one function that yields records, and its line in SOURCES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.archives import archive, unpack
from graft.embedded import digits, glyphs
from graft.folders import folder, split_folders, tally_folder
from graft.records import Record, Reject, SourceError
from graft.splits import carved
from graft.tables import table, tally_table

SHOWN_FAULTS = 20  # of one message


SOURCES: dict[str, Callable[[Any, int, list[Reject], Path], Iterator[Record]]] = {
    "digits": lambda section, seed, rejects, scratch: digits(),
    "folder": lambda section, seed, rejects, scratch: folder(section.path, rejects),
    "table": lambda section, seed, rejects, scratch: table(section.path, section.table, rejects),
    "archive": lambda section, seed, rejects, scratch: archive(section.path, rejects, scratch),
    "glyphs": lambda section, seed, rejects, scratch: glyphs(section.images_per_class, seed),
}


def records(section: Any, seed: int, rejects: list[Reject], scratch: Path) -> Iterator[Record]:
    """The records of the source that a section of params.yaml (data or pretrain) names.

    Args:
        section: the section.
        seed: of images that are rendered.
        rejects: receives what gives no record.
        scratch: an existing folder that the source may fill; the records' files may stand there.

    Raises:
        SourceError: the source cannot be read.
    """
    return SOURCES[section.source](section, seed, rejects, scratch)


def tally(section: Any, scratch: Path, rejects: list[Reject] | None = None) -> Counter[tuple[str | None, str]]:
    """The number of records by split and class (0 of an empty class folder), without decoding an image.

    Args:
        section: data or pretrain of params.yaml.
        scratch: an existing folder that the source may fill.
        rejects: receives the rows of a table that give no record.

    Raises:
        SourceError: the source cannot be read.
    """
    match section.source:
        case "folder":
            return tally_folder(section.path)
        case "archive":
            return tally_folder(unpack(section.path, scratch), str(section.path))
        case "table":
            return tally_table(section.path, section.table, rejects)
    return Counter((record.split, record.label) for record in records(section, 0, [], scratch))


def check_source(section: Any, scratch: Path, split: str, test: bool) -> Counter[tuple[str | None, str]]:
    """Refuse, without decoding an image, a source whose classes cannot all be in every split; returns its tally.

    Args:
        section: data or pretrain of params.yaml.
        scratch: an existing folder that the source may fill.
        split: the strategy, as data.split.
        test: whether a test split is wanted besides training and validation.

    Raises:
        SourceError: names everything that is missing, and where.
    """
    rejects: list[Reject] = []
    counts = tally(section, scratch, rejects)
    if not counts and rejects:
        first = rejects[0]
        raise SourceError(
            f"{section.path} has no labelled images: none of its {len(rejects):,} rows gives one, the first "
            f"({first.source}) because of {first.reason}: {first.detail}"
        )
    places = split_folders(section.path) if section.source == "folder" else None
    check_counts(counts, str(section.path), split, test, places)
    return counts


def check_counts(
    counts: Mapping[tuple[str | None, str], int],
    where: str,
    split: str,
    test: bool,
    places: Mapping[str | None, str] | None = None,
) -> None:
    """Refuse a source whose classes cannot all be in every split.

    Args:
        counts: images by the source's own split (None where it has none) and class.
        where: what messages call the source.
        split: the strategy, as data.split.
        test: whether a test split is wanted besides training and validation.
        places: the folder of each split's class folders, where the source has folders.

    Raises:
        SourceError: names everything that is missing, and where.
    """
    classes = sorted({label for _, label in counts})
    if not classes:
        raise SourceError(f"{where} has no labelled images")
    if len(classes) == 1:
        raise SourceError(f"{where} has one class only, {classes[0]!r}; there must be at least two")
    faults = []
    for splits, needed, purpose in _needs({given for given, _ in counts}, where, split, test):
        folders = [places[given] for given in splits if given in places] if places else []
        kind = f" for {splits[0]}" if split == "predefined" and not places else ""
        for name in classes:
            found = sum(counts.get((given, name), 0) for given in splits)
            if found < needed:
                place = f"{folders[0]}/{name}" if len(folders) == 1 else where
                faults.append(f"class {name!r} has {found} image(s){kind} in {place}, needs at least {needed}{purpose}")
    if faults:
        lines = faults[:SHOWN_FAULTS] + ([f"and {len(faults) - SHOWN_FAULTS:,} more"] if faults[SHOWN_FAULTS:] else [])
        raise SourceError("\n  ".join([f"{where} cannot be split:", *lines]))


def _needs(
    given: set[str | None], where: str, split: str, test: bool
) -> Iterator[tuple[tuple[str | None, ...], int, str]]:
    """Splits of the source, the images that each class needs in them together, and what for.

    Raises:
        SourceError: the splits are to be the source's own, but it has none to train on.
    """
    held_out = ("validation", "test") if test else ("validation",)
    everywhere = tuple(sorted(given, key=str))
    if split in ("hash", "group"):
        yield everywhere, 1, ""
    elif split != "predefined":
        yield everywhere, 1 + len(held_out), f" ({', '.join(('train', *held_out))})"
    elif given == {None}:
        raise SourceError(f"{where} says of no image in which split it is, which split: predefined needs")
    elif not given & {"train", None}:
        raise SourceError(f"{where} has images in {', '.join(map(str, everywhere))} but none in train")
    else:
        drawn = carved(given, test)
        yield ("train", None), 1 + len(drawn), f" ({', '.join(('train', *drawn))})" if drawn else ""
        for name in held_out:
            if name in given:
                yield (name,), 1, ""
