from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import tiny_params

from graft.collection import QUARANTINE_COLUMNS, Collection
from graft.curation import Reordered, count, divide, find_copies
from graft.inspection import COLUMNS

SIDE = 32


def collection(*images: tuple[str, str, int, dict[str, Any]]) -> Collection:
    """Images given as id, label, which picture they show, and further columns; bad ones have a reason."""
    rows, thumbnails, positions = [], [], {}
    for identity, label, picture, more in images:
        thumbnail = np.random.default_rng(picture).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        row = dict.fromkeys(COLUMNS) | {"image_id": identity, "pixel_id": f"pixels of {identity}", "label": label}
        row |= {"source": f"{label}/{identity}", "width": SIDE, "height": SIDE} | more
        if row["reason"] is None and identity not in positions:
            positions[identity] = len(positions)
            thumbnails.append(thumbnail)
        rows.append(row | {"position": positions.get(identity, -1)})
    hashes = np.array([thumbnail.reshape(-1)[:8] for thumbnail in thumbnails])
    pixels = np.array([thumbnail[:8, :8] for thumbnail in thumbnails])
    rejects, nothing = pd.DataFrame([], columns=list(QUARANTINE_COLUMNS)), pd.DataFrame(index=range(len(rows)))
    return Collection(pd.DataFrame(rows), rejects, pixels, np.array(thumbnails), hashes, nothing)


PLAIN = [(f"{label}{number}", label, hash_, {}) for hash_, (label, number) in enumerate(
    (label, number) for label in "ab" for number in range(10)
)]  # fmt: skip
DATA = tiny_params(data__train_per_class=None, data__validation=0.2, data__test=0.2).data


def test_rows_are_ordered_by_id_whatever_the_files_order() -> None:
    forward, _ = find_copies(collection(*PLAIN), DATA)
    backward, _ = find_copies(collection(*PLAIN[::-1]), DATA)
    assert forward.rows["image_id"].tolist() == sorted(identity for identity, *_ in PLAIN)
    one, _ = divide(forward, DATA, 1)
    other, _ = divide(backward, DATA, 1)
    assert one.splits.tolist() == other.splits.tolist()
    assert pd.Series(one.splits).value_counts().to_dict() == {"train": 12, "validation": 4, "test": 4}


def test_every_way_out_of_the_data_set_has_its_reason_and_is_counted() -> None:
    images = [
        *PLAIN,
        ("a0", "a", 0, {"source": "a/copy of a0"}),
        ("a91", "a", 91, {}),
        ("b91", "b", 91, {}),
        ("a92", "a", 92, {"reason": "truncated", "detail": "half"}),
    ]
    found, quarantine = find_copies(collection(*images), DATA)
    assert dict(zip(quarantine["source"], quarantine["reason"], strict=True)) == {
        "a/a92": "truncated",
        "a/copy of a0": "duplicate",
        "a/a91": "conflicting-label",
        "b/b91": "conflicting-label",
    }
    assert len(found.rows) == 22
    assert len(found.usable) == 20
    curated, dropped = divide(found, DATA.model_copy(update={"train_per_class": 5}), 1)
    assert dropped.empty
    assert count(curated, quarantine, ["a", "b"]).to_dict("list") == {
        "label": ["a", "b"],
        "train": [5, 5],
        "validation": [2, 2],
        "test": [2, 2],
        "unused": [1, 1],
        "quarantined": [3, 1],
    }


def test_copies_share_a_group_and_the_sources_groups_go_first() -> None:
    images = [*PLAIN, ("a90", "a", 3, {}), ("b90", "b", 12, {"group": "herd"}), ("b91", "b", 93, {"group": "herd"})]
    found, _ = find_copies(collection(*images), DATA)
    groups = dict(zip(found.rows["image_id"], found.groups, strict=True))
    assert groups["a3"] == groups["a90"] == "a3"
    assert groups["b90"] == groups["b91"] == "group:herd"
    assert groups["b2"] == "b2"


def test_a_copy_in_a_more_held_out_split_wins() -> None:
    given = [
        (*image[:3], {"split": ("train", "train", "validation", "test")[place % 4]})
        for place, image in enumerate(PLAIN)
    ]
    images = [*given, ("a90", "a", 3, {"split": "train"}), ("a91", "a", 2, {"split": "train"})]
    data = DATA.model_copy(update={"split": "predefined"})
    curated, dropped = divide(find_copies(collection(*images), data)[0], data, 1)
    assert dropped[["source", "reason"]].to_numpy().tolist() == [["a/a90", "leaked-copy"], ["a/a91", "leaked-copy"]]
    splits = dict(zip(curated.rows["image_id"], curated.splits, strict=True))
    assert (splits["a3"], splits["a2"], splits["a90"], splits["a91"]) == ("test", "validation", None, None)


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 0])])
def test_reordered_rows_are_those_of_the_array(rows: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3))
    order = np.array([4, 2, 0])
    view = Reordered(array, order)
    assert view.shape == (3, 2, 2, 3)
    np.testing.assert_array_equal(view[rows], array[order][rows])
