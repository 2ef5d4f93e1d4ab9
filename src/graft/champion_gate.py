"""Whether a new model may take the place of the present champion: not if validation shows that it is worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graft.artifacts import Predictions, class_numbers
from graft.comparison_sections import Compare
from graft.significance import Difference, paired_difference

HOW_TO_OVERRULE = "`graft promote` with its version makes it the champion by hand"
MOST_NAMED = 5  # classes


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and by what.

    Attributes:
        promote: whether the new model may be the champion.
        reason: for people, one line.
        n: validation images that both models answered.
        difference: accuracy of the new model less that of the present one, on these; None where none were compared.
        low: of its interval; likewise.
        high: likewise.
    """

    promote: bool
    reason: str
    n: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def judge(new: Predictions, present: Predictions, groups: Mapping[str, str], settings: Compare, seed: int) -> Verdict:
    """Refuse a new model whose accuracy is lower by more than chance explains, on validation images of both.

    Only an interval of the difference that lies wholly below zero refuses it, for it leads the leaderboard of
    its own data. Test images are not looked at. A model with other classes answers another question, so it is let
    through; one that shares no validation image cannot be compared, and is not.

    Args:
        new: predictions of the new model, whose labels hold where the two differ.
        present: predictions of the present champion, maybe on other data.
        groups: by image id, of the new model's images at least.
        settings: confidence and resamples.
        seed: of the resampling.
    """
    ours, theirs = set(new.classes), set(present.classes)
    if ours != theirs:
        change = f"classes added: {_named(ours - theirs)}; gone: {_named(theirs - ours)}"
        return Verdict(True, f"it answers another question than the present champion; {change}")
    first, second = _validation(new), _validation(present)
    shared = np.flatnonzero(first["image_id"].isin(second["image_id"]))
    if not len(shared):
        reason = "it shares no validation image with the present champion to be compared on"
        return Verdict(False, f"{reason}; {HOW_TO_OVERRULE}")
    rows = first.iloc[shared]
    partners = second.set_index("image_id").loc[rows["image_id"], "row"]
    columns = [present.classes.index(name) for name in new.classes]
    difference = paired_difference(
        class_numbers(rows["label"], new.classes),
        new.probabilities[rows["row"]],
        present.probabilities[partners][:, columns],
        np.array([groups[image] for image in rows["image_id"]]),
        settings,
        seed,
    )
    return _verdict(difference, len(rows), settings.confidence)


def _validation(predictions: Predictions) -> pd.DataFrame:
    """image_id, split and label of the validation images, and in `row` the number of their row of probabilities."""
    rows = predictions.rows.assign(row=np.arange(len(predictions.rows)))
    return rows[rows["split"] == "validation"]


def _named(classes: Iterable[str]) -> str:
    names = sorted(classes)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more if names else "none"


def _verdict(found: Difference, n: int, confidence: float) -> Verdict:
    promote = found.high >= 0
    points = (
        f"accuracy {100 * found.difference:+.1f} points, {100 * confidence:g} % interval "
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f}, on {n} validation images of both"
    )
    reason = f"not worse than the present champion: {points}"
    if not promote:
        reason = f"worse than the present champion: {points}; {HOW_TO_OVERRULE}"
    return Verdict(promote, reason, n, found.difference, found.low, found.high)
