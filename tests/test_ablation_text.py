from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from test_ablation_tables import manifest, outcome

from graft.ablation_tables import ablation_table
from graft.ablation_text import lecture_rule, to_markdown, verdicts
from graft.comparison_sections import Compare

COMPARE = Compare(confidence=0.95, resamples=100, top_k=2, calibration_bins=5)


def rows(*values: dict[str, Any]) -> pd.DataFrame:
    """Of flatten against avg."""
    first = {"backbone": "base", "application": "VGG16", "pooling": "flatten", "split": "test", "n_test": 1200}
    first |= {"repeats": 1, "pooling_p_value": 0.01, "pooling_p_adjusted": 0.02, "pooling_difference": 0.05}
    return pd.DataFrame([first | value for value in values])


@pytest.mark.parametrize(
    ("application", "rule"),
    [("VGG19", "flatten"), ("ResNet101", "avg"), ("InceptionV3", "avg"), ("MobileNet", None)],
)
def test_the_rule_goes_by_the_family(application: str, rule: str | None) -> None:
    assert lecture_rule(application) == rule


@pytest.mark.parametrize(
    ("application", "value", "said"),
    [
        ("VGG16", {}, "the lecture's rule, Flatten, is supported; Flatten is better in 1, average pooling in 0 of 1"),
        ("ResNet50", {}, "the lecture's rule, average pooling, is contradicted; Flatten is better in 1"),
        ("ResNet50", {"pooling_difference": -0.05}, "is supported; Flatten is better in 0, average pooling in 1 of 1"),
        ("VGG16", {"pooling_p_adjusted": 0.06}, "is not decided by these images; Flatten is better in 0, average"),
        ("MobileNet", {}, "the lecture has no rule for MobileNet; Flatten is better in 1"),
    ],
)
def test_the_sentence_of_a_base(application: str, value: dict[str, Any], said: str) -> None:
    sentence = verdicts(rows({"application": application} | value), 0.95)["base"]
    assert said in sentence
    assert sentence.endswith("of 1 comparisons on 1,200 test images.")


def test_heads_that_disagree() -> None:
    sentence = verdicts(rows({}, {"pooling_difference": -0.02}), 0.95)["base"]
    assert "is supported with one head and contradicted with another" in sentence


@pytest.mark.parametrize(("low", "decided"), [(-0.01, False), (0.01, True)])
def test_one_seed_of_several_decides_nothing(low: float, decided: bool) -> None:
    ends = {"pooling_difference_mean_low": low, "pooling_difference_mean_high": 0.1}
    sentence = verdicts(rows({"repeats": 3} | ends), 0.95)["base"]
    assert ("is supported" in sentence) is decided


def test_the_table_for_people() -> None:
    outcomes = [
        *(outcome("flatten", {4, 5}), outcome("avg", set()), outcome("avg", {4}, hidden=8)),
        outcome("avg", {4}, hidden=None, kind="svm"),
    ]
    table = ablation_table(outcomes, manifest(), COMPARE, seed=1).assign(commit="abc", dirty=True)
    text = to_markdown(table, 0.95)
    assert "4 validation and 12 test images with its 95 % interval" in text
    assert "Each was trained once" in text
    assert "Commit abc, with changes." in text
    assert "* vgg16: the lecture's rule, Flatten, is not decided by these images" in text
    flat = next(line for line in text.splitlines() if "| flatten |" in line)
    assert flat.startswith("| vgg16 | no hidden layer | flatten | 96 px | 3x4 | 60 | 7 | 100.0% (")
    assert "| -16.7 (" in flat
    assert "| 8 hidden units | avg |" in text
    assert "| SVM | avg |" in text
    assert "* Accuracy of the bases on the validation images of their source task: vgg16 25.0%." in text
    assert "nan" not in text


def test_repeats_add_a_column() -> None:
    table = ablation_table([outcome("flatten", {4}, {5}), outcome("avg", set(), {6})], manifest(), COMPARE, seed=1)
    text = to_markdown(table.assign(commit=None, dirty=False), 0.95)
    assert "first of 2 trainings" in text
    assert "| over the seeds | seconds |" in text
    assert "Commit none." in text
