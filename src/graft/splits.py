"""Which image serves training, validation or test: the strategies of data.split, and the cap on training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graft.drawing import Units, deal, draw, draw_by_hash, draw_order, group_units
from graft.errors import GraftError
from graft.sections import Data

if TYPE_CHECKING:
    from graft.duplicates import Duplicates

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


def texts(column: pd.Series) -> np.ndarray:
    """A column of optional texts, of shape (n,), with None for each missing one, where pandas may hold NaN."""
    return column.astype(object).where(column.notna(), None).to_numpy()


def unit_names(rows: pd.DataFrame, duplicates: Duplicates) -> np.ndarray:
    """What each image is drawn with, of shape (n,): its source's group, else its star of near-duplicates.

    Args:
        rows: group (or None).
        duplicates: of these rows.
    """
    pairs = zip(texts(rows["group"]), duplicates.leader, strict=True)
    return np.array([f"star:{leader}" if group is None else f"group:{group}" for group, leader in pairs], object)


def assign_splits(rows: pd.DataFrame, duplicates: Duplicates, data: Data, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The split of each image by the strategy data.split, before straddling copies are dropped and training is capped.

    * stratified: the source's splits are ignored; the fractions of each class's images are drawn, units as a whole.
      Each class is drawn on its own, so that a new class moves no image of the others.
    * group: the same, but the fractions are of units. Where that leaves a class absent from a split (of units with
      several classes), the units of all classes are drawn together.
    * hash: the name of an image's group, or its pixels where it has none, alone decide, so that no image ever moves
      when others come or go or the seed changes. Stars do not count, for a new image may change them. The fractions
      hold on average only.
    * predefined: the source's splits stay. One that it lacks is drawn from its other images as under stratified,
      though not from units of which an image is held out already.
    * kfold: a test split that the source gives stays, else the test images are those of stratified. All others are
      dealt into folds, of which one validates; the test images do not depend on the fold.

    Args:
        rows: label, split (the source's own, or None), group (or None) and pixel_id, in an order that does not depend
            on the files' order, such as by image id.
        duplicates: of these rows.
        data: its split, validation, test, folds and fold are read.
        seed: of the draws.

    Returns:
        The split of each image, of shape (n,): train, validation, test, or None for an image that is not used; and its
        place, of shape (n,), in the order in which `cap_training` keeps the images of a class.

    Raises:
        SplitError: the source does not give what the strategy needs, or a class would be absent from a split.
    """
    labels, names = rows["label"].to_numpy(object), unit_names(rows, duplicates)
    grouped = rows["group"].notna().to_numpy()
    if data.split == "group" and not grouped.any():
        raise SplitError(
            "data.split is group, but the source gives no image a group; "
            "name the column in data.table.group, or choose stratified, hash or kfold"
        )
    if data.split == "hash":
        names = np.where(grouped, names, rows["pixel_id"].to_numpy(object))
        splits, places = draw_by_hash(names, _fractions(data))
        order = draw_order(labels, names, places)
    else:
        splits, order = _drawn(labels, names, texts(rows["split"]), data, seed)
    check_classes(labels, splits, data)
    return splits, order


def stratified_split(labels: np.ndarray, validation: float, seed: int) -> np.ndarray:
    """Train or validation for each image, of shape (n,): each class drawn on its own, each image for itself.

    Raises:
        SplitError: a class would be absent from a split.
    """
    names = np.asarray(labels, object)
    splits, _ = draw(Units(np.arange(len(names)), names, np.ones(len(names), int)), {"validation": validation}, seed)
    _refuse("split", _faults(names, splits, ("train", "validation")))
    return splits


def cap_training(labels: np.ndarray, splits: np.ndarray, order: np.ndarray, most: int | None) -> np.ndarray:
    """The splits, of shape (n,), with at most so many training images of each class; the others become None.

    Args:
        labels: of shape (n,).
        splits: of shape (n,), after straddling copies were dropped.
        order: of shape (n,), from `assign_splits`; the first are kept. A unit's second image of a class comes after
            the first of every unit, so that few images show as many units as possible.
        most: None keeps all.
    """
    capped = splits.copy()
    if most is not None:
        train = np.flatnonzero(splits == "train")
        train = train[np.argsort(order[train], kind="stable")]
        names = pd.Series(np.asarray(labels, object)[train])
        capped[train[(names.groupby(names).cumcount() >= most).to_numpy()]] = None
    return capped


def check_classes(labels: np.ndarray, splits: np.ndarray, data: Data) -> None:
    """Refuse splits from which a class is absent; worth asking again after straddling copies were dropped.

    Args:
        labels: of shape (n,).
        splits: of shape (n,).
        data: says which splits there must be, and what can be done.

    Raises:
        SplitError: names each such class with its number of images in every split.
    """
    _refuse("split", _faults(np.asarray(labels, object), splits, ("train", *_fractions(data))), data)


