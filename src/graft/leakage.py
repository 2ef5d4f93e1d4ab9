"""One picture or one group in two places: which of them goes, and the gate that nothing passes that would leak."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graft.splits import HELD_OUT, SplitError, texts

if TYPE_CHECKING:
    from graft.duplicates import Duplicates


def resolve_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Why a row must not be used although its image is readable: another row has the same bytes.

    Of copies under one label the most held-out one stays (test over validation over train), so that no image is trained
    on and tested on; of copies under two labels none stays, for nobody can say which label is right, and none of copies
    in two groups, for the image would be in both. The one that stays is in the group that any of its copies names.

    Args:
        rows: image_id, label, split (or None), group (or None) and source; the index names each row once.

    Returns:
        The columns reason and detail (both None where the row stays) and group, in the order of rows, with its index.
    """
    rank = rows["split"].map({split: place for place, split in enumerate(HELD_OUT)}).fillna(len(HELD_OUT))
    ordered = rows.assign(rank=rank).sort_values(["rank", "source"], kind="stable")
    copies = ordered[ordered.duplicated("image_id", keep=False)]
    same = copies.groupby("image_id")
    conflicting = same["label"].transform("nunique") > 1
    torn = (same["group"].transform("nunique") > 1) & ~conflicting
    labels = copies[conflicting].groupby("image_id")["label"].transform(_listed)
    groups = copies[torn].groupby("image_id")["group"].transform(_listed)
    first = same["source"].transform("first")[copies.duplicated("image_id") & ~conflicting & ~torn]
    verdict = _no_verdict(rows).assign(group=texts(rows["group"]))
    verdict.loc[copies.index, "group"] = texts(same["group"].transform("first"))
    verdict.loc[groups.index, "reason"] = "conflicting-group"
    verdict.loc[groups.index, "detail"] = "the same bytes stand in the groups " + groups.astype(object)
    verdict.loc[labels.index, "reason"] = "conflicting-label"
    verdict.loc[labels.index, "detail"] = "the same bytes stand under " + labels.astype(object)
    verdict.loc[first.index, "reason"] = "duplicate"
    verdict.loc[first.index, "detail"] = "the same bytes as " + first.astype(object)
    return verdict


def conflicting_labels(rows: pd.DataFrame, duplicates: Duplicates) -> pd.DataFrame:
    """Why a row must not be used although its bytes are its own: the same picture stands under another label.

    Of a star with two labels no image stays; of a bridge between two labels neither the ends stay nor the images with
    their pixels.

    Args:
        rows: label, pixel_id and source.
        duplicates: of these rows.

    Returns:
        The columns reason and detail in the order of rows, with its index; both None where the row stays.
    """
    labels, pixels = (pd.factorize(rows[column])[0] for column in ("label", "pixel_id"))
    ends = duplicates.bridges[labels[duplicates.bridges[:, 0]] != labels[duplicates.bridges[:, 1]]]
    others = [
        _other_label(pixels, labels),
        _other_label(duplicates.leader, labels),
        _across(ends, pixels, np.arange(len(rows))),
    ]
    places = rows["source"].to_numpy(object) + " under " + rows["label"].to_numpy(object)
    verdict = _no_verdict(rows)
    for other in others:
        named = verdict["reason"].isna().to_numpy() & (other < len(rows))
        verdict.loc[named, "reason"] = "conflicting-label"
        verdict.loc[named, "detail"] = "the same picture as " + places[other[named]]
    return verdict


def keep_rows(duplicates: Duplicates, kept: np.ndarray) -> Duplicates:
    """The duplicates among some of the rows, renumbered; a star whose leader goes is led by its first image left.

    Args:
        duplicates: of n rows.
        kept: bool, of shape (n,); images with the same pixels must be kept together, for one of them holds the bridges.
    """
    number = np.cumsum(kept) - 1
    bridges = duplicates.bridges[kept[duplicates.bridges].all(axis=1)]
    return replace(duplicates, leader=number[_first(duplicates.leader, kept)[kept]], bridges=number[bridges])


