"""What was left out of the images, by reason, in words that need no knowledge of image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

EXAMPLES = 3  # of each reason
LEAKED = ("leaked-copy", "split-group")
# Not faults of a file: another file is the matter.
COPIES = ("duplicate", "conflicting-label", "conflicting-group", *LEAKED)

MEANINGS = {
    "empty-file": "The file has no content at all, as after a download that failed.",
    "not-an-image": "The content is no image of a known format, whatever the file is called.",
    "truncated": "The image breaks off before its end, as after an interrupted copy.",
    "damaged": "The file looks like an image, but its content is broken and cannot be shown.",
    "too-large": "The image has more pixels than data.max_pixels allows; it was not opened.",
    "too-small": "The image has a side shorter than data.min_side: too little to recognise anything by.",
    "unsupported-mode": "The image stores its colours in a way that cannot reliably be turned into RGB.",
    "unreadable-file": "The file could not be opened, for example because its permissions forbid it.",
    "unsupported-extension": "The file's name does not end like an image's, so that it was not opened.",
    "outside-root": "The path leads out of the data folder; files elsewhere are never read.",
    "link-loop": "The folder is a link to a folder that contains it, and would go on for ever.",
    "outside-class-folder": "The file is in no class's folder, so that nothing says what it shows.",
    "missing-file": "The table names a file that does not exist.",
    "no-label": "The table's row does not say which class the image belongs to.",
    "unknown-split": "The table's row names a split other than train, validation and test.",
    "no-image": "The table's row holds neither a path nor the bytes of an image.",
    "duplicate": "Byte for byte the same file as another one of the same class; that one is kept.",
    "conflicting-group": "The same file is in two groups, which would have to be one. All its copies are out.",
    "conflicting-label": "The same picture is under two classes. Nobody can say which is right, so all copies are out.",
    "leaked-copy": "The same picture is among images held back for checking; training on it would be cheating.",
    "split-group": "Others of the image's group are held back for checking, and a group must not be on both sides.",
}
UNKNOWN = "This reason has no explanation here; the detail beside the file says more."


@dataclass(frozen=True)
class Reason:
    """Everything that was left out for one reason.

    Attributes:
        name: for programs, as in quarantine.csv.
        count: how many files or rows.
        meaning: a sentence.
        examples: the first few, as (source, detail).
    """

    name: str
    count: int
    meaning: str
    examples: Sequence[tuple[str, str]]


def by_reason(quarantine: pd.DataFrame) -> list[Reason]:
    """The reasons, most frequent first, with their first examples in order of source."""
    ordered = quarantine.sort_values(["source", "detail"], kind="stable")
    reasons = [
        Reason(str(name), len(rows), MEANINGS.get(str(name), UNKNOWN), _examples(rows))
        for name, rows in ordered.groupby("reason", sort=True)
    ]
    return sorted(reasons, key=lambda reason: -reason.count)


def _examples(rows: pd.DataFrame) -> list[tuple[str, str]]:
    first = rows.head(EXAMPLES)
    return list(zip(first["source"], first["detail"], strict=True))
