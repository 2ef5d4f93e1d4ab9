from __future__ import annotations

from dataclasses import replace

import pytest
from tuning_on_trial import small

from graft import backbones, costs, runtime
from graft.feature_sets import IMAGE
from graft.planning import Plan, Workload, choose
from graft.vector_plans import kept_json, vectors_json, with_vectors

CUT = "conv_pw_11_relu"
WORK = Workload(train=10, validation=5, test=5, views=2, epochs=4, unfrozen_epochs=3)  # 30 rows


def planned(layers: list[str], *, max_gb: float = 1.0, itemsize: int = 4, **changes: str) -> Plan:
    runtime.configure(1)
    row = small(
        "mobilenet", features__svm_layers=layers, **{f"features__{key}": value for key, value in changes.items()}
    )
    base = backbones.build_base(row.base)
    measured = costs.segments(base, [CUT], "avg")
    plan = choose(measured, WORK, max_gb=max_gb, itemsize=itemsize)
    whole = with_vectors(plan, base, row)
    assert replace(whole, vectors=None) == plan  # what heads and tails read never depends on it
    if whole.vectors:
        assert vectors_json(whole, row)["stored"] == (["svm"] if whole.vectors.kept else [])
    return whole


def test_on_the_top_alone_there_is_nothing_to_plan() -> None:
    plan = planned(["top"])
    assert plan.vectors is None
    assert kept_json(plan) == plan.to_json()


@pytest.mark.parametrize(("pooling", "elements"), [("avg", 128 + 256), ("flatten", 2 * 2 * 128 + 256)])
def test_vectors_start_from_the_cut_where_that_is_kept_exactly(pooling: str, elements: int) -> None:
    plan = planned([CUT, "top"], svm_pooling=pooling)
    assert plan.vectors
    between = plan.segments.between(CUT, "top")
    assert (plan.vectors.start, plan.vectors.multiply_adds) == (CUT, between)
    assert (plan.vectors.elements, plan.vectors.output_bytes) == (elements, 30 * elements * 4)
    rounded = planned([CUT, "top"], svm_pooling=pooling, itemsize=2).vectors
    assert rounded
    assert (rounded.start, rounded.multiply_adds) == (IMAGE, plan.segments.between(IMAGE, "top"))


def test_of_a_layer_where_rows_are_kept_nothing_is_to_be_passed() -> None:
    plan = planned([CUT])
    assert plan.vectors
    assert (plan.vectors.start, plan.vectors.multiply_adds) == (CUT, 0)


def test_vectors_take_what_the_plan_leaves() -> None:
    plan = planned([CUT])
    size = 30 * (3 * 4 * 128 + 28)  # three copies, and beside each row checksums and a key
    assert planned([CUT], max_gb=(plan.chosen.bytes + size) / 10**9).vectors.kept  # type: ignore[union-attr]
    less = planned([CUT], max_gb=(plan.chosen.bytes + size - 1) / 10**9)
    assert less.vectors
    assert (less.stored, less.vectors.kept, less.vectors.output_bytes) == (plan.stored, False, 0)
