"""Figures of the variants of an ablation of pooling, and their differences on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions
from graft.comparison_sections import Compare
from graft.evaluation import evaluate
from graft.intervals import t_interval
from graft.significance import holm, paired_difference

REFERENCE = "avg"  # the pooling that the others are set against
ENDS = ("", "_low", "_high")
TEXT = ("backbone", "application", "kind", "pooling", "split")
SECONDS = ("train_seconds", "feature_seconds")
AGAINST = (
    *(*(f"difference{end}" for end in ENDS), "p_value", "p_adjusted", "only_this", "only_other"),
    *(f"difference_mean{end}" for end in ENDS),
)
COLUMNS = (
    *("backbone", "application", "kind", "pooling", "hidden_units", "input_size", "map_height", "map_width"),
    *(
        "vector_length",
        "source_accuracy",
        "head_parameters",
        *(f"validation_accuracy{end}" for end in ENDS),
        "n_validation",
    ),
    *(*(f"test_accuracy{end}" for end in ENDS), "n_test", "split"),
    *("repeats", *(f"accuracy_mean{end}" for end in ENDS)),
    *(f"{factor}_{name}" for factor in ("pooling", "hidden") for name in AGAINST),
    *SECONDS,
)


@dataclass(frozen=True)
class Outcome:
    """What was trained, and what came of it.

    Attributes:
        backbone: the row.
        application: of keras.applications.
        kind: finetune or svm.
        pooling: of the last map.
        hidden_units: of the head; 0 without a hidden layer, None for an SVM.
        input_size: px.
        map_shape: height, width and channels of the last map.
        source_accuracy: of the base on the validation images of its source task; None where it was not trained here.
        head_parameters: how many numbers stand behind the base: of a head, or of an SVM.
        predictions: of the held-out images, of each training from a seed of its own.
        train_seconds: of the first training.
        feature_seconds: what its activations cost when they were computed; None where that is not known.
    """

    backbone: str
    application: str
    kind: str
    pooling: str
    hidden_units: int | None
    input_size: int
    map_shape: tuple[int, int, int]
    source_accuracy: float | None
    head_parameters: int
    predictions: Sequence[Predictions]
    train_seconds: float
    feature_seconds: float | None

    @property
    def counterparts(self) -> dict[str, tuple[str, str, str, int | None]]:
        """By factor, what it is set against where that is another outcome: backbone, kind, pooling, hidden units."""
        return {
            "pooling": (self.backbone, self.kind, REFERENCE, self.hidden_units),
            "hidden": (self.backbone, self.kind, self.pooling, 0),
        }

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """As in counterparts, of itself."""
        return self.backbone, self.kind, self.pooling, self.hidden_units


def ablation_table(outcomes: Sequence[Outcome], manifest: Manifest, compare: Compare, seed: int) -> pd.DataFrame:
    """One row per outcome with COLUMNS, in the order given.

    Accuracies have the interval of evaluation.evaluate. `pooling_difference` is the accuracy of the row less that of
    the row with the same head and the pooling REFERENCE, `hidden_difference` less that of the row with the same pooling
    and no hidden layer: on the same images of the final split (`split`: test, or validation where there are no test
    images), with the interval and McNemar's exact p-value of significance.paired_difference. p_adjusted is corrected by
    Holm over all rows of one pooling, or over all rows with a hidden layer. `accuracy_mean` and `difference_mean` are
    over the trainings from several seeds, with Student's interval; without repeats they have none.

    Args:
        outcomes: each of other base, kind, pooling or hidden units.
        manifest: of the images.
        compare: confidence and resamples.
        seed: of the resampling.
    """
    split = "test" if len(manifest.positions("test")) else "validation"
    by_key = {outcome.key: outcome for outcome in outcomes}
    rows = []
    for outcome in outcomes:
        measured = _described(outcome) | _measured(outcome, manifest, split, compare, seed)
        for factor, key in outcome.counterparts.items():
            if key in by_key and key != outcome.key:
                against = _against(outcome, by_key[key], manifest, split, compare, seed)
                measured |= {f"{factor}_{name}": value for name, value in against.items()}
        rows.append(measured)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"hidden_units": "Int64"})
    numbers = [column for column in COLUMNS if column not in (*TEXT, "hidden_units")]
    table[numbers] = table[numbers].apply(pd.to_numeric)  # a column of nothing but None would be of objects
    _adjust(table, "pooling", by="pooling")
    _adjust(table, "hidden", by="kind")
    return table


def _adjust(table: pd.DataFrame, factor: str, by: str) -> None:
    for _, members in table[table[f"{factor}_p_value"].notna()].groupby(by):
        table.loc[members.index, f"{factor}_p_adjusted"] = holm(members[f"{factor}_p_value"].to_numpy(float))


def _described(outcome: Outcome) -> dict[str, Any]:
    height, width, channels = outcome.map_shape
    return {
        **{name: getattr(outcome, name) for name in ("backbone", "application", "kind", "pooling", "hidden_units")},
        **{"input_size": outcome.input_size, "map_height": height, "map_width": width},
        "vector_length": height * width * channels if outcome.pooling == "flatten" else channels,
        **{name: getattr(outcome, name) for name in ("source_accuracy", "head_parameters", *SECONDS)},
    }


def _measured(outcome: Outcome, manifest: Manifest, final: str, compare: Compare, seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"split": final, "repeats": len(outcome.predictions)}
    for split in ("validation", "test"):
        labels, probabilities = outcome.predictions[0].split(split)
        figures[f"n_{split}"] = len(labels)
        if len(labels):
            measured = evaluate(labels, probabilities, _groups(manifest, split), compare, seed, metrics=("accuracy",))
            figures |= dict(zip(ends(f"{split}_accuracy"), measured.loc["accuracy"], strict=True))
    mean = t_interval([_right(one, final).mean() for one in outcome.predictions], compare.confidence)
    return figures | dict(zip(ends("accuracy_mean"), mean, strict=True))


def _against(
    outcome: Outcome, other: Outcome, manifest: Manifest, split: str, compare: Compare, seed: int
) -> dict[str, Any]:
    labels, probabilities = outcome.predictions[0].split(split)
    others = other.predictions[0].split(split)[1]
    found = paired_difference(labels, probabilities, others, _groups(manifest, split), compare, seed)
    pairs = zip(outcome.predictions, other.predictions, strict=True)  # the r-th trainings have the same seed
    over_seeds = [_right(this, split).mean() - _right(that, split).mean() for this, that in pairs]
    return {
        **dict(zip(ends("difference"), (found.difference, found.low, found.high), strict=True)),
        **{"p_value": found.p_value, "only_this": found.only_first, "only_other": found.only_second},
        **dict(zip(ends("difference_mean"), t_interval(over_seeds, compare.confidence), strict=True)),
    }


def ends(name: str) -> list[str]:
    """The columns of a figure: its value, low and high."""
    return [f"{name}{end}" for end in ENDS]


def _right(predictions: Predictions, split: str) -> np.ndarray:
    labels, probabilities = predictions.split(split)
    return probabilities.argmax(axis=1) == labels


def _groups(manifest: Manifest, split: str) -> np.ndarray | None:
    names = manifest.rows["group"].to_numpy(object)[manifest.positions(split)]
    return names if len(set(names)) < len(names) else None
