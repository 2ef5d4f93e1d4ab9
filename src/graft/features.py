"""What a frozen base makes of every image and view: looked up in the store, computed where it is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from graft.costs import multiply_adds
from graft.feature_sets import IMAGE, PLAN, ROWS, TOP, Rows, Selected
from graft.frozen_bases import FrozenBase
from graft.full_disk import room_for
from graft.inference import apply_model
from graft.shards import ShardWriter
from graft.storage import ArtifactError, write_json, write_table
from graft.store import FeatureStore, Space, view_keys
from graft.store_costs import add_cost, read_cost

if TYPE_CHECKING:
    import keras

CHUNK_BYTES = 2**25  # copied at a time from the store to the outputs


@dataclass
class Passes:
    """What passed through the frozen base.

    Attributes:
        rows: views, counted again in each pass.
        multiply_adds: of these.
        seconds: reading and writing included.
    """

    rows: int = 0
    multiply_adds: int = 0
    seconds: float = 0.0

    def add(self, rows: int, multiply_adds: int, seconds: float) -> None:
        """Count some more."""
        self.rows += rows
        self.multiply_adds += rows * multiply_adds
        self.seconds += seconds


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
    """

    computed: int
    reused: int
    whole: Passes
    steady: Passes
    feature_seconds: float | None


