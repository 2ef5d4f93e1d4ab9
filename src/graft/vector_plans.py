"""What becomes of the vectors of a support vector machine that stands on other layers than the top alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from graft.costs import multiply_adds
from graft.extraction import row_pass
from graft.feature_sets import IMAGE, SVM, TOP
from graft.planning import BESIDE, COPIES, Plan
from graft.sections import Backbone
from graft.svm_layers import check_layers, layers_json, map_shapes, point_of, starts, taps_of, vector_length

if TYPE_CHECKING:
    import keras

EXACT = 4  # bytes of a number that is not rounded


@dataclass(frozen=True)
class VectorPlan:
    """The vectors beside a plan, which they never change: they take what it leaves of features.max_gb.

    Attributes:
        start: the point from whose rows they are computed.
        multiply_adds: from there, of one row.
        elements: numbers in one.
        rows: how many.
        itemsize: bytes of a kept number.
        kept: whether the features stage computes and keeps them; if not, whoever fits a machine computes them.
        map_elements: numbers in all maps of one row that are pooled.
    """

    start: str
    multiply_adds: int
    elements: int
    rows: int
    itemsize: int
    kept: bool
    map_elements: int

    @property
    def output_bytes(self) -> int:
        """Of the kept vectors, once."""
        return self.rows * self.elements * self.itemsize if self.kept else 0


def with_vectors(plan: Plan, base: keras.Model, row: Backbone) -> Plan:
    """The plan with the vectors of the backbone's support vector machine, where it stands not on the top alone.

    Args:
        plan: of the features stage.
        base: as its row describes it.
        row: of params.yaml.

    Raises:
        BackboneError: as svm_layers.check_layers.
    """
    check_layers(base, row.features.svm_layers)
    if point_of(row.features) == TOP:
        return plan
    taps = taps_of(row.features)
    elements, rows = vector_length(base, taps), plan.workload.rows
    size = rows * (COPIES * plan.itemsize * elements + BESIDE)
    kept = plan.chosen.bytes + size <= plan.max_gb * 10**9
    exact = plan.itemsize == EXACT or not kept  # the features stage starts from no rounded rows
    reach = starts(base, row.features.cuts, taps)
    start = [point for point in reach if point == IMAGE or (exact and point in plan.stored)][-1]
    passed = row_pass(base, row, row.base.input_size, start, [SVM])
    vectors = VectorPlan(
        start=start,
        multiply_adds=multiply_adds(passed),
        elements=elements,
        rows=rows,
        itemsize=plan.itemsize,
        kept=kept,
        map_elements=sum(map(prod, map_shapes(base, taps))),
    )
    return replace(plan, vectors=vectors)


def vectors_json(plan: Plan, row: Backbone) -> dict[str, Any]:
    """What the folder of the vectors consists of; with_vectors of feature_sets compares the layers."""
    kept = plan.vectors is not None and plan.vectors.kept
    return {"stored": [SVM] if kept else [], "rows": plan.workload.rows, "layers": layers_json(row.features)}


def kept_json(plan: Plan) -> dict[str, Any]:
    """All that a plan's features stage keeps, for forecasts of it."""
    vectors = {"vectors": {"elements": plan.vectors.elements, "kept": plan.vectors.kept}} if plan.vectors else {}
    return plan.to_json() | vectors
