import functools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fake_comparison import fake_comparison
from fake_runs import fake_params

from graft.reporting import answer, leaderboard, text
from graft.reporting.columns import cells, column_groups
from graft.reporting.slice_rows import MOST, slice_rows

PARAMS = fake_params(2)


@functools.cache
def everything():
    return fake_comparison(PARAMS)


def records(**facts):
    return leaderboard.as_records(fake_comparison(PARAMS, **facts).frame)


class TestText:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            (text.percent(0.9361), "93.6 %"),
            (text.interval(0.906, 0.9583), "90.6–95.8 %"),
            (text.interval(None, None), "no interval"),
            (text.span(0.25, 0.5), "0.250–0.500"),
            (text.span(None, None), "no interval"),
            (text.points(0.0123), "+1.2"),
            (text.points(-0.0041), "−0.4"),
            (text.points(-0.0001), "0.0"),
            (text.p_value(0.31), "0.31"),
            (text.p_value(0.0042), "0.004"),
            (text.p_value(0.0001), "< 0.001"),
            (text.p_value(1.0), "1.00"),
            (text.milliseconds(0.424), "0.42 ms"),
            (text.milliseconds(4.24), "4.2 ms"),
            (text.milliseconds(42.4), "42 ms"),
            (text.magnitude(950), "950"),
            (text.magnitude(1_430_000, "B"), "1.43 MB"),
            (text.magnitude(21_000), "21.0 k"),
            (text.magnitude(2_100_000_000), "2.10 G"),
            (text.times(1.42), "1.4 times"),
            (text.times(12.3), "12 times"),
        ],
    )
    def test_numbers_as_people_read_them(self, written, expected):
        assert written == expected

    def test_durations(self):
        durations = [text.duration(s) for s in (0.04, 4.24, 9.96, 42.4, 119.4, 200)]
        assert durations == ["0.0 s", "4.2 s", "10 s", "42 s", "119 s", "3 min 20 s"]

    def test_markdown_is_one_table_with_every_model_and_its_verdict(self):
        frame = everything().frame
        lines = text.to_markdown(frame, 0.95).splitlines()
        assert lines[0].startswith("360 validation and 360 test images; accuracies with 95 % intervals; differences")
        assert {line.count("|") for line in lines[2:]} == {len(text.readable(frame).columns) + 1}
        cells = [[cell.strip() for cell in line.split("|")[1:]] for line in lines[4:]]
        assert [line[0] for line in cells] == frame["model"].tolist()
        assert [line[2] for line in cells] == frame["verdict"].tolist()

    def test_terminal_table_is_aligned(self):
        lines = text.to_text(everything().frame).splitlines()
        assert len({len(line) for line in lines}) == 1

    def test_without_test_images_and_costs_their_columns_are_left_out(self):
        frame = fake_comparison(PARAMS, test=False, bare=True).frame
        assert not {"test accuracy", "one image"} & set(text.readable(frame).columns)
        assert "of 360 validation images" in text.summary(frame)


def row(model, verdict="not distinguishable", **facts):
    defaults = {"latency_ms": 10.0, "parameters": 100, "difference_high": 0.02}
    return {"model": model, "verdict": verdict} | defaults | facts


class TestAnswer:
    def test_the_fastest_model_that_keeps_up_is_recommended(self):
        rows = [
            row("best", "champion"),
            row("fast", latency_ms=2.5, difference_high=0.034),
            row("faster_but_worse", "worse", latency_ms=1.0),
            row("slower", latency_ms=20.0),
        ]
        advice = answer.recommend(rows)
        assert (advice.model, advice.factor, advice.at_most_behind) == ("fast", 4.0, 0.034)

    def test_a_model_established_to_be_better_may_be_recommended_too(self):
        rows = [row("best", "champion"), row("ahead", "better", latency_ms=5.0, difference_high=-0.01)]
        advice = answer.recommend(rows)
        assert (advice.model, advice.at_most_behind) == ("ahead", 0.0)

    def test_a_little_faster_is_no_reason(self):
        assert answer.recommend([row("best", "champion"), row("same", latency_ms=9.0)]) is None

    def test_without_speeds_the_number_of_weights_decides(self):
        rows = [row("best", "champion", latency_ms=None), row("small", latency_ms=None, parameters=25)]
        advice = answer.recommend(rows)
        assert (advice.model, advice.factor, advice.latency_ms) == ("small", 4.0, None)

    def test_a_threshold_leaves_the_answers_at_and_above_it(self):
        coverage = pd.DataFrame(
            {"threshold": [0.5, 0.7, 0.9], "coverage": [1.0, 0.6, 0.2], "n": [10, 6, 2], "accuracy": [0.8, 0.9, 1.0],
             "low": 0.1, "high": 1.0}
        )  # fmt: skip
        assert answer.abstaining(coverage, 0.6) == answer.Abstaining(0.6, 6, 0.9, 0.1, 1.0)
        assert answer.abstaining(coverage, 0.95).accuracy is None
        assert answer.abstaining(coverage, None).share == 0

    def test_lone_confusions_are_not_called_frequent(self):
        counts = np.array([[5, 3, 1], [0, 9, 4], [2, 0, 9]])
        found = [(c.actual, c.predicted, c.count) for c in answer.frequent_confusions(counts, ["a", "b", "c"])]
        assert found == [("b", "c", 4), ("a", "b", 3), ("c", "a", 2)]


class TestColumns:
    def test_values_are_shown_rounded_and_kept_exact(self):
        rows = records()
        (first, *_), groups = rows, column_groups(rows, "test", 3)
        found = {cell.column.name: cell for cell in cells(first, groups)}
        accuracy = found["test_accuracy"]
        assert float(accuracy.value) == first["test_accuracy"]
        assert accuracy.text == text.percent(first["test_accuracy"])
        assert accuracy.under == text.interval(first["test_accuracy_low"], first["test_accuracy_high"])
        assert (found["difference"].text, found["difference"].value) == ("–", "")

    def test_what_no_model_has_is_no_column(self):
        titles = [group.title for group in column_groups(records(bare=True), "test", 3)]
        names = [c.name for group in column_groups(records(bare=True), "test", 3) for c in group.columns]
        assert "Its base" not in titles
        assert not {"latency_ms", "logme", "unknown"} & set(names)

    def test_a_single_model_has_nothing_to_be_compared_with(self):
        rows = leaderboard.as_records(fake_comparison(fake_params(0)).frame)
        assert not any(group.verdict for group in column_groups(rows, "test", 3))

    def test_several_seeds_get_a_column(self):
        rows = records(repeats=3)
        names = {c.name for group in column_groups(rows, "test", 3) for c in group.columns}
        assert "test_accuracy_mean" in names

    def test_only_the_worst_slices_are_shown(self):
        many = pd.concat([everything().slices] * 20, ignore_index=True)
        assert len(slice_rows(many)) == MOST
        assert slice_rows(many)[0]["title"] == "class: 8"


def test_no_heavy_or_global_module_is_imported():
    code = (
        "import sys, graft.reporting.page, graft.reporting.figures, graft.reporting.galleries\n"
        "print([m for m in ('tensorflow', 'keras', 'mlflow', 'dvc', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
