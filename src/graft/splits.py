"""Which image serves training, validation or test: copies resolved, then a seeded split within each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from graft.errors import GraftError

HELD_OUT = ("test", "validation")


class SplitError(GraftError):
    """The images cannot be split as asked."""


def carved(given: Collection[str | None], test: bool) -> tuple[str, ...]:
    """The splits that must be taken from the training images, where the source gives some of its own.

    Args:
        given: the splits that the source has; None stands for images without one.
        test: whether a test split is wanted.
    """
    wanted = ("validation", "test") if test else ("validation",)
    return tuple(split for split in wanted if split not in given)


def resolve_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Why a row must not be used although its image is readable: another row has the same bytes.

    Of copies under one label the most held-out one stays (test over validation over train), so that no image is trained
    on and tested on; of copies under two labels none stays, for nobody can say which label is right.

    Args:
        rows: image_id, label, split (or None) and source.

    Returns:
        The columns reason and detail in the order of rows, with its index; both None where the row stays.
    """
    rank = rows["split"].map({split: place for place, split in enumerate(HELD_OUT)}).fillna(len(HELD_OUT))
    ordered = rows.assign(rank=rank).sort_values(["rank", "source"], kind="stable")
    copies = ordered[ordered.duplicated("image_id", keep=False)]
    verdict = pd.DataFrame({"reason": None, "detail": None}, index=rows.index, dtype=object)
    for _, same in copies.groupby("image_id"):
        labels = sorted(set(same["label"]))
        if len(labels) > 1:
            spoilt, detail = same.index, f"the same bytes stand under {', '.join(labels)}"
            verdict.loc[spoilt, "reason"] = "conflicting-label"
        else:
            spoilt, detail = same.index[1:], f"the same bytes as {same['source'].iloc[0]}"
            verdict.loc[spoilt, "reason"] = "duplicate"
        verdict.loc[spoilt, "detail"] = detail
    return verdict


def assign_splits(
    labels: Sequence[str],
    given: Sequence[str | None],
    *,
    validation: float,
    test: float | Literal["none"],
    train_per_class: int | None,
    seed: int,
) -> np.ndarray:
    """The split of each image, of shape (n,): train, validation, test, or None for an image that is not used.

    A split that the source has stays as it is. A missing one is drawn from the other images of each class: its fraction
    of them, rounded, at least one. Each class is drawn on its own, so that a new class moves no image of the others.

    Args:
        labels: of shape (n,), in an order that does not depend on the files' order, such as by image id.
        given: the source's own split of each image, or None.
        validation: fraction to draw where the source has no validation images.
        test: the same; "none": no test images, and the source's own go unused.
        train_per_class: training images kept of each class, drawn at random; None keeps all.
        seed: of the draws.

    Raises:
        SplitError: a class would be absent from a split.
    """
    fractions = {"validation": validation} | ({} if test == "none" else {"test": test})
    missing = carved(set(given), test != "none")
    result = np.full(len(labels), None, object)
    faults = []
    for name, members in sorted(_members(labels).items()):
        for split in fractions:
            result[[member for member in members if given[member] == split]] = split
        pool = np.array([member for member in members if given[member] not in HELD_OUT], int)
        pool = np.random.default_rng([seed, *name.encode()]).permutation(pool)
        *drawn, train = np.split(pool, np.cumsum(_sizes(len(pool), [fractions[split] for split in missing]), dtype=int))
        for split, positions in zip(missing, drawn, strict=True):
            result[positions] = split
        result[train[:train_per_class]] = "train"
        counts = {split: int((result[members] == split).sum()) for split in ("train", *fractions)}
        if not all(counts.values()):
            faults.append(f"class {name!r} has " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    if faults:
        raise SplitError(f"every class needs an image in every split; {'; '.join(faults)}")
    return result


def _members(labels: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each label."""
    members = defaultdict(list)
    for position, label in enumerate(labels):
        members[label].append(position)
    return members


def _sizes(images: int, fractions: Sequence[float]) -> list[int]:
    """How many images each fraction draws: rounded, at least one, and at least one image left where possible."""
    sizes = [max(1, round(fraction * images)) for fraction in fractions]
    while sum(sizes) >= images and max(sizes, default=0) > 1:
        sizes[int(np.argmax(sizes))] -= 1
    return sizes
