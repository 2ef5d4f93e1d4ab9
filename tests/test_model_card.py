"""The champion's model card: every number in it is the comparison's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tracked as fake
import numpy as np
import pandas as pd
import pytest
from fake_comparison import fake_comparison
from fake_runs import fake_params

from graft.params import Params
from graft.provenance import read_provenance
from graft.reporting.comparison import Comparison
from graft.reporting.leaderboard import METRICS
from graft.reporting.model_card import build_card, card_markdown
from graft.reporting.page import DataReport

PARAMS = fake_params(2)


def data_report(classes: tuple[str, ...]) -> DataReport:
    columns = ["label", "train", "validation", "test", "unused", "quarantined"]
    return DataReport(columns, [[name, "20", "36", "36", "80", "1"] for name in classes], [("truncated", 3)], None)


def compared(params: Params = PARAMS, **settings: Any) -> Comparison:
    comparison = fake_comparison(params, **settings)
    return replace(comparison, provenance=read_provenance(params, Path.cwd(), Path("nowhere") / "dvc.lock"))


def card_of(comparison: Comparison, params: Params = PARAMS) -> dict[str, Any]:
    return build_card(params, comparison, data_report(comparison.classes_in_order))


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compared()


@pytest.fixture(scope="module")
def card(comparison: Comparison) -> dict[str, Any]:
    return card_of(comparison)


def test_it_has_the_sections_that_mitchell_and_others_ask_for(card: dict[str, Any]) -> None:
    assert list(card) == [
        "model", "training", "data", "metrics", "classes", "weaknesses", "slices", "suspects", "calibration",
        "comparison", "costs", "weights", "environment", "intended_use", "out_of_scope",
    ]  # fmt: skip
    assert re.findall(r"^## (.+)$", card_markdown(card), re.MULTILINE) == [
        "Intended use", "Metrics", "Calibration", "Training", "Data", "Other models", "Costs", "Environment",
    ]  # fmt: skip


def test_json_holds_the_leaderboards_numbers_unrounded(card: dict[str, Any], comparison: Comparison) -> None:
    champion = comparison.frame.iloc[0]
    read = json.loads(json.dumps(card, allow_nan=False))
    assert read == card
    for split, prefix in (("validation", "val"), ("test", "test")):
        assert read["metrics"][split]["n"] == 360
        for metric in METRICS:
            ends = [champion[f"{prefix}_{metric}{end}"] for end in ("", "_low", "_high")]
            assert list(read["metrics"][split][metric].values()) == ends
    assert read["calibration"]["temperature"] == champion["temperature"]
    assert read["calibration"]["error_before"]["value"] == champion["test_calibration_error_before"]
    assert read["costs"]["latency_ms"] == champion["latency_ms"]
    assert read["data"]["totals"] == {"train": 200, "validation": 360, "test": 360, "unused": 800, "quarantined": 10}


def test_markdown_rounds_the_same_numbers(card: dict[str, Any], comparison: Comparison) -> None:
    text = card_markdown(card)
    accuracy, low, high = (100 * comparison.frame[f"test_accuracy{end}"].iloc[0] for end in ("", "_low", "_high"))
    assert f"Of 360 test images it recognises {accuracy:.1f} % ({low:.1f}–{high:.1f} %)." in text
    loss = comparison.frame["test_log_loss"].iloc[0]
    assert re.search(rf"\| log loss .* {loss:.3f} \(", text)
    assert "temperature of 1.30, fitted on validation" in text
    assert "trained for 14 epochs (frozen) and 9 epochs (unfrozen)" in text
    assert "Licence of the base's weights: your own; the fonts are free to use." in text
    assert "unfrozen_learning_rate: 0.001" in text
    assert "None" not in text
    assert "nan" not in text
    assert not re.search(r"\n{3}|[ \t]\n", text)


def test_the_weakest_classes_come_with_what_they_are_taken_for() -> None:
    worse = compared(champion="resnet50-svm", per_class=40)
    card = card_of(worse)
    labels, probabilities = worse.champion.predictions.split("test")
    names = np.asarray(worse.classes_in_order)
    taken = names[probabilities.argmax(axis=1)]
    own = worse.classes[worse.classes["model"] == worse.champion.model]
    by_f1 = own[own["f1"] < 1].sort_values("f1", kind="stable")
    assert [row["label"] for row in card["weaknesses"]] == by_f1["label"].head(5).tolist()
    for row in card["weaknesses"]:
        wrong = taken[(names[labels] == row["label"]) & (taken != row["label"])]
        assert row["taken_for"] == pd.Series(wrong).value_counts(sort=False).to_dict() or len(set(wrong)) > 3
        assert sum(row["taken_for"].values()) <= len(wrong)


def test_only_slices_that_are_worse_are_named(card: dict[str, Any]) -> None:
    text = card_markdown(card)
    assert card["slices"]["looked_at"] == 5
    assert [row["value"] for row in card["slices"]["worse"]] == ["8"]
    assert "| class: 8 |" in text
    assert "class: 9" not in text


def test_slices_of_which_none_is_worse_are_counted(comparison: Comparison) -> None:
    even = comparison.slices.assign(worse=False)
    text = card_markdown(card_of(replace(comparison, slices=even)))
    assert "None of 5 slices of the test images is established to be worse than the rest" in text


def test_top_k_accuracy_is_left_out_where_every_class_is_among_them(card: dict[str, Any]) -> None:
    assert "| top-3 accuracy" in card_markdown(card)
    two = {**card, "metrics": {**card["metrics"], "top_k": len(card["data"]["classes"])}}
    assert "accuracy, " not in card_markdown(two)
    assert "top-" not in card_markdown(two)


def test_abstaining_is_told_with_what_it_costs(card: dict[str, Any], comparison: Comparison) -> None:
    confidence = comparison.champion.predictions.split("test")[1].max(axis=1)
    answered = float((confidence >= card["calibration"]["abstain_below"]).mean())
    assert card["calibration"]["answered"]["share"] == answered
    assert f"It abstains below 55.0 %, so that on validation 99 % of its answers are right. It answered " \
        f"{100 * answered:.1f} % of the test images" in card_markdown(card)  # fmt: skip


@pytest.mark.parametrize(
    ("below", "said", "use"),
    [
        (
            None,
            "It abstains always: at no confidence were 99 % of its answers right",
            "To rank the classes for a person",
        ),
        (0.0, "It answers every image: on validation, 99 % of all answers or more were right.", None),
        (1.1, "It answered no test image.", "Together with a person who looks at the images on which it abstains."),
    ],
)
def test_a_model_that_abstains_always_never_or_too_often(
    comparison: Comparison, below: float | None, said: str, use: str | None
) -> None:
    run = replace(comparison.champion, abstain_below=below)
    card = card_of(replace(comparison, runs={**comparison.runs, run.model: run}))
    assert said in card_markdown(card)
    assert any(one.startswith(use) for one in card["intended_use"]) if use else len(card["intended_use"]) == 2


def test_out_of_scope_follows_from_data_and_augmentation() -> None:
    params = fake.change(PARAMS, augment__horizontal_flip=True, augment__rotation=0.05, data__resize="crop")
    cases = card_of(compared(params, per_class=4), params)["out_of_scope"]
    assert "What cannot be seen once an image is cut to its central square and resized to 32 x 32 px." in cases
    assert "Telling an image from its mirror image: it was trained on both." in cases
    assert "Images turned by more than 18 degrees: it was trained on none such." in cases
    assert cases[-1].startswith("Claims about 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9: fewer than 10 test images show it.")
    plain = fake.change(PARAMS, augment__views=1)
    assert len(card_of(compared(plain), plain)["out_of_scope"]) == 3


def test_without_a_test_split_the_figure_is_said_to_flatter() -> None:
    params = fake_params(2, test="none")
    card = card_of(compared(params, test=False), params)
    assert card["metrics"]["test"] is None
    text = card_markdown(card)
    assert "Of 360 validation images it recognises" in text
    assert "these images also chose the model, so the figure flatters it" in text
    assert "test, n" not in text


def test_what_was_not_measured_is_said_or_left_out() -> None:
    card = card_of(compared(bare=True))
    text = card_markdown(card)
    assert card["costs"]["latency_ms"] is None
    assert "Slices were not looked at." in text
    assert "suspected" not in text
    assert "One image" not in text
    assert "None" not in text


def test_an_svm_as_champion_tells_its_search_and_no_epochs() -> None:
    card = card_of(compared(champion="vgg16-svm"))
    text = card_markdown(card)
    assert "vgg16-svm is a support vector machine on the features of a frozen pretrained network (VGG16)" in text
    assert "Kernel and C were chosen by cross-validation" in text
    assert "epochs" not in text.partition("```yaml")[0]
    assert list(card["training"]["recipe"]) == ["base", "features", "svm"]


def test_a_single_network_from_scratch_needs_no_others() -> None:
    params = fake_params(0)
    card = card_of(compared(params), params)
    text = card_markdown(card)
    assert card["weights"] is None
    assert card["comparison"] == []
    assert "No weights of others went into it." in text
    assert "It is the only one." in text
    assert "Validation chose it" not in text


def test_models_that_cannot_be_told_from_it_are_named() -> None:
    text = card_markdown(card_of(compared(alike=True)))
    assert "Not distinguishable from it on test: cnn, resnet50, vgg16-svm and resnet50-svm." in text


def test_several_seeds_give_their_mean() -> None:
    params = fake.change(PARAMS, train__repeats=3)
    card = card_of(compared(params, repeats=3), params)
    mean = card["metrics"]["test"]["accuracy_mean"]
    assert f"Over 3 trainings from different seeds the test accuracy is {100 * mean['value']:.1f} %" in card_markdown(
        card
    )


def test_names_cannot_break_the_markdown() -> None:
    classes = ("a|b", "<b>bold</b>", "*", "`code`", *(f"class {number}" for number in range(40)))
    card = card_of(compared(classes=classes, per_class=3))
    text = card_markdown(card)
    rows = re.findall(r"^\|.*\|$", text.partition("## Data")[2].partition("##")[0], re.MULTILINE)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert "14 further classes are in the JSON file of this card." in text
    assert r"\<b>bold\</b>" in text
    assert card["data"]["classes"] == list(classes)