def drop_straddling(rows: pd.DataFrame, splits: np.ndarray, duplicates: Duplicates) -> pd.DataFrame:
    """Why a row must not be used in the split that it has: what it shows is in a more held-out split too.

    Whatever is linked to a test image (by its group, its star, its pixels, or a bridge to its pixels) leaves validation
    and training; then what is linked to a validation image that is left leaves training. So test images always stay,
    the rows' order does not matter, and an image that is itself dropped drops no other. No link is followed further:
    A like B and B like C do not make A like C, and in a large set such chains of small differences would tie most of
    the images together. Nor is it needed: the gate asks for pairs, and every pair across two splits has lost one.

    Args:
        rows: group (or None), pixel_id and source.
        splits: of shape (n,); an image with None neither drops another nor is dropped.
        duplicates: of these rows.

    Returns:
        The columns reason and detail in the order of rows, with its index; both None where the row stays.
    """
    groups, pixels = (pd.factorize(rows[column])[0] for column in ("group", "pixel_id"))
    sources, left = rows["source"].to_numpy(object), splits.copy()
    verdict = _no_verdict(rows)
    for winner, losers in (("test", ["validation", "train"]), ("validation", ["train"])):
        won = left == winner
        alike = _first(pixels, won)
        links = [
            ("leaked-copy", "the same pixels as ", alike),
            ("leaked-copy", "the same picture as ", _first(duplicates.leader, won)),
            ("leaked-copy", "the same picture as ", _across(duplicates.bridges, pixels, alike)),
            ("split-group", "of one group with ", _first(groups, won)),
        ]
        for reason, relation, other in links:
            lost = np.isin(left, losers) & (other < len(rows))
            verdict.loc[lost, "reason"] = reason
            verdict.loc[lost, "detail"] = relation + sources[other[lost]] + f" in {winner}"
            left[lost] = None
    return verdict


def check_no_leak(rows: pd.DataFrame, splits: np.ndarray, duplicates: Duplicates) -> None:
    """Refuse splits of which two hold images of one group, of one star, of the same pixels, or joined by a bridge.

    This shares no code with `drop_straddling`, whose work it checks.

    Args:
        rows: group (or None), pixel_id and source.
        splits: of shape (n,); images with None are in no split.
        duplicates: of these rows.

    Raises:
        SplitError: names two images that are apart and must not be.
    """
    frame = pd.DataFrame(
        {
            "split": splits,
            "source": rows["source"].to_numpy(object),
            "the same pixels": rows["pixel_id"].to_numpy(object),
            "one picture": duplicates.leader,
            "one group": texts(rows["group"]),
        }
    )
    used = frame[frame["split"].notna()]
    for relation in ("the same pixels", "one picture", "one group"):
        first = used[used[relation].notna()].drop_duplicates([relation, "split"])
        pairs = first[first.duplicated(relation, keep=False)].sort_values(relation, kind="stable")
        if len(pairs):
            raise _leak(pairs.iloc[0], pairs.iloc[1], relation)
    standing = used.drop_duplicates("the same pixels").set_index("the same pixels")  # for an end that is itself unused
    near, far = (standing.reindex(frame["the same pixels"].iloc[ends]) for ends in duplicates.bridges.T)
    apart = near["split"].notna().to_numpy() & far["split"].notna().to_numpy()
    apart &= near["split"].to_numpy() != far["split"].to_numpy()
    for place in np.flatnonzero(apart):
        raise _leak(near.iloc[place], far.iloc[place], "one picture")


def _leak(one: pd.Series, other: pd.Series, relation: str) -> SplitError:
    return SplitError(
        f"{one['source']} is in {one['split']} and {other['source']} in {other['split']}, "
        f"although both are of {relation}; this is a fault of the prepare stage, not of the images"
    )


def _listed(names: pd.Series) -> str:
    return ", ".join(sorted(set(names.dropna())))


def _no_verdict(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"reason": None, "detail": None}, index=rows.index, dtype=object)


def _first(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The first of some rows that has each row's key, of shape (n,); n where there is none or the row has no key.

    Args:
        keys: int, of shape (n,), from 0; -1 for none.
        among: bool, of shape (n,).
    """
    none = len(keys)
    first = np.full(none + 1, none)  # a place more: where the key -1 leads
    np.minimum.at(first, keys[among], np.flatnonzero(among))
    first[-1] = none
    return first[keys]


def _other_label(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The first row that has each row's key and another label, of shape (n,); n where there is none."""
    first = _first(keys, np.full(len(keys), True))
    foreign = labels != labels[first]
    return np.where(foreign, first, _first(keys, foreign))


def _across(bridges: np.ndarray, pixels: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The first row that a bridge leads to from an image with each row's pixels, of shape (n,); n where none does.

    Args:
        bridges: row numbers, of shape (m, 2).
        pixels: int, of shape (n,), from 0, equal for equal pixels.
        to: what each row is as the far end of a bridge: a row number, or n for none; of shape (n,).
    """
    reached = np.full(len(pixels), len(pixels))
    for near, far in (bridges.T, bridges.T[::-1]):
        np.minimum.at(reached, pixels[near], to[far])
    return reached[pixels]
