from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import DIGITS, fake_params, fake_predictions

from graft.artifacts import Predictions
from graft.evaluation import METRICS, evaluate
from graft.metrics import classification_metrics
from graft.reporting.comparison import Run
from graft.reporting.leaderboard import COLUMNS, as_records, build_leaderboard, final_split, metrics_by_model

COMPARE = fake_params(2).compare
UNGROUPED = {"validation": None, "test": None}
NO_SCORES = pd.DataFrame(columns=["backbone", "logme", "linear_probe"])
N = 40  # images of each split in `answers`


def answers(
    wrong: Sequence[int] = (), *, on_validation: Sequence[int] = (), sure: float = 0.8, temperature: float = 1.0
) -> Predictions:
    """Of 40 validation and 40 test images of two classes in turn, by the positions that are wrong in each split."""
    rows = pd.DataFrame(
        [(f"{split}-{k}", split, "ab"[k % 2]) for split in ("validation", "test") for k in range(N)],
        columns=["image_id", "split", "label"],
    )
    predicted = np.tile(np.arange(N) % 2, 2)
    mistaken = [*on_validation, *(N + k for k in wrong)]
    predicted[mistaken] = 1 - predicted[mistaken]
    return Predictions(rows, np.where(np.eye(2)[predicted] == 1, sure, 1 - sure), ("a", "b"), temperature)


def run(model: str = "m", predictions: Predictions | None = None, **facts: Any) -> Run:
    defaults: dict[str, Any] = {"kind": "svm", "backbone": None, "history": None, "parameters": 10}
    defaults["timings"] = {"train_seconds": 1.0}
    return Run(model=model, predictions=predictions or answers(), **(defaults | facts))


def table(*runs: Run, **changes: Any) -> pd.DataFrame:
    given: dict[str, Any] = {"groups": UNGROUPED, "transfer": NO_SCORES, "feature_seconds": {}}
    return build_leaderboard(runs, COMPARE, 1, **(given | changes))


