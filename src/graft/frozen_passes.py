"""Passes of a frozen base over the views whose rows are not in the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from graft.costs import multiply_adds
from graft.feature_sets import IMAGE, SVM, TOP, Rows, Selected
from graft.frozen_bases import FrozenBase
from graft.inference import apply_model
from graft.storage import ArtifactError
from graft.store import FeatureStore, Space
from graft.store_costs import add_cost, read_cost

if TYPE_CHECKING:
    import keras


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


def complete(
    base: FrozenBase,
    spaces: Mapping[str, Space],
    keys: np.ndarray,
    pixels: Rows,
    store: FeatureStore,
    whole: Passes,
    steady: Passes,
) -> int:
    """Compute what the spaces lack, and count it; returns for how many distinct keys that was.

    The vectors of a support vector machine have a pass of their own, last: as a further output of another pass they
    would keep graph optimisation from joining operations, and change the bits of its rows.
    """
    distinct, positions = np.unique(keys, axis=0, return_index=True)  # equal pixels are computed once
    views = Selected(pixels, positions)
    wanted = np.zeros(len(distinct), bool)
    for points in ([point for point in spaces if point != SVM], [SVM] if SVM in spaces else []):
        if points:
            wanted |= _compute(base, {point: spaces[point] for point in points}, distinct, views, store, whole, steady)
    return int(wanted.sum())


def _compute(
    base: FrozenBase,
    spaces: Mapping[str, Space],
    keys: np.ndarray,
    pixels: Rows,
    store: FeatureStore,
    whole: Passes,
    steady: Passes,
) -> np.ndarray:
    """Compute what the spaces lack of distinct keys; returns for which of them that was, as booleans."""
    lacking = {point: ~space.find(keys) for point, space in spaces.items()}
    wanted = np.flatnonzero(np.any(list(lacking.values()), axis=0))
    starts = _starts(base, store) if len(wanted) else {}
    held = {layer: space.find(keys) for layer, space in starts.items()}
    with tqdm(total=len(wanted), desc="features", unit="view", disable=None) as bar:
        for start, ends, chosen in _groups(base.depth, lacking, held, wanted):
            batch_keys = keys[chosen]
            views = Selected(pixels, chosen)
            source = starts[start].rows(batch_keys) if start != IMAGE else views
            if start != IMAGE and not _same(base, start, ends, source, views):
                start, source = IMAGE, views
            model = base.frozen_pass(start, ends)
            began = time.perf_counter()
            first = _extract(base, model, source, batch_keys, [spaces[end] for end in ends], bar)
            ended, steps = time.perf_counter(), _steps(model, ends)
            whole.add(len(chosen), sum(steps), ended - began)
            steady.add(max(0, len(chosen) - base.row.features.batch_size), sum(steps), ended - first)
            before = None if start == IMAGE else starts[start]
            _keep_cost(before, [spaces[end] for end in ends], steps, len(chosen), ended - began)
    return np.isin(np.arange(len(keys)), wanted)


def _steps(model: keras.Model, ends: Sequence[str]) -> list[int]:
    """Multiply-adds of one row to the first end of a pass, and on to each later one."""
    if list(ends) == [SVM]:
        return [multiply_adds(model)]
    return [multiply_adds(model.get_layer(f"to_{end}")) for end in ends]


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
    return {layer: base.space(store, layer) for layer in base.depth if layer in there - {SVM, TOP}}


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
