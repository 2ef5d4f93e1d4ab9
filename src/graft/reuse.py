"""Which activations of the run to come are in the store already; asked without changing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from graft.artifacts import read_manifest, read_views
from graft.counting import Counts, made_as_asked
from graft.feature_sets import IMAGE, SVM, ViewPixels, read_view_pixels
from graft.params import Params
from graft.planning import Plan, Segments
from graft.storage import ArtifactError
from graft.store import FeatureStore, view_keys

BATCH = 256  # images read at a time


@dataclass(frozen=True)
class Places:
    """Where a run reads and keeps; none of it need be there.

    Attributes:
        prepared: the folder of the images.
        augmented: that of their views.
        sources: that of the bases, one folder each.
        lock: dvc.lock.
        store: root of the store of activations.
    """

    prepared: Path
    augmented: Path
    sources: Path
    lock: Path
    store: Path


class StoredViews:
    """The views of the run to come, and the store that may hold what bases made of them.

    Attributes:
        store: of activations.
        unasked: why no row can be known to be there, for people; None where the store is asked.
    """

    def __init__(self, params: Params, places: Places, counts: Counts) -> None:
        self._params, self._places = params, places
        self.store = FeatureStore(places.store, int(params.features.store_gb * 10**9))
        self._pixels, self.unasked = self._open(counts)
        self._distinct: np.ndarray | None = None

    def missing(self, name: str, plan: Plan) -> dict[str, np.ndarray]:
        """Which of the distinct views the store lacks at each point that a backbone's plan keeps, of shape (views,).

        The vectors of its support vector machine are such a point, the last. Where the store cannot be asked it lacks
        all: then equal views, which are computed once, are not known either.
        """
        kept = [*plan.stored, *([SVM] if plan.vectors and plan.vectors.kept else [])]
        if self._pixels is None or not self._made(name):
            return {point: np.ones(plan.workload.rows, bool) for point in kept}
        from graft.frozen_bases import FrozenBase

        if self._distinct is None:
            self._distinct = np.unique(view_keys(self._pixels, BATCH), axis=0)
        row, storage = self._params.backbones[name], self._params.features.storage
        base = FrozenBase.load(self._places.sources / name, row, self._pixels.row_shape[0], storage)
        return {point: ~base.space(self.store, point).find(self._distinct, check=False) for point in kept}

    def _open(self, counts: Counts) -> tuple[ViewPixels | None, str | None]:
        """The pixels of the views, or why the store cannot be asked for them."""
        augmented = self._places.augmented
        if not self._params.features.store_gb:
            return None, "features.store_gb is 0, so that nothing outlives a run"
        if not self.store.spaces():
            return None, "it is empty"
        if not counts.prepared:
            return None, "the images are not prepared yet"
        if not made_as_asked(self._params, self._places.lock, "augment"):
            return None, f"{augmented} was made with other values of augment or seed"
        try:
            manifest = read_manifest(self._places.prepared)
            views = read_views(augmented, manifest)
            pixels = read_view_pixels(self._places.prepared, augmented, manifest)
        except ArtifactError as error:
            return None, str(error)
        if views["view"].max() + 1 != self._params.augment.views:
            return None, f"{augmented} does not hold augment.views views of each image"
        return pixels, None

    def _made(self, name: str) -> bool:
        made = (self._places.sources / name / "card.json").exists()
        return made and made_as_asked(self._params, self._places.lock, f"pretrain@{name}")


def remaining(segments: Segments, missing: Mapping[str, np.ndarray], *, exact: bool) -> int:
    """Multiply-adds of the kept rows that are not there yet.

    Args:
        segments: of the base.
        missing: of each kept point, by depth: which rows are not there, of shape (rows,).
        exact: whether a row goes on from the kept point before (float32); if not (float16 has rounded it), it is
            computed from the image.
    """
    if exact:
        return sum(
            int(missing[point].sum()) * segments.between(before, point) for before, point in pairwise((IMAGE, *missing))
        )
    total, counted = 0, np.zeros(1, bool)
    for point in reversed(list(missing)):  # in one pass to the deepest that a row misses
        total += int((missing[point] & ~counted).sum()) * segments.between(IMAGE, point)
        counted = counted | missing[point]
    return total