def by_model(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    return dict(zip(frame["model"], frame[column], strict=True))


def confident(predictions: Predictions, factor: float) -> Predictions:
    """The same predicted classes with sharper or flatter probabilities."""
    probabilities = predictions.probabilities**factor
    return dataclasses.replace(predictions, probabilities=probabilities / probabilities.sum(axis=1, keepdims=True))


class TestFigures:
    def test_they_are_those_of_the_predictions_with_the_intervals_of_evaluate(self) -> None:
        runs = [run(name, fake_predictions(DIGITS, 12, 0.8, seed=seed)) for seed, name in enumerate("xy")]
        frame = table(*runs)
        assert tuple(frame.columns) == COLUMNS
        for each in runs:
            row = frame.set_index("model").loc[each.model]
            for split, prefix in (("validation", "val"), ("test", "test")):
                measured = evaluate(*each.predictions.split(split), None, COMPARE, 1)
                for metric in METRICS:
                    found = [row[f"{prefix}_{metric}{end}"] for end in ("", "_low", "_high")]
                    assert found == measured.loc[metric].tolist()
                for metric, value in classification_metrics(*each.predictions.split(split)).items():
                    assert row[f"{prefix}_{metric}"] == value
                assert row[f"n_{split}"] == 120

    def test_calibration_error_is_given_before_and_after(self) -> None:
        """80 % right at a confidence of 80 %; before, it was 0.8^2 / (0.8^2 + 0.2^2) at temperature 2."""
        frame = table(run(predictions=answers(range(8), temperature=2.0)))
        assert frame["test_calibration_error"].item() == pytest.approx(0)
        assert frame["test_calibration_error_before"].item() == pytest.approx(0.64 / 0.68 - 0.8)
        assert frame["temperature"].item() == 2.0

    def test_groups_make_intervals_wider(self) -> None:
        """Right and wrong by groups of five: eight observations instead of forty."""
        mistaken = run(predictions=answers([*range(5), *range(20, 25)]))
        groups = np.repeat(np.arange(8), 5).astype(object)
        alone, grouped = (table(mistaken, groups={"validation": None, "test": each}) for each in (None, groups))
        widths = [(frame["test_accuracy_high"] - frame["test_accuracy_low"]).item() for frame in (alone, grouped)]
        assert widths[1] > 1.5 * widths[0]
        assert alone["test_accuracy"].item() == grouped["test_accuracy"].item() == 0.75
        assert alone["val_accuracy_low"].item() == grouped["val_accuracy_low"].item()

    def test_repeats_give_a_mean_and_students_interval(self) -> None:
        """0.7, 0.6 and 0.5 have standard deviation 0.1; Student's 97.5 % quantile with 2 degrees is 4.302653."""
        first, *others = (answers(range(wrong)) for wrong in (12, 16, 20))
        frame = table(run(predictions=first, repeats=others))
        found = [frame[f"test_accuracy_mean{end}"].item() for end in ("", "_low", "_high")]
        margin = 4.302653 * 0.1 / 3**0.5
        assert found == pytest.approx([0.6, 0.6 - margin, 0.6 + margin], abs=1e-6)
        assert frame["test_accuracy"].item() == 0.7  # of the first, which is the model
        assert frame["repeats"].item() == 3

    def test_students_interval_ends_where_accuracy_does(self) -> None:
        frame = table(run(predictions=answers(), repeats=[answers(range(20))]))
        found = [frame[f"test_accuracy_mean{end}"].item() for end in ("", "_low", "_high")]
        assert found == [0.75, 0, 1]

    def test_one_training_has_no_interval_over_seeds(self) -> None:
        (record,) = as_records(table(run(predictions=answers(range(4)))))
        assert (record["repeats"], record["test_accuracy_mean"]) == (1, 0.9)
        assert record["test_accuracy_mean_low"] is record["test_accuracy_mean_high"] is None

    def test_scores_and_feature_seconds_are_those_of_the_base(self) -> None:
        runs = [
            run("vgg16", kind="finetune", backbone="vgg16"),
            run("vgg16-svm", backbone="vgg16"),
            run("cnn", kind="baseline"),
        ]
        scores = pd.DataFrame({"backbone": ["vgg16"], "logme": [0.5], "linear_probe": [0.75]})
        frame = table(*runs, transfer=scores, feature_seconds={"vgg16": 3.5}).set_index("model")
        for name in ("vgg16", "vgg16-svm"):
            assert frame.loc[name, ["logme", "linear_probe", "feature_seconds"]].tolist() == [0.5, 0.75, 3.5]
        assert frame.loc["cnn", ["logme", "linear_probe", "feature_seconds"]].isna().all()

    @pytest.mark.parametrize(
        ("timings", "expected"),
        [
            ({"train_seconds": 9.0}, [9.0, None, None]),
            ({"train_seconds": 9.0, "frozen_seconds": 4.0, "unfrozen_seconds": 5.0}, [9.0, 4.0, 5.0]),
            ({"train_seconds": 9.0, "frozen_seconds": 4.0, "whole_seconds": 5.0}, [9.0, 4.0, 5.0]),
        ],
    )
    def test_seconds_are_told_by_phase(self, timings: dict[str, float], expected: list[float | None]) -> None:
        (record,) = as_records(table(run(timings=timings)))
        assert [record[name] for name in ("train_seconds", "frozen_seconds", "unfrozen_seconds")] == expected


class TestRanking:
    def test_validation_alone_chooses_the_champion(self) -> None:
        good_on_test = run("good_on_test", answers([], on_validation=range(10)))
        good_on_validation = run("good_on_validation", answers(range(10)))
        frame = table(good_on_test, good_on_validation)
        assert frame["model"].tolist() == ["good_on_validation", "good_on_test"]
        assert frame["champion"].tolist() == [True, False]

    def test_ties_go_to_log_loss_then_parameters_then_name(self) -> None:
        plain = fake_predictions(DIGITS, 12, 1.0, seed=0)
        runs = [
            run("z", plain, parameters=5),
            run("c", plain),
            run("b", plain),
            run("sharp", confident(plain, 2), parameters=99),
        ]
        assert table(*runs)["model"].tolist() == ["sharp", "z", "b", "c"]


class TestVerdicts:
    def test_a_difference_that_is_significant_alone_may_not_be_after_holm(self) -> None:
        """Six images against none give McNemar's p = 2 / 2^6 = 0.03125, ten against none 2 / 2^10."""
        runs = [
            run("champion", answers()),
            run("six", answers(range(6), on_validation=[0])),
            run("ten", answers(range(10), on_validation=[0, 1])),
            run("same", answers(on_validation=[0, 1, 2])),
        ]
        frame = table(*runs)
        assert by_model(frame, "p_value") == pytest.approx(
            {"champion": np.nan, "six": 0.03125, "ten": 2 / 1024, "same": 1.0}, nan_ok=True
        )
        assert by_model(frame, "p_adjusted") == pytest.approx(
            {"champion": np.nan, "six": 2 * 0.03125, "ten": 3 * 2 / 1024, "same": 1.0}, nan_ok=True
        )
        assert by_model(frame, "verdict") == {
            "champion": "champion", "six": "not distinguishable", "ten": "worse", "same": "not distinguishable",
        }  # fmt: skip
        assert by_model(frame, "difference") == pytest.approx(
            {"champion": np.nan, "six": 6 / N, "ten": 10 / N, "same": 0.0}, nan_ok=True
        )
        assert by_model(table(*runs[:2]), "verdict")["six"] == "worse"

    def test_a_model_may_be_better_than_the_one_that_validation_chose(self) -> None:
        frame = table(run("chosen", answers(range(10))), run("ahead", answers(on_validation=[0])))
        ahead = frame.set_index("model").loc["ahead"]
        assert (ahead["verdict"], ahead["difference"], ahead["champion"]) == ("better", -0.25, False)
        assert ahead["difference_low"] < -0.25 < ahead["difference_high"] < 0

    def test_images_of_a_group_count_as_one_question(self) -> None:
        """Ten images in two groups, all decided alike: 2 of the 4 ways to flip the groups' signs are as extreme."""
        runs = [run("champion", answers()), run("other", answers(range(10), on_validation=[0]))]
        groups = np.repeat(np.arange(8), 5).astype(object)
        frame = table(*runs, groups={"validation": None, "test": groups})
        assert by_model(frame, "p_value")["other"] == 0.5
        assert by_model(frame, "verdict")["other"] == "not distinguishable"

    def test_a_single_model_is_compared_with_none(self) -> None:
        (record,) = as_records(table(run()))
        assert record["verdict"] == "champion"
        assert [record[name] for name in ("difference", "difference_low", "p_value", "p_adjusted")] == [None] * 4


class TestPareto:
    def test_the_frontier_leaves_out_what_another_beats_in_one_and_equals_in_the_other(self) -> None:
        facts = {  # wrong of 40 test images, and ms
            "best": (2, 10.0),
            "as_good_but_slower": (2, 12.0),
            "quick": (8, 2.0),
            "its_twin": (8, 2.0),
            "as_quick_but_worse": (9, 2.0),
            "between": (4, 5.0),
            "not_timed": (0, None),
        }
        runs = [
            run(name, answers(range(wrong)), costs={"latency_ms": latency}) for name, (wrong, latency) in facts.items()
        ]
        pareto = by_model(table(*runs), "pareto")
        assert {name for name, named in pareto.items() if named} == {"best", "quick", "its_twin", "between"}

    def test_without_test_images_validation_decides(self) -> None:
        def of_validation(wrong: int) -> Predictions:
            full = answers(on_validation=range(wrong))
            return dataclasses.replace(full, rows=full.rows[:N], probabilities=full.probabilities[:N])

        frame = table(
            run("best", of_validation(0), costs={"latency_ms": 3.0}),
            run("dominated", of_validation(1), costs={"latency_ms": 4.0}),
        )
        assert by_model(frame, "pareto") == {"best": True, "dominated": False}


class TestRecords:
    def test_without_test_images_the_test_figures_are_null(self) -> None:
        alone = fake_predictions(DIGITS, 12, 0.8, seed=0, test=False)
        worse = fake_predictions(DIGITS, 12, 0.3, seed=1, test=False)
        frame = table(run("a", alone), run("b", worse))
        records = as_records(frame)
        assert {record[name] for record in records for name in COLUMNS if name.startswith("test_")} == {None}
        assert (records[0]["n_test"], records[0]["n_validation"]) == (0, 120)
        assert [record["verdict"] for record in records] == ["champion", "worse"]
        assert metrics_by_model(frame) == {"a": {}, "b": {}}
        assert final_split(frame) == ("validation", "val")

    def test_they_survive_json_to_the_last_digit_without_nan(self) -> None:
        frame = table(
            run("cnn", answers(range(3)), kind="baseline", abstain_below=0.61),
            run("vgg16", answers(range(5), on_validation=[1]), kind="finetune", backbone="vgg16"),
        )
        records = json.loads(json.dumps(as_records(frame), allow_nan=False))
        assert [list(record) for record in records] == [list(COLUMNS)] * 2
        assert [record["val_log_loss"] for record in records] == frame["val_log_loss"].tolist()
        assert [(record["backbone"], record["abstain_below"]) for record in records] == [(None, 0.61), ("vgg16", None)]
        for record in records:
            assert type(record["champion"]) is type(record["pareto"]) is bool
            assert type(record["parameters"]) is type(record["repeats"]) is type(record["n_test"]) is int
            assert record["latency_ms"] is None

    def test_test_figures_by_model_are_those_of_the_rows(self) -> None:
        frame = table(run("x", answers(range(4))), run("y", answers(range(6), on_validation=[0])))
        assert final_split(frame) == ("test", "test")
        metrics = metrics_by_model(frame)
        assert {name: found["test_accuracy"] for name, found in metrics.items()} == {"x": 0.9, "y": 0.85}
        ends = {"test_accuracy_low", "test_accuracy_high"}
        assert set(metrics["x"]) == {f"test_{metric}" for metric in METRICS} | ends
        json.dumps(metrics, allow_nan=False)
