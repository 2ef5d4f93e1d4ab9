"""What a frozen base makes of every image and view: looked up in the store, computed where it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.feature_sets import PLAN, ROWS, SVM, Rows
from graft.frozen_bases import FrozenBase
from graft.frozen_passes import Passes, complete
from graft.full_disk import room_for
from graft.shards import ShardWriter
from graft.storage import write_json, write_table
from graft.store import FeatureStore, Space, view_keys
from graft.store_costs import read_cost

CHUNK_BYTES = 2**25  # copied at a time from the store to the outputs


@dataclass(frozen=True)
class Extraction:
    """What a call of write_features did.

    Attributes:
        computed: distinct views for which some point had to be computed.
        reused: distinct views that the store had at every stored point.
        whole: all that passed.
        steady: that without the first batch of each pass, which waits for its graph to be traced.
        feature_seconds: what the distinct views cost when they were computed, now or earlier, from the pixels to the
            last stored point; None where the store did not keep it.
        svm_seconds: the same to the vectors of the support vector machine that stands on other layers than the top
            alone; None also where there are none.
    """

    computed: int
    reused: int
    whole: Passes
    steady: Passes
    feature_seconds: float | None
    svm_seconds: float | None = None


def write_features(
    folder: Path,
    base: FrozenBase,
    plan: Mapping[str, Any],
    index: pd.DataFrame,
    pixels: Rows,
    store: FeatureStore,
    vectors: tuple[Path, Mapping[str, Any]] | None = None,
) -> Extraction:
    """Write the rows of a plan's stored points into a folder of shards, in the order of the index.

    The bytes written are the same whatever the store held. Memory holds a batch and an unwritten piece of the store,
    however many images there are.

    Args:
        folder: to write into.
        base: makes the rows.
        plan: as planning.Plan.to_json; its `stored` names the points.
        index: one line per row, as feature_sets.feature_index.
        pixels: behind the index.
        store: is asked first, and given what it lacks.
        vectors: another folder, and the plan of what it holds: the vectors of the support vector machine.
    """
    keys = view_keys(pixels, base.row.features.batch_size)
    outputs = [(folder, plan), *([vectors] if vectors else [])]
    spaces = {point: base.space(store, point) for _, held in outputs for point in held["stored"]}
    whole, steady = Passes(), Passes()
    with ExitStack() as stack:
        for space in sorted(spaces.values(), key=lambda space: space.folder.name):  # so that no two wait for each other
            stack.enter_context(space.locked())
        computed = complete(base, spaces, keys, pixels, store, whole, steady)
    for target, held in outputs:
        for point in held["stored"]:
            _copy(target, point, spaces[point].rows(keys), base.row_shape(point), index)
        write_table(target / ROWS, index)
        write_json(target / PLAN, held)
    distinct = len(np.unique(keys, axis=0)) if spaces else 0
    cost = _original_cost(base, {point: spaces[point] for point in plan["stored"]}, distinct)
    svm_cost = _original_cost(base, {SVM: spaces[SVM]}, distinct) if SVM in spaces else None
    return Extraction(computed, distinct - computed, whole, steady, cost, svm_cost)


def _original_cost(base: FrozenBase, spaces: Mapping[str, Space], rows: int) -> float | None:
    """Seconds that so many rows cost at the last of some points, on the way to which all others lie."""
    if not spaces:
        return 0.0
    cost = read_cost(spaces[max(spaces, key=base.depth.index)].folder)
    return cost.of(rows) if cost else None


def _copy(folder: Path, point: str, rows: Rows, row_shape: tuple[int, ...], index: pd.DataFrame) -> None:
    row_bytes = int(np.prod(row_shape)) * np.dtype(rows.dtype).itemsize
    step = max(1, CHUNK_BYTES // row_bytes)
    with (
        room_for(f"the rows at {point}", folder, len(rows) * row_bytes),
        ShardWriter(folder, point, row_shape, rows.dtype, ids=index) as writer,
    ):
        for start in range(0, len(rows), step):
            writer.append(rows[start : start + step])
