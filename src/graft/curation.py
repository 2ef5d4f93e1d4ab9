"""Which of a collection's images are used, and in which split; what is not used is quarantined with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graft.collection import QUARANTINE_COLUMNS, Collection, Stored
from graft.duplicates import Duplicates, find_duplicates
from graft.leakage import check_no_leak, conflicting_labels, drop_straddling, keep_rows, resolve_copies
from graft.sections import Data
from graft.splits import assign_splits, cap_training

PARTS = ("train", "validation", "test", "unused", "quarantined")


@dataclass(frozen=True)
class Curated:
    """Every readable image, byte-identical files as one, and what became of it.

    Attributes:
        rows: the collection's columns, ordered by image_id so that no renamed file changes anything; `reason` and
            `detail` where an image is quarantined although it is readable.
        splits: of shape (n,): train, validation, test, or None for an image that is not used.
        duplicates: of these rows.
    """

    rows: pd.DataFrame
    splits: np.ndarray
    duplicates: Duplicates

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that are not quarantined; whether or not they are used."""
        return self.rows[self.rows["reason"].isna()]

    @property
    def usable_groups(self) -> int:
        """How many groups the usable images are in; one that is like no other is a group of its own."""
        return len(set(self.groups[self.rows["reason"].isna()]))

    @property
    def groups(self) -> np.ndarray:
        """What each image belongs to, of shape (n,): its source's group, else the image that leads its copies."""
        leaders = self.rows["image_id"].to_numpy(object)[self.duplicates.leader]
        return np.where(self.rows["group"].notna(), "group:" + self.rows["group"].astype(str), leaders)


def find_copies(collection: Collection, data: Data) -> tuple[Curated, pd.DataFrame]:
    """The readable images without byte-identical copies and without pictures that stand under two labels.

    Returns:
        The images, all of them without a split yet; and the quarantine so far, by source.
    """
    readable = collection.rows[collection.rows["reason"].isna()]
    verdict = resolve_copies(readable)
    copies = _with_verdict(readable.assign(group=verdict["group"]), verdict)
    # Images that stand under two labels stay in the search: what shows the same must not stay under either.
    rows = copies[copies["reason"] != "duplicate"].sort_values(["image_id", "source"], ignore_index=True)
    positions = rows["position"].to_numpy(int)
    duplicates = find_duplicates(
        rows["pixel_id"].to_numpy(),
        collection.hashes[positions],
        Reordered(collection.thumbnails, positions),
        distance=data.near_duplicates.distance,
        correlation=data.near_duplicates.correlation,
    )
    known = rows[["reason", "detail"]]
    rows = _with_verdict(rows, known.where(known["reason"].notna(), conflicting_labels(rows, duplicates)))
    unreadable = collection.rows[collection.rows["reason"].notna()]
    quarantine = _quarantine(collection.rejects, unreadable, copies[copies["reason"] == "duplicate"], rows)
    return Curated(rows, np.full(len(rows), None, object), duplicates), quarantine


def divide(found: Curated, data: Data, seed: int) -> tuple[Curated, pd.DataFrame]:
    """The same images in splits, copies that would leak dropped and training capped, the gate passed.

    Returns:
        The images with their splits, of which a class may be absent from one now; and the rows quarantined here.

    Raises:
        SplitError: the source does not give what the strategy needs, or a class would be absent from a split.
    """
    kept = found.rows["reason"].isna().to_numpy()
    rows, duplicates = found.rows[kept].reset_index(drop=True), keep_rows(found.duplicates, kept)
    splits, order = assign_splits(rows, duplicates, data, seed)
    verdict = drop_straddling(rows, splits, duplicates)
    splits[verdict["reason"].notna()] = None
    splits = cap_training(rows["label"].to_numpy(object), splits, order, data.train_per_class)
    check_no_leak(rows, splits, duplicates)
    everything, final = found.rows.copy(), found.splits.copy()
    everything.loc[kept, ["reason", "detail"]] = verdict[["reason", "detail"]].to_numpy(object)
    final[kept] = splits
    return Curated(everything, final, found.duplicates), _quarantine(_with_verdict(rows, verdict))


def count(curated: Curated, quarantine: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row per class with its number of images in each of PARTS."""
    usable = curated.rows["reason"].isna().to_numpy()
    splits = pd.Series(curated.splits[usable], dtype=object).fillna("unused")
    labels = curated.rows["label"].to_numpy(object)[usable]
    parts = pd.concat(
        [
            pd.DataFrame({"label": labels, "part": splits}),
            pd.DataFrame({"label": quarantine["label"], "part": "quarantined"}),
        ]
    )
    counts = pd.crosstab(parts["label"], parts["part"])
    return counts.reindex(index=list(classes), columns=list(PARTS), fill_value=0).reset_index(names="label")


class Reordered:
    """Rows of an array in another order, fetched as they are asked for."""

    def __init__(self, array: np.ndarray | Stored, order: np.ndarray) -> None:
        self._array, self._order = array, order

    def __len__(self) -> int:
        return len(self._order)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self), *self._array.shape[1:])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of the asked rows, in the asked order."""
        return np.asarray(self._array[self._order[rows]])


def _with_verdict(rows: pd.DataFrame, verdict: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(reason=verdict["reason"], detail=verdict["detail"])


def _quarantine(*parts: pd.DataFrame) -> pd.DataFrame:
    """The rows with a reason, by source."""
    bad = [part.loc[part["reason"].notna(), list(QUARANTINE_COLUMNS)].astype(object) for part in parts]
    return pd.concat(bad, ignore_index=True).sort_values("source", kind="stable", ignore_index=True)
