"""Images to split, and the draw of single images that must never change."""

from collections import Counter

import numpy as np
import pandas as pd

from graft.duplicates import Duplicates
from graft.sections import Data
from graft.splits import assign_splits, cap_training


def data(**changes):
    values = {
        "source": "table",
        "path": "photos",
        "table": {"file": None, "image": "path", "label": "label", "split": None, "group": "group"},
        "image_size": 8,
        "resize": "stretch",
        "min_side": 8,
        "max_pixels": 10_000,
        "max_invalid_fraction": 0.1,
        "near_duplicates": {"distance": 8, "correlation": 0.99},
        "split": "stratified",
        "validation": 0.2,
        "test": 0.2,
        "folds": 5,
        "fold": 0,
        "train_per_class": None,
    }
    return Data(**values | changes)


def stars(leader, bridges=()):
    return Duplicates(np.array(leader, int), np.array(list(bridges), int).reshape(-1, 2))


def split(labels, given=None, groups=None, leader=None, pixels=None, *, seed=1, train_per_class=None, **settings):
    """The splits after the cap, no copy being dropped; each image its own star where no leaders are given."""
    number = len(labels)
    rows = pd.DataFrame(
        {
            "label": labels,
            "split": [None] * number if given is None else given,
            "group": [None] * number if groups is None else groups,
            "pixel_id": [f"{place}" for place in range(number)] if pixels is None else pixels,
        }
    )
    duplicates = stars(range(number) if leader is None else leader)
    splits, order = assign_splits(rows, duplicates, data(**settings), seed)
    return cap_training(rows["label"].to_numpy(), splits, order, train_per_class).tolist()


def counts(labels, splits):
    return {
        name: Counter(split for label, split in zip(labels, splits, strict=True) if label == name)
        for name in sorted(set(labels))
    }


def plain_split(labels, given, *, validation, test, train_per_class, seed):
    """The draw of single images, on which committed results rest."""
    fractions = {"validation": validation} | ({} if test == "none" else {"test": test})
    missing = [split for split in fractions if split not in given]
    result = np.full(len(labels), None, object)
    for name in sorted(set(labels)):
        members = [place for place, label in enumerate(labels) if label == name]
        for split in fractions:
            result[[member for member in members if given[member] == split]] = split
        pool = np.array([member for member in members if given[member] not in ("test", "validation")], int)
        pool = np.random.default_rng([seed, *name.encode()]).permutation(pool)
        sizes = [max(1, round(fractions[split] * len(pool))) for split in missing]
        while sum(sizes) >= len(pool) and max(sizes, default=0) > 1:
            sizes[int(np.argmax(sizes))] -= 1
        *drawn, train = np.split(pool, np.cumsum(sizes, dtype=int))
        for split, positions in zip(missing, drawn, strict=True):
            result[positions] = split
        result[train[:train_per_class]] = "train"
        if not all((result[members] == split).any() for split in ("train", *fractions)):
            return None
    return result.tolist()
