import dataclasses
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_comparison import fake_comparison
from fake_runs import fake_history, fake_params

from graft.reporting import figures
from graft.reporting.calibration_figures import coverage_curves, reliability_diagram
from graft.reporting.cost_figures import pareto
from graft.reporting.feature_maps import COLOURS, OTHERS, PICKED, class_styles, hardest_classes
from graft.reporting.marks import overlap

PARAMS = fake_params(2)


def words(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


class TestDraw:
    def test_equal_inputs_give_equal_bytes(self):
        comparison = fake_comparison(PARAMS)
        assert figures.draw(comparison) == figures.draw(comparison)

    def test_every_model_has_its_figures_and_what_was_measured_is_drawn(self):
        comparison = fake_comparison(PARAMS)
        assert set(figures.draw(comparison)) == (
            {"overview.svg", "coverage.svg", "pareto.svg", "transfer-linear_probe.svg", "transfer-logme.svg"}
            | {"curve.svg", "curve/vgg16.svg", "curve/resnet50.svg"}
            | {f"{model}/{figure}.svg" for model in comparison.runs for figure in ("confusion", "reliability")}
            | {f"{model}/curves.svg" for model in ("cnn", "vgg16", "resnet50")}
            | {f"maps/{base}-{plane}.svg" for base in ("vgg16", "resnet50") for plane in ("pca", "tsne")}
        )

    def test_what_was_not_measured_is_not_drawn(self):
        comparison = fake_comparison(PARAMS, bare=True)
        drawn = {name for name in figures.draw(comparison) if "/" not in name}
        assert drawn == {"overview.svg", "coverage.svg"}

    def test_matplotlibs_global_state_stays_as_it_was(self):
        before = dict(matplotlib.rcParams)
        figures.draw(fake_comparison(fake_params(0)))
        assert dict(matplotlib.rcParams) == before


class TestConfusion:
    def test_small_matrices_have_numbers_and_large_ones_do_not(self):
        for classes, numbered in ((4, True), (100, False)):
            names = [f"c{number}" for number in range(classes)]
            drawn = words(figures.confusion_matrix(np.eye(classes, dtype=int) * 777, names, "m"))
            assert ("777" in drawn) == numbered
            assert sum(word.startswith("c") for word in drawn) <= 2 * figures.NAMED_CLASSES

    def test_rows_are_actual_classes(self):
        drawn = figures.confusion_matrix(np.array([[0, 5], [0, 0]]), ["first", "second"], "m")
        five = next(e for e in ElementTree.fromstring(drawn).iter() if e.tag.endswith("text") and e.text == "5")
        x, y = float(five.get("x")), float(five.get("y"))
        assert x > 160 > y  # right column, upper row, in a drawing of 324 units

    def test_class_names_are_shown_as_they_are(self):
        names = ["$5 & <b>", "蜂", "x" * 40]
        drawn = words(figures.confusion_matrix(np.eye(3, dtype=int), names, "m"))
        assert {"$5 & <b>", "蜂", "x" * 13 + "…"} <= set(drawn)


class TestLearningCurves:
    def test_a_new_phase_is_marked_where_it_begins(self):
        two = figures.learning_curves(fake_history({"frozen": 3, "unfrozen": 2}, 0), "finetune", "c")
        one = figures.learning_curves(fake_history({"train": 5}, 0), "baseline", "c")
        assert "unfrozen" in words(two)
        assert not {"frozen", "train"} & {*words(two), *words(one)}

    def test_a_history_of_one_epoch_can_be_drawn(self):
        assert "epoch" in words(figures.learning_curves(fake_history({"train": 1}, 0), "baseline", "c"))


class TestCalibration:
    def test_a_single_bin_can_be_drawn(self):
        one = pd.DataFrame({"low": [0.9], "high": [1.0], "n": [3], "confidence": [0.99], "accuracy": [1.0]})
        assert "stated confidence" in words(reliability_diagram(one, one, "svm", "r"))

    def test_the_threshold_is_named_where_there_is_one(self):
        comparison = fake_comparison(PARAMS)
        assert "abstains below 0.55" in words(coverage_curves(comparison, "c"))
        champion = dataclasses.replace(comparison.champion, abstain_below=None)
        silent = dataclasses.replace(comparison, runs={**comparison.runs, champion.model: champion})
        assert not [word for word in words(coverage_curves(silent, "c")) if "abstains" in word]


class TestPareto:
    def test_the_frontier_is_named(self):
        frame = fake_comparison(PARAMS).frame
        assert set(frame["model"][frame["pareto"]]) <= set(words(pareto(frame, "p")))

    @pytest.mark.parametrize("column", ["latency_ms_low", "latency_ms_high"])
    def test_a_model_without_quartiles_or_time_does_not_stop_it(self, column):
        frame = fake_comparison(PARAMS).frame
        frame.loc[1, column] = np.nan
        frame.loc[2, ["latency_ms", "latency_ms_low", "latency_ms_high"]] = np.nan
        assert frame["model"][2] not in words(pareto(frame, "p"))


class TestFeatureMaps:
    def test_few_classes_have_a_colour_and_a_shape_of_their_own(self):
        names = [f"c{number}" for number in range(20)]
        assert len(set(class_styles(names, names).values())) == 20

    def test_of_many_classes_the_hardest_are_coloured(self):
        classes = [f"class {number}" for number in range(30)]
        comparison = fake_comparison(PARAMS, classes=classes, per_class=5)
        hardest = hardest_classes(comparison)
        assert len(hardest) == PICKED
        own = comparison.classes[comparison.classes["model"] == comparison.champion.model].set_index("label")["recall"]
        assert own[hardest].max() <= own.drop(hardest).min()
        styles = class_styles(classes, hardest)
        assert [styles[name][0] for name in hardest] == list(COLOURS)
        assert {styles[name] for name in set(classes) - set(hardest)} == {(OTHERS, "o")}


def test_boxes_that_touch_only_at_an_edge_do_not_overlap():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3))
    assert not overlap((0, 0, 2, 2), (2, 0, 4, 2))
