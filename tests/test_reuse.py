from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks_on_trial import tiny_params

from graft.counting import Counts
from graft.planning import Segments, Workload, choose
from graft.reuse import Places, StoredViews, remaining
from graft.store import FeatureStore

PLAN = choose(Segments(("image", "top"), (100,), (10,)), Workload(4, 2, 2, 3, 1, 1), max_gb=1.0, itemsize=4)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A store that holds a row of something."""
    found = Places(*(tmp_path / name for name in ("prepared", "augmented", "sources", "dvc.lock", "store")))
    space = FeatureStore(found.store, 1000).space({"point": "top"}, (2,), "float32")
    with space.writer() as writer:
        writer.append(np.zeros((1, 16), np.uint8), np.zeros((1, 2), np.float32))
    return found


@pytest.mark.parametrize(
    ("prepared", "changes", "reason"),
    [
        (True, {"features__store_gb": 0}, "features.store_gb is 0, so that nothing outlives a run"),
        (False, {}, "the images are not prepared yet"),
        (True, {}, "manifest.parquet is missing"),
    ],
)
def test_all_is_missing_where_the_store_cannot_be_asked_and_the_reason_is_said(
    places: Places, prepared: bool, changes: dict[str, object], reason: str
) -> None:
    views = StoredViews(tiny_params(**changes), places, Counts(4, 2, 2, prepared, ""))
    assert reason in str(views.unasked)
    missing = views.missing("mobilenet", PLAN)
    assert list(missing) == ["top"]
    assert missing["top"].all()
    assert missing["top"].shape == (16,)


def test_an_empty_store_is_not_asked(places: Places, tmp_path: Path) -> None:
    empty = Places(places.prepared, places.augmented, places.sources, places.lock, tmp_path / "none")
    assert StoredViews(tiny_params(), empty, Counts(4, 2, 2, True, "")).unasked == "it is empty"


def test_what_is_missing_is_counted_from_the_nearest_kept_row() -> None:
    segments = Segments(("image", "cut", "top"), (70, 30), (50, 10))
    lacks = {"cut": np.array([True, False, True, False]), "top": np.array([True, True, False, False])}
    assert remaining(segments, lacks, exact=True) == (70 + 30) + 30 + 70  # row by row
    assert remaining(segments, lacks, exact=False) == 100 + 100 + 70  # rounded rows are no start
    assert remaining(segments, {}, exact=True) == remaining(segments, {}, exact=False) == 0