def training_counts(counts: Counter[tuple[str | None, str]], data: Data, seed: int) -> dict[str, int]:
    """How many training images each class would have if every listed file were usable and no two alike.

    Args:
        counts: the number of files by the source's own split (None where it has none) and class.
        data: how they are split and capped.
        seed: of the draws.

    Returns:
        The number by class; empty for the strategies group and hash, of which a listing says nothing.

    Raises:
        SplitError: a class would be absent from a split.
    """
    if data.split in ("group", "hash"):
        return {}
    given, labels = np.array(sorted(counts.elements(), key=str), object).reshape(-1, 2).T
    splits, order = _drawn(labels, np.arange(len(labels)), given, data, seed)
    check_classes(labels, splits, data)
    capped = cap_training(labels, splits, order, data.train_per_class)
    return dict(Counter(labels[capped == "train"].tolist()))


def _fractions(data: Data) -> dict[str, float]:
    """The fraction of each held-out split, in the order in which they are drawn."""
    return {"validation": data.validation} | ({} if data.test == "none" else {"test": data.test})


def _drawn(
    labels: np.ndarray, names: np.ndarray, given: np.ndarray, data: Data, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The splits and the order of every strategy that draws: what the source gives may stay, the rest is drawn."""
    splits, pool, fractions = _as_given(given, data)
    bound = pool & pd.Series(names).isin(names[pd.notna(splits)]).to_numpy()  # held out, they would straddle
    free = np.flatnonzero(pool & ~bound)
    units = group_units(labels[free], names[free])
    if data.split == "group":
        drawn, places = _draw_groups(labels[free], units, fractions, seed)
    else:
        drawn, places = draw(units, fractions, seed)
    splits[bound], splits[free] = "train", drawn[units.of]
    order = np.full(len(labels), len(labels))
    order[free] = draw_order(labels[free], units.of, places[units.of])
    if data.split == "kfold":
        rest = splits[free] != "test"
        folds = _folds(labels[free[rest]], units.of[rest], places, data, seed)
        splits[free[rest]] = np.where(folds == data.fold, "validation", "train")
    return splits, order


def _as_given(given: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The splits that stay as the source gives them, the images to draw from, and the fractions to draw of these."""
    fractions, splits = _fractions(data), np.full(len(given), None, object)
    if data.split == "predefined":
        if not any(given):
            raise SplitError(
                "data.split is predefined, but the source gives no image a split; "
                "choose stratified, group, hash or kfold"
            )
        stays = np.isin(given, list(fractions))
        splits[stays] = given[stays]
        missing = carved(set(given), "test" in fractions)
        return splits, ~np.isin(given, HELD_OUT), {split: fractions[split] for split in missing}
    if data.split == "kfold" and "test" in given:
        splits[given == "test"] = "test" if "test" in fractions else None
        return splits, given != "test", {}
    return splits, np.full(len(given), True), fractions


def _draw_groups(
    labels: np.ndarray, units: Units, fractions: Mapping[str, float], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of the units, within their most frequent classes where that leaves every class in every split."""
    alike = replace(units, size=np.ones_like(units.size))
    drawn, places = draw(alike, fractions, seed)
    if _faults(labels, drawn[units.of], ("train", *fractions)):
        drawn, places = draw(replace(alike, stratum=np.full(len(units.size), "")), fractions, seed)
    return drawn, places


def _folds(labels: np.ndarray, of: np.ndarray, places: np.ndarray, data: Data, seed: int) -> np.ndarray:
    """The fold of each image, of which each must hold every class, so that no fold fails after others were trained."""
    folds = deal(labels, of, places, data.folds, seed)
    reached = pd.Series(folds).groupby(labels).nunique()
    faults = [f"class {name!r} is in {count} of {data.folds}" for name, count in reached.items() if count < data.folds]
    _refuse("fold", faults, data)
    return folds


def _faults(labels: np.ndarray, splits: np.ndarray, wanted: Sequence[str]) -> list[str]:
    """Each class that is absent from a split, with its counts."""
    counts = pd.crosstab(labels, pd.Series(splits).fillna("unused")).reindex(columns=list(wanted), fill_value=0)
    return [
        f"class {name!r} has " + ", ".join(f"{count} {split}" for split, count in row.items())
        for name, row in counts[(counts == 0).any(axis=1)].iterrows()
    ]


def _refuse(part: str, faults: Sequence[str], data: Data | None = None) -> None:
    """Raise SplitError where there are faults, with what can be done under the strategy."""
    hints = {
        "group": "groups are drawn as a whole, so that a class needs images in several; another seed draws others",
        "hash": "the fractions of data.split hash hold on average only; choose stratified",
        "kfold": "a class needs at least as many images as data.folds, copies and groups counted once",
    }
    if faults:
        hint = [hints[data.split]] if data and data.split in hints else []
        raise SplitError("; ".join([f"every class needs an image in every {part}", *faults, *hint]))
