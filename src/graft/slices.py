"""Slices of the images: parts that have something in common, and whether a model is worse on one than elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from graft.attributes import TABLE, as_number
from graft.comparison_sections import Compare
from graft.design_effects import design_effect, intraclass_correlation
from graft.evaluation import METRICS, evaluate
from graft.intervals import wilson_interval
from graft.significance import holm
from graft.storage import ArtifactError

BY_VALUE = 10  # different numbers, of which each is a slice; more are cut into quarters
MOST_VALUES = 30  # slices of a text column; the rarer values are gathered
MOST_GROUPS = 50
FEWEST = 5  # images of a group, of a value that is not gathered, and of a slice that is tested
MEASURED = 60  # slices with every metric, the worst; of the others accuracy alone, so that thousands take seconds
OF_ONE_CLASS = ("accuracy", "log_loss", "brier", "top_k_accuracy", "calibration_error")  # the others compare classes
LARGEST_SQUARE = 1.1  # longer by shorter side
GROUP, SOURCE_GROUP = "group", "group:"
QUARTERS = {
    "brightness": ("darkest", "second darkest", "second brightest", "brightest"),
    "image size": ("smallest", "second smallest", "second largest", "largest"),
    "": ("lowest", "second lowest", "second highest", "highest"),
}
ENDS = {"value": "", "low": "_low", "high": "_high"}
ACCURACY = ("accuracy", "accuracy_low", "accuracy_high")
AGAINST_REST = ("n", "share", *ACCURACY, "rest_accuracy", "difference", "p_value")


def slice_table(rows: pd.DataFrame, attributes: pd.DataFrame) -> pd.DataFrame:
    """The slices that each image is in: one column per way of slicing, with names for people.

    The ways: class; group (the source's, with FEWEST images, the MOST_GROUPS largest); image size (shorter side) and
    brightness; shape; and each column of a table. Numbers with more than BY_VALUE different values are cut into
    quarters of these images, texts into their MOST_VALUES most frequent values with FEWEST images each, and "other".
    What says the same of every image is left out, and so are whole numbers that differ everywhere, such as row numbers.

    Args:
        rows: of the manifest, for the images that are measured.
        attributes: of the same images, as attributes.read_attributes.

    Returns:
        Of shape (n, ways), in the order of rows; None where an image is in no slice of that way.

    Raises:
        ArtifactError: rows and attributes are of different images.
    """
    if not np.array_equal(rows["image_id"].to_numpy(object), attributes["image_id"].to_numpy(object)):
        raise ArtifactError("slices need the attributes of the measured images, received those of others")
    width, height = (rows[side].to_numpy(float) for side in ("width", "height"))
    ways = {
        "class": rows["label"].to_numpy(object),
        GROUP: _groups(rows["group"]),
        "image size": _numbers(np.minimum(width, height), "image size", "shorter side {} px"),
        "shape": _shapes(width, height),
        "brightness": _numbers(attributes["brightness"].to_numpy(float).round(), "brightness"),
    }
    for column in attributes.columns[attributes.columns.str.startswith(TABLE)]:
        name = column.removeprefix(TABLE)
        ways[f"{name} (table)" if name in ways else name] = _column(attributes[column])
    telling = {name: values for name, values in ways.items() if len(set(values)) > 1}
    return pd.DataFrame(telling, index=range(len(rows)), dtype=object)  # so many rows also where no way tells anything


def evaluate_slices(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    memberships: pd.DataFrame,
    groups: np.ndarray | None,
    settings: Compare,
    seed: int,
) -> pd.DataFrame:
    """What a model achieves on each slice, and whether that is less than on all other images; the worst first.

    A slice of FEWEST images or more is tested against the rest by Fisher's exact test of right and wrong predictions,
    two-sided; of fewer images an error says more of the image than of the slice. Where images come in groups, their
    predictions are alike, and the counts are first divided by the design effect of each side: the variance inflation
    that their intraclass correlation causes (Donner and Klar 2000; Rao and Scott 1992). In simulations with 25 to 40
    groups this held an error of 5 % that otherwise rose to 44 %. The slice of a group asks about that group alone, so
    there each image counts. Holm's correction is over all questions: a slice and the rest of it are one.

    Args:
        labels: actual class numbers (n,).
        probabilities: of shape (n, classes).
        classes: names by class number.
        memberships: of the same images, as slice_table.
        groups: names (n,), or None where every image is its own.
        settings: confidence, resamples and what else evaluation.evaluate needs.
        seed: of the resampling.

    Returns:
        One row per slice: slice, value (of that way of slicing), n, share (of all images), each of METRICS with _low
        and _high (NaN where it is undefined or was not measured), rest_accuracy, difference (accuracy minus
        rest_accuracy), p_value and p_adjusted (NaN where it is not tested), and worse: whether accuracy is
        significantly lower than elsewhere. Those come first, then by accuracy_high.

    Raises:
        ArtifactError: the memberships are of other images.
    """
    actual = np.asarray(classes, object)[labels]
    if len(memberships) != len(labels) or not np.array_equal(memberships.get("class", actual), actual):
        raise ArtifactError("slices and predictions are of different images")
    members = _members(memberships)
    table = _test(members, probabilities.argmax(axis=1) == labels, groups, settings)
    metrics = [f"{metric}{end}" for metric in METRICS for end in ENDS.values()]
    last = ["rest_accuracy", "difference", "p_value", "p_adjusted", "worse"]
    table = table.reindex(columns=["slice", "value", "n", "share", *metrics, *last])
    measured = {}
    for place in _worst_first(table)[:MEASURED]:
        way, _, inside = members[place]
        within = None if groups is None or way == GROUP else groups[inside]
        measured[place] = _measure(labels[inside], probabilities[inside], within, settings, seed)
    table.update(pd.DataFrame.from_dict(measured, orient="index"))
    return table.loc[_worst_first(table)].reset_index(drop=True)


def _members(memberships: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """Way, value and bool (n,) of every slice that has a rest."""
    found = []
    for way in memberships.columns:
        values = memberships[way].to_numpy(object)
        for value in sorted({value for value in values if value is not None}):
            inside = values == value
            if not inside.all():
                found.append((way, value, inside))
    return found


def _test(
    members: list[tuple[str, str, np.ndarray]], right: np.ndarray, groups: np.ndarray | None, settings: Compare
) -> pd.DataFrame:
    """The slices' columns that need no probabilities: AGAINST_REST, and what Holm's correction makes of them."""
    numbers = np.arange(len(right)) if groups is None else pd.factorize(groups)[0]
    correlation = intraclass_correlation(right, numbers)
    rows = [
        {"slice": way, "value": value}
        | _against_rest(right, inside, numbers, 0 if way == GROUP else correlation, settings)
        for way, value, inside in members
    ]
    table = pd.DataFrame(rows, columns=["slice", "value", *AGAINST_REST])
    tested = table["n"] >= FEWEST
    table["p_value"] = table["p_value"].where(tested)
    # A slice and the rest of it, or one by two names, are one question; asked twice, it would count against the others.
    question = pd.Series([(inside if inside[0] else ~inside).tobytes() for _, _, inside in members], dtype=object)
    asked = table["p_value"][tested].groupby(question[tested]).first()
    adjusted = dict(zip(asked.index, holm(asked.to_numpy(float)), strict=True))
    table["p_adjusted"] = question.map(adjusted).where(tested).astype(float)
    table["worse"] = (table["p_adjusted"] < 1 - settings.confidence) & (table["difference"] < 0)
    return table


def _against_rest(
    right: np.ndarray, inside: np.ndarray, groups: np.ndarray, correlation: float, settings: Compare
) -> dict[str, float]:
    """The columns AGAINST_REST of a slice, the interval being Wilson's."""
    sizes, hits = [], []
    for part in (inside, ~inside):
        effect = design_effect(groups[part], correlation)
        sizes.append(part.sum() / effect)
        hits.append(right[part].sum() / effect)
    low, high = wilson_interval(hits[0], sizes[0], settings.confidence)
    accuracy, rest = float(right[inside].mean()), float(right[~inside].mean())
    counts = np.round([hits, np.subtract(sizes, hits)]).astype(int)
    return {
        "n": int(inside.sum()),
        "share": float(inside.mean()),
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "rest_accuracy": rest,
        "difference": accuracy - rest,
        "p_value": float(fisher_exact(counts).pvalue),
    }


def _measure(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None, settings: Compare, seed: int
) -> dict[str, float]:
    metrics = METRICS if len(np.unique(labels)) > 1 else OF_ONE_CLASS
    measured = evaluate(labels, probabilities, groups, settings, seed, metrics=metrics)
    rows = measured.loc[list(metrics), list(ENDS)].to_numpy(float)
    columns = [f"{metric}{end}" for metric in metrics for end in ENDS.values()]
    return dict(zip(columns, rows.ravel().tolist(), strict=True))


def _worst_first(table: pd.DataFrame) -> list[int]:
    order = table.assign(better=~table["worse"]).sort_values(["better", "accuracy_high", "slice", "value"])
    return order.index.tolist()


def _groups(groups: pd.Series) -> np.ndarray:
    """The names that the source gives to large groups; None elsewhere, also for images that are like others."""
    counts = Counter(name for name in groups if name.startswith(SOURCE_GROUP))
    large = sorted((name for name, n in counts.items() if n >= FEWEST), key=lambda name: (-counts[name], name))
    kept = set(large[:MOST_GROUPS])
    return np.array([name.removeprefix(SOURCE_GROUP) if name in kept else None for name in groups], object)


def _shapes(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    shapes = np.where(width > height, "landscape", "portrait").astype(object)
    shapes[np.maximum(width, height) <= LARGEST_SQUARE * np.minimum(width, height)] = "square or nearly"
    return shapes


def _column(values: pd.Series) -> np.ndarray:
    """The slices of a table's column (n,), of which one may be "missing"."""
    texts = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
    numbers = [as_number(text) for text in texts]
    if None in numbers:
        return _frequent(np.where(texts == "", "missing", texts))
    found = np.array(numbers, float)
    known = ~np.isnan(found)
    distinct = len(np.unique(found[known]))
    slices = np.full(len(texts), "missing", object)
    if distinct <= BY_VALUE:
        slices[known] = texts[known]  # as written: 007
        return _frequent(slices)
    if distinct == known.sum() and (found[known] == found[known].round()).all():
        return np.full(len(texts), None)
    slices[known] = _numbers(found[known], "")
    return slices


def _frequent(values: np.ndarray) -> np.ndarray:
    """The frequent values (n,), and "other" for the rest."""
    names, places, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    order = np.lexsort((np.arange(len(names)), -counts))[:MOST_VALUES]
    kept = np.isin(np.arange(len(names)), order) & (counts >= FEWEST)
    return np.where(kept[places], values, "other")


def _numbers(values: np.ndarray, way: str, wording: str = "{}") -> np.ndarray:
    """A slice for each number (n,), or quarters of the images where there are many different ones."""
    distinct = np.unique(values)
    if len(distinct) <= BY_VALUE:
        return np.array([wording.format(_figure(value)) for value in values], object)
    edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75)))
    parts = np.searchsorted(edges, values)  # a value on an edge belongs to the part below
    found = np.unique(parts)
    slices = np.empty(len(values), object)
    for part in found:
        chosen = values[parts == part]
        span = dict.fromkeys(_figure(value) for value in (chosen.min(), chosen.max()))
        name = wording.format(" to ".join(span))
        slices[parts == part] = f"{QUARTERS[way][part]} quarter ({name})" if len(found) == 4 else name
    return slices


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"
