"""What the benchmarks reckon: ceilings, ratios and tables, by hand-computed values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import children
import growth
import operations
import serving
import summary
import tracking
from operations import WORK, Setting, Work


def test_plain_training_passes_every_image_in_every_epoch() -> None:
    setting = Setting(train=20, validation=10, views=3, epochs=4, unfrozen_epochs=5)
    assert operations.plain(setting, WORK["frozen"], tail=0.1) == 4 * 30
    # Backward through a tenth of the base costs two tenths, for the training images alone.
    assert operations.plain(setting, WORK["frozen + unfrozen"], tail=0.1) == pytest.approx(4 * 30 + 5 * (30 + 0.2 * 20))
    assert operations.plain(setting, WORK["frozen + SVM"], tail=0.1) == 4 * 30 + 3 * 20 + 10


def test_computed_once_each_view_passes_once_and_then_the_tail_alone() -> None:
    setting = Setting(train=20, validation=10, views=3, epochs=4, unfrozen_epochs=5)
    assert operations.once(setting, WORK["frozen + SVM"], tail=0.1) == 3 * 20 + 10
    assert operations.once(setting, WORK["frozen + unfrozen"], tail=0.1) == pytest.approx(70 + 5 * 0.1 * (60 + 10))


@pytest.mark.parametrize(
    ("tail", "views", "expected"),
    [(0.122, 5, 4.0), (0.190, 5, 3.4), (0.090, 5, 4.5), (0.122, 1, 6.0), (0.190, 1, 4.5), (0.090, 1, 7.3)],
)
def test_ceilings_of_ten_and_ten_epochs(tail: float, views: int, expected: float) -> None:
    found = operations.ceiling(Setting(245, 153, views), Work(unfrozen=True, svm=True), tail)
    assert round(found, 1) == expected


def test_a_grid_shares_the_frozen_layers_and_the_first_phase() -> None:
    setting = Setting(train=20, validation=10, views=1, epochs=1, unfrozen_epochs=2)
    plain = 2 * (30 + 2 * (30 + 2 * 0.5 * 20))
    assert operations.grid_ceiling(setting, [(0.5, 2), (0.5, 1)], [0.5, 0.5]) == pytest.approx(
        plain / (30 + 0.5 * 3 * (60 + 10))
    )


def test_multiply_adds_are_kernel_size_times_positions() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)  # 8 * 8 * 3 * 3 * 3 * 4
    x = keras.layers.DepthwiseConv2D(3, padding="valid")(x)  # 6 * 6 * 3 * 3 * 4
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))  # 4 * 5
    model = keras.Model(inputs, x)
    assert operations.multiply_adds(model) == 6912 + 1296 + 20
    assert operations.multiply_adds(model, after="first") == 1296 + 20


def row(side: str, **parts: float) -> summary.Row:
    facts: dict[str, Any] = {"correct": {}}
    cpu = {part: 2 * value for part, value in parts.items()}
    return {"side": side, "parts": parts, "cpu_parts": cpu, "seconds": sum(parts.values()) + 5, "facts": facts}


def test_a_ratio_stands_beside_its_ceiling() -> None:
    plain = {"build": 1.0, "frozen": 19.0, "extract": 4.0, "svm": 1.0, "unfrozen": 30.0}
    rows = [
        row(summary.PLAIN, **plain),
        row(summary.GRAFT, augment=1.0, features=6.0, finetune=14.0, svm=2.0),
        row(summary.GRAFT_FROZEN, features=5.0, finetune=5.0, svm=2.0),
    ]
    found = summary.Measurements(rows, 0.1, Setting(20, 10, 3, epochs=4, unfrozen_epochs=5)).speed()
    assert [line["plain s"] for line in found] == [20, 50, 25, 55]
    assert [line["Graft s"] for line in found] == [10, 20, 12, 22]
    assert [line["ratio"] for line in found] == pytest.approx([2, 2.5, 25 / 12, 2.5])
    assert [line["by CPU"] for line in found] == pytest.approx([2, 2.5, 25 / 12, 2.5])
    assert [line["without SVC"] for line in found] == pytest.approx([2, 2.5, 2.4, 2.7])
    assert found[0]["ceiling"] == pytest.approx(120 / 70)
    assert found[0]["reached"] == "117%"
    assert found[1]["with imports"] == pytest.approx(55 / 25)


def test_a_difference_is_taken_image_by_image() -> None:
    one, other = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    # Differences 0, 0, 1, 0: mean 1/4, standard deviation 1/2, so 1.96 * 0.5 / 2.
    assert summary.difference(one, other) == "+0.250 ± 0.490"


def test_growth_is_relative_to_the_smallest_size() -> None:
    rows = [
        {"stage": "svm", "images": 10, "seconds": 1.0, "peak MiB": 100.0, "without files MiB": 50.0},
        {"stage": "svm", "images": 40, "seconds": 8.0, "peak MiB": 110.0, "without files MiB": 50.0},
    ]
    lines = growth.relative(rows)
    assert [line["time per image"] for line in lines] == [1.0, 2.0]
    assert [line["peak"] for line in lines] == pytest.approx([1.0, 1.1])


def test_a_table_is_markdown() -> None:
    text = children.markdown(
        [{"name": "a", "seconds": 1.234, "rows": 1378}, {"name": "b", "seconds": 56.78, "rows": 2}]
    )
    assert text == "| name | seconds | rows |\n| --- | --: | --: |\n| a | 1.23 | 1,378 |\n| b | 56.8 | 2 |"


def test_a_line_of_the_serving_benchmark_counts_images_and_waits() -> None:
    line = serving.row("server", 2, (serving.Waits([0.1, 0.3], ["refused"]), 2.0))
    assert (line["requests"], line["errors"], line["images/s"]) == (2, 1, 2.0)
    assert line["p50 ms"] == pytest.approx(200)


def test_what_mlflow_costs_is_its_share_of_all_other_stages() -> None:
    found = tracking.overhead([{"a": 100.0, "track": 4.0}], [{"a": 102.0, "track": 5.0}])
    assert found["overhead"] == pytest.approx(0.07)
    assert found["overhead without live"] == pytest.approx(0.04)
