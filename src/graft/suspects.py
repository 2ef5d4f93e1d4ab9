"""Images whose label may be wrong, by probabilities of models that were not fitted on them (confident learning)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from graft.artifacts import Predictions, class_numbers
from graft.storage import ArtifactError

COLUMNS = (
    *("image_id", "source", "split", "label", "suggested", "probability_of_label", "probability_of_suggested"),
    *("score", "judged_by"),
)
RELABEL_COLUMNS = (
    *("source", "split", "label", "suggested", "probability_of_label", "probability_of_suggested", "judged_by"),
    "new_label",
)


def find_suspects(manifest_rows: pd.DataFrame, judgements: Sequence[tuple[str, Predictions]]) -> pd.DataFrame:
    """Images whose given label is probably not the true one, the most suspicious first.

    Confident learning (Northcutt et al. 2021) estimates from all images of a judgement how many labels are wrong: an
    image counts whose probability of another class reaches the mean that this class's own images have. So many images,
    those with the lowest probability of the given label, are suspects, unless the given label is still the most
    probable. A suspect may just as well be a hard image that the model gets wrong. This is for people to relabel from,
    test images included; nothing is chosen by it.

    Args:
        manifest_rows: of the prepared images, for their source.
        judgements: who judged (a model, in words) and its probabilities of images that it was not fitted on. Each is
            taken by itself. A class with no image, or the only one with some, is neither suspected nor suggested.

    Returns:
        One row per suspect with COLUMNS. suggested: the most probable other class. score: the probability of the given
        label (self-confidence), lower is more suspicious. Equal scores are in the order of image_id.

    Raises:
        ArtifactError: an image is not in the manifest.
    """
    found = [_judge(name, predictions) for name, predictions in judgements if len(predictions.rows)]
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    suspects = pd.concat(found, ignore_index=True)
    sources = manifest_rows.set_index("image_id")["source"]
    if not (known := suspects["image_id"].isin(sources.index)).all():
        raise ArtifactError(f"the manifest must list image {suspects['image_id'][~known].iloc[0]!r}, which was judged")
    suspects["source"] = suspects["image_id"].map(sources)
    return suspects.sort_values(["score", "image_id"], ignore_index=True)[list(COLUMNS)]


def _judge(name: str, predictions: Predictions) -> pd.DataFrame:
    labels, probabilities = class_numbers(predictions.rows["label"], predictions.classes), predictions.probabilities
    every = np.arange(len(labels))
    others = probabilities.copy()
    others[every, labels] = -1
    suggested = others.argmax(axis=1)
    given, best = probabilities[every, labels], others.max(axis=1)
    chosen = np.flatnonzero(_flagged(labels, probabilities) & (best > given))
    rows = predictions.rows[["image_id", "split", "label"]].iloc[chosen].reset_index(drop=True)
    return rows.assign(
        suggested=np.array(predictions.classes, dtype=object)[suggested[chosen]],
        probability_of_label=given[chosen],
        probability_of_suggested=best[chosen],
        score=given[chosen],
        judged_by=name,
    )


def _flagged(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    if len(np.unique(labels)) < 2:  # whom to confuse with is unknown
        return np.zeros(len(labels), bool)
    from cleanlab.filter import find_label_issues

    return np.asarray(find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1))


def to_relabel(suspects: pd.DataFrame) -> pd.DataFrame:
    """The table to relabel from, with RELABEL_COLUMNS; new_label is empty, for a person to fill in."""
    return suspects.assign(new_label="")[list(RELABEL_COLUMNS)]
