"""Seeded draws of units: images that are drawn as a whole, each class on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Units:
    """What is drawn as a whole.

    Attributes:
        of: the unit of each image, of shape (n,), numbered from 0.
        stratum: the class of each unit, of shape (units,): its most frequent one, of several the first by name.
        size: how much each unit counts, of shape (units,).
    """

    of: np.ndarray
    stratum: np.ndarray
    size: np.ndarray


def group_units(labels: np.ndarray, keys: np.ndarray) -> Units:
    """Units of the images that share a key, numbered by first appearance; each counts its images.

    Args:
        labels: of shape (n,).
        keys: of shape (n,).
    """
    of, _ = pd.factorize(keys)
    counts = _class_counts(labels, of).sort_values(["unit", "count", "label"], ascending=[True, False, True])
    return Units(of, counts.drop_duplicates("unit")["label"].to_numpy(object), np.bincount(of))


def draw(units: Units, fractions: Mapping[str, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A split for each unit, from a permutation of each stratum's units that depends on its name and the seed.

    A fraction is rounded to so many images, at least one. The permuted units fill the splits in turn: a unit goes to
    the first that it brings nearer to its fraction, else to training. The last ones go where a split would stay empty.

    Args:
        units: to be drawn.
        fractions: of the splits besides training, in the order in which they are filled.
        seed: of the permutations.

    Returns:
        The split and the place in its stratum's permutation of each unit, both of shape (units,).
    """
    splits, places = np.full(len(units.size), None, object), np.zeros(len(units.size), int)
    for name, members in pd.Series(np.arange(len(splits))).groupby(units.stratum).indices.items():
        permuted = np.random.default_rng([seed, *str(name).encode()]).permutation(np.asarray(members))
        sizes = units.size[permuted].tolist()
        targets = dict(zip(fractions, _targets(sum(sizes), list(fractions.values())), strict=True))
        splits[permuted] = _fill(sizes, targets)
        places[permuted] = np.arange(len(permuted))
    return splits, places


def _targets(images: int, fractions: Sequence[float]) -> list[int]:
    """How many images each fraction draws: rounded, at least one, and at least one image left where possible."""
    sizes = [max(1, round(fraction * images)) for fraction in fractions]
    while sum(sizes) >= images and max(sizes, default=0) > 1:
        sizes[int(np.argmax(sizes))] -= 1
    return sizes


def _fill(sizes: Sequence[int], targets: Mapping[str, int]) -> list[str]:
    """The split of each unit, in turn."""
    filled = {**dict.fromkeys(targets, 0), "train": 0}
    result = []
    for index, size in enumerate(sizes):
        empty = [split for split in filled if not filled[split]]
        choice = empty if len(sizes) - index <= len(empty) else list(filled)
        fitting = (split for split in choice if split == "train" or filled[split] + size / 2 <= targets[split])
        split = next(fitting, choice[0])
        filled[split] += size
        result.append(split)
    return result


def draw_by_hash(names: np.ndarray, fractions: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """A split for each name by its place in [0, 1), which its SHA-256 alone decides.

    Args:
        names: of shape (n,).
        fractions: of the splits besides training. The last one's places are lowest, so that it does not depend on the
            fractions before it.

    Returns:
        The splits and the places, both of shape (n,).
    """
    own = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48 for name in set(names)}
    places = np.array([own[name] for name in names])
    splits, lower = np.full(len(names), "train", object), 0.0
    for split in reversed(list(fractions)):
        splits[(places >= lower) & (places < lower + fractions[split])] = split
        lower += fractions[split]
    return splits, places


def deal(labels: np.ndarray, of: np.ndarray, places: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold from 0 for each image, units as a whole: iterative stratification (Sechidis et al., 2011) of units.

    The class with the fewest images is dealt first; its units, the largest first and else by place, each go to the fold
    with the fewest of its images. So a new class moves no image of the others, unless units have several classes;
    scikit-learn's StratifiedGroupKFold would move them all, and takes minutes where there are a million units.

    Args:
        labels: of shape (n,).
        of: the unit of each image, of shape (n,), numbered from 0.
        places: the place of each unit among its stratum's, of shape (units,).
        folds: how many.
        seed: of the choice between equal folds.
    """
    counts = _class_counts(labels, of)
    counts = counts.assign(place=places[counts["unit"]]).sort_values(
        ["count", "place", "unit"], ascending=[False, True, True]
    )
    totals = counts.groupby("label")["count"].sum().reset_index().sort_values(["count", "label"])
    parts = dict(list(counts.groupby("label")))
    fold_of = np.full(len(places), -1)
    for name in totals["label"]:
        members, sizes = parts[name]["unit"].to_numpy(), parts[name]["count"].to_numpy()
        dealt = fold_of[members] >= 0
        held = np.bincount(fold_of[members[dealt]], sizes[dealt], folds).tolist()
        turn = np.random.default_rng([seed, *name.encode()]).permutation(folds).tolist()
        for member, size in zip(members[~dealt].tolist(), sizes[~dealt].tolist(), strict=True):
            fold = min(turn, key=held.__getitem__)
            held[fold] += size
            fold_of[member] = fold
    return fold_of[of]


def draw_order(labels: np.ndarray, of: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rank of each image, of shape (n,): each unit's first image of a class by its place, then each one's second.

    Args:
        labels: of shape (n,).
        of: the unit of each image, of shape (n,).
        places: the place of each image's unit, of shape (n,).
    """
    repeats = pd.DataFrame({"unit": of, "label": labels}).groupby(["unit", "label"]).cumcount().to_numpy()
    order = np.empty(len(labels), int)
    order[np.lexsort((np.arange(len(labels)), places, repeats))] = np.arange(len(labels))
    return order


def _class_counts(labels: np.ndarray, of: np.ndarray) -> pd.DataFrame:
    """The number of images of each unit and class that occur together: unit, label and count."""
    return pd.DataFrame({"unit": of, "label": labels}).value_counts(sort=False).reset_index()
