from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import tiny_params

from graft.ablation_tables import COLUMNS, Outcome, ablation_table
from graft.artifacts import Manifest, Predictions
from graft.evaluation import evaluate
from graft.significance import paired_difference

CLASSES = ("a", "b")
VALIDATION, TEST = 4, 12
SPLITS = ["train"] * 2 + ["validation"] * VALIDATION + ["test"] * TEST
LABELS = np.arange(len(SPLITS)) % 2
SETTINGS = tiny_params().compare


def manifest(test: bool = True, groups: list[str] | None = None) -> Manifest:
    count = len(SPLITS) if test else len(SPLITS) - TEST
    names = [f"i{number}" for number in range(count)]
    columns: dict[str, Any] = {"image_id": names, "label": np.array(CLASSES)[LABELS[:count]], "split": SPLITS[:count]}
    columns |= {"group": groups or names, "source": names, "width": 8, "height": 8}
    return Manifest(pd.DataFrame(columns), CLASSES)


def predictions(wrong: set[int], of: Manifest) -> Predictions:
    """All held-out images but the wrong ones, by their numbers among these, are predicted right."""
    rows = of.rows[of.rows["split"] != "train"]
    labels = of.labels[of.rows["split"] != "train"]
    right = ~np.isin(np.arange(len(rows)), list(wrong))
    return Predictions(rows[["image_id", "split", "label"]], np.eye(2)[np.where(right, labels, 1 - labels)], CLASSES)


def outcome(
    pooling: str, *wrong: set[int], hidden: int | None = 0, kind: str = "finetune", of: Manifest | None = None
) -> Outcome:
    shape = (3, 4, 5)
    predicted = [predictions(each, of or manifest()) for each in wrong]
    return Outcome("vgg16", "VGG16", kind, pooling, hidden, 96, shape, 0.25, 7, predicted, 1.5, 0.5)


def table(*outcomes: Outcome, of: Manifest | None = None) -> pd.DataFrame:
    return ablation_table(outcomes, of or manifest(), SETTINGS, seed=1)


def test_accuracies_and_what_stands_behind_them_by_hand() -> None:
    """Wrong: one of four validation images, and three of twelve test images."""
    flat, pooled = (table(outcome(name, {0, 5, 6, 7})).iloc[0] for name in ("flatten", "max"))
    assert list(flat.index) == list(COLUMNS)
    assert (flat["vector_length"], pooled["vector_length"]) == (60, 5)
    assert flat[["map_height", "map_width", "head_parameters", "n_validation", "n_test"]].tolist() == [3, 4, 7, 4, 12]
    assert flat["validation_accuracy"] == 0.75
    assert flat["test_accuracy"] == flat["accuracy_mean"] == 0.75
    labels, probabilities = predictions({0, 5, 6, 7}, manifest()).split("test")
    expected = evaluate(labels, probabilities, None, SETTINGS, 1, metrics=("accuracy",)).loc["accuracy"]
    assert flat[["test_accuracy", "test_accuracy_low", "test_accuracy_high"]].tolist() == expected.tolist()
    assert np.isnan(flat["accuracy_mean_low"])  # of one training
    assert np.isnan(flat["pooling_difference"])  # nothing to be set against


def test_poolings_are_set_against_average_pooling_under_the_same_head() -> None:
    rows = table(
        outcome("flatten", {4, 5, 6}), outcome("avg", {4, 15}), outcome("avg", {7}, hidden=8), outcome("min", set())
    )
    flat = rows.iloc[0]
    assert flat["pooling_difference"] == pytest.approx(-1 / 12)
    assert flat[["pooling_only_this", "pooling_only_other"]].tolist() == [1, 2]
    assert flat["pooling_p_value"] == 1.0  # one against two images
    labels, first = predictions({4, 5, 6}, manifest()).split("test")
    second = predictions({4, 15}, manifest()).split("test")[1]
    expected = paired_difference(labels, first, second, None, SETTINGS, 1)
    assert (flat["pooling_difference_low"], flat["pooling_difference_high"]) == (expected.low, expected.high)
    assert rows["pooling_p_value"].notna().tolist() == [True, False, False, True]


def test_a_hidden_layer_is_set_against_none_with_the_same_pooling() -> None:
    rows = table(outcome("max", {4, 5}), outcome("max", {4}, hidden=8), outcome("avg", {4}, hidden=8))
    assert rows["hidden_difference"].tolist()[1] == pytest.approx(1 / 12)
    assert rows["hidden_p_value"].notna().tolist() == [False, True, False]


def test_svms_have_no_hidden_layer() -> None:
    rows = table(outcome("flatten", {4}, hidden=None, kind="svm"), outcome("avg", set(), hidden=None, kind="svm"))
    assert rows["hidden_units"].isna().all()
    assert rows["pooling_difference"][0] == pytest.approx(-1 / 12)
    assert rows["hidden_p_value"].isna().all()


def test_p_values_are_corrected_over_the_comparisons_of_one_pooling() -> None:
    """Six and one images of twelve decide: exact p 2 / 64, and 1."""
    six, one = set(range(4, 10)), {4}
    rows = table(
        *(outcome("flatten", six), outcome("avg", set())),
        *(outcome("flatten", one, hidden=8), outcome("avg", set(), hidden=8), outcome("max", six)),
    )
    assert rows["pooling_p_value"].dropna().tolist() == pytest.approx([2 / 64, 1, 2 / 64])
    assert rows["pooling_p_adjusted"].dropna().tolist() == pytest.approx([4 / 64, 1, 2 / 64])


def test_trainings_from_several_seeds_have_a_mean_and_an_interval() -> None:
    """Seed by seed, flatten is behind by two images of twelve, and by one."""
    rows = table(outcome("flatten", {4, 5}, {4, 5, 6}), outcome("avg", set(), {4, 5}))
    flat = rows.iloc[0]
    assert flat["repeats"] == 2
    assert flat["accuracy_mean"] == pytest.approx((10 / 12 + 9 / 12) / 2)
    assert flat["pooling_difference_mean"] == pytest.approx(-1.5 / 12)
    half = 12.706204736174694 * np.std([2 / 12, 1 / 12], ddof=1) / np.sqrt(2)  # Student's quantile, one degree
    assert flat["pooling_difference_mean_high"] == pytest.approx(-1.5 / 12 + half)


def test_without_test_images_the_validation_images_decide() -> None:
    of = manifest(test=False)
    rows = table(outcome("flatten", {0}, of=of), outcome("avg", set(), of=of), of=of)
    assert rows["split"].tolist() == ["validation"] * 2
    assert rows["pooling_difference"][0] == -0.25
    assert rows["test_accuracy"].isna().all()


def test_images_of_one_group_are_resampled_together() -> None:
    groups = [f"g{number // 3}" for number in range(len(SPLITS))]
    of = manifest(groups=groups)
    row = table(outcome("avg", {4, 5, 6}, of=of), of=of).iloc[0]
    labels, probabilities = predictions({4, 5, 6}, of).split("test")
    names = np.array(groups, object)[2 + VALIDATION :]
    expected = evaluate(labels, probabilities, names, SETTINGS, 1, metrics=("accuracy",)).loc["accuracy"]
    assert row[["test_accuracy", "test_accuracy_low", "test_accuracy_high"]].tolist() == expected.tolist()