def write_features(
    folder: Path,
    base: FrozenBase,
    plan: Mapping[str, Any],
    index: pd.DataFrame,
    pixels: Rows,
    store: FeatureStore,
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
    """
    keys = view_keys(pixels, base.row.features.batch_size)
    spaces = {point: base.space(store, point) for point in plan["stored"]}
    whole, steady = Passes(), Passes()
    with ExitStack() as stack:
        for space in sorted(spaces.values(), key=lambda space: space.folder.name):  # so that no two wait for each other
            stack.enter_context(space.locked())
        computed = _complete(base, spaces, keys, pixels, store, whole, steady)
    for point, space in spaces.items():
        _copy(folder, point, space.rows(keys), base.row_shape(point), index)
    write_table(folder / ROWS, index)
    write_json(folder / PLAN, plan)
    distinct = len(np.unique(keys, axis=0)) if spaces else 0
    return Extraction(computed, distinct - computed, whole, steady, _original_cost(base, spaces, distinct))


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


def _complete(
    base: FrozenBase,
    spaces: Mapping[str, Space],
    keys: np.ndarray,
    pixels: Rows,
    store: FeatureStore,
    whole: Passes,
    steady: Passes,
) -> int:
    """Compute what the spaces lack, and count it; returns for how many distinct keys that was."""
    distinct, positions = np.unique(keys, axis=0, return_index=True)  # equal pixels are computed once
    lacking = {point: ~space.find(distinct) for point, space in spaces.items()}
    wanted = np.flatnonzero(np.any(list(lacking.values()), axis=0)) if lacking else np.empty(0, int)
    starts = _starts(base, store) if len(wanted) else {}
    held = {layer: space.find(distinct) for layer, space in starts.items()}
    with tqdm(total=len(wanted), desc="features", unit="view", disable=None) as bar:
        for start, ends, chosen in _groups(base.depth, lacking, held, wanted):
            batch_keys = distinct[chosen]
            views = Selected(pixels, positions[chosen])
            source = starts[start].rows(batch_keys) if start != IMAGE else views
            if start != IMAGE and not _same(base, start, ends, source, views):
                start, source = IMAGE, views
            model = base.frozen_pass(start, ends)
            began = time.perf_counter()
            first = _extract(base, model, source, batch_keys, [spaces[end] for end in ends], bar)
            ended, steps = time.perf_counter(), [multiply_adds(model.get_layer(f"to_{end}")) for end in ends]
            whole.add(len(chosen), sum(steps), ended - began)
            steady.add(max(0, len(chosen) - base.row.features.batch_size), sum(steps), ended - first)
            before = None if start == IMAGE else starts[start]
            _keep_cost(before, [spaces[end] for end in ends], steps, len(chosen), ended - began)
    return len(wanted)


def _keep_cost(start: Space | None, ends: Sequence[Space], steps: Sequence[int], rows: int, seconds: float) -> None:
    """Keep what the rows of a pass cost from the pixels on, also where the way to its start was paid for earlier.

    Args:
        start: the rows that it started from; None: the pixels.
        ends: the rows that it made, by depth.
        steps: multiply-adds from the start to the first end and on to the next ones, by which the seconds are divided.
        rows: that passed.
        seconds: that they took.
    """
    spent = 0.0
    if start is not None:
        if not (cost := read_cost(start.folder)):
            return
        spent = cost.of(rows)
    for end, done in zip(ends, np.cumsum(steps), strict=True):
        add_cost(end.folder, spent + seconds * float(done / max(1, sum(steps))), rows)


def _starts(base: FrozenBase, store: FeatureStore) -> dict[str, Space]:
    """Layers of which the store holds rows of this base, by depth: a later point can be computed from them.

    Rounded rows are no start, since what is computed from them would depend on what the store happens to hold.
    """
    if base.storage != "float32":
        return {}
    ours = base.made_by()
    there = {found.description["point"] for found in store.spaces() if ours.items() <= found.description.items()}
    return {layer: base.space(store, layer) for layer in base.depth if layer in there - {TOP}}


Group = tuple[str, list[str], np.ndarray]  # start, ends, row numbers among the distinct keys


def _groups(
    depth: Sequence[str], lacking: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray], wanted: np.ndarray
) -> Iterator[Group]:
    """The wanted rows, those together that lack the same points and can start from the same one."""
    if not len(wanted):
        return
    table = np.stack([mask[wanted] for mask in (*lacking.values(), *held.values())], axis=1)
    patterns, members = np.unique(table, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        ends = [point for point, absent in zip(lacking, pattern[: len(lacking)], strict=True) if absent]
        there = [layer for layer, present in zip(held, pattern[len(lacking) :], strict=True) if present]
        before = [layer for layer in there if depth.index(layer) < depth.index(ends[0])]
        start = max(before, key=depth.index, default=IMAGE)
        yield start, ends, wanted[np.flatnonzero(members.reshape(-1) == number)]


def _same(base: FrozenBase, start: str, ends: list[str], source: Rows, views: Rows) -> bool:
    """Whether the way from a start gives a batch bit for bit what the way from the pixels gives.

    Graph optimisation may join operations across a cut; then the outputs would depend on the store.
    """
    size = base.row.features.batch_size
    rows = np.arange(min(size, len(views)))
    short = next(apply_model(base.frozen_pass(start, ends), source, rows, size))
    whole = next(apply_model(base.frozen_pass(IMAGE, ends), views, rows, size))
    return all(np.array_equal(one, other) for one, other in zip(short, whole, strict=True))


def _extract(
    base: FrozenBase, model: keras.Model, source: Rows, keys: np.ndarray, spaces: Sequence[Space], bar: tqdm[Any]
) -> float:
    """Apply the model to all rows of the source, and give the store what comes out; returns when one batch was done."""
    at, first = 0, 0.0
    with ExitStack() as stack:
        writers = [stack.enter_context(space.writer()) for space in spaces]
        for outputs in apply_model(model, source, np.arange(len(source)), base.row.features.batch_size):
            count = len(outputs[0])
            for writer, output in zip(writers, outputs, strict=True):
                writer.append(keys[at : at + count], _rounded(output, base.storage))
            at += count
            bar.update(count)
            first = first or time.perf_counter()
    return first


def _rounded(rows: np.ndarray, storage: str) -> np.ndarray:
    """Rows as they are kept.

    Raises:
        ArtifactError: one is too large for float16, or not a number.
    """
    with np.errstate(over="ignore"):
        rounded = rows.astype(storage)
    if not np.isfinite(rounded).all():
        largest = float(np.abs(rows).max())
        limit = float(np.finfo(storage).max)
        raise ArtifactError(
            f"activations must be finite and at most {limit:g} to be kept as {storage}, received {largest:g}; "
            + (
                "set features.storage: float32"
                if np.isfinite(largest)
                else "the base's weights or its input are damaged"
            )
        )
    return rounded
