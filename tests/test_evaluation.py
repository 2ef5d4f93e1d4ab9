from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from graft.comparison_sections import Compare
from graft.evaluation import METRICS, evaluate, evaluate_classes
from graft.intervals import wilson_interval
from graft.metrics import classification_metrics
from graft.reliability import calibration_error

SETTINGS = Compare(confidence=0.95, resamples=500, top_k=3, calibration_bins=15)


def predicted(n: int, classes: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    scores = generator.normal(size=(n, classes))
    scores[np.arange(n), labels] += signal
    powers = np.exp(2 * scores)
    return labels, powers / powers.sum(axis=1, keepdims=True)


def certain(labels: np.ndarray, chosen: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[chosen] * 0.9 + 0.1 / classes


def test_values_are_those_of_independent_implementations() -> None:
    labels, probabilities = predicted(300, 5, 2.0)
    table = evaluate(labels, probabilities, None, SETTINGS, 1)
    assert table.index.tolist() == list(METRICS)
    assert table.columns.tolist() == ["value", "low", "high"]
    for name, value in classification_metrics(labels, probabilities).items():
        assert table.loc[name, "value"] == value
    assert table.loc["roc_auc", "value"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    one_hot = np.eye(5)[labels]
    assert table.loc["average_precision", "value"] == pytest.approx(average_precision_score(one_hot, probabilities))
    assert table.loc["calibration_error", "value"] == calibration_error(labels, probabilities, 15)
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()


def test_it_is_seeded_and_gives_what_is_asked_for() -> None:
    labels, probabilities = predicted(200, 4, 2.0)
    table = evaluate(labels, probabilities, None, SETTINGS, 1)
    assert table.equals(evaluate(labels, probabilities, None, SETTINGS, 1))
    assert not table.equals(evaluate(labels, probabilities, None, SETTINGS, 2))
    some = evaluate(labels, probabilities, None, SETTINGS, 1, metrics=("roc_auc", "calibration_error", "accuracy"))
    assert some.equals(table.loc[["roc_auc", "calibration_error", "accuracy"]])
    wider = evaluate(labels, probabilities, None, SETTINGS.model_copy(update={"confidence": 0.99}), 1)
    assert (wider["low"] <= table["low"]).all()
    assert (wider["high"] >= table["high"]).all()


def test_the_interval_of_the_accuracy_is_nearly_wilsons() -> None:
    labels, probabilities = predicted(360, 10, 3.0)
    right = (probabilities.argmax(axis=1) == labels).sum()
    found = evaluate(labels, probabilities, None, SETTINGS, 1, metrics=("accuracy",)).loc["accuracy"]
    assert (found["low"], found["high"]) == pytest.approx(wilson_interval(right, 360, 0.95), abs=0.006)


def test_groups_widen_where_their_images_are_alike() -> None:
    labels, probabilities = predicted(60, 3, 1.5)
    metrics = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "roc_auc", "average_precision")
    six_times = np.repeat(np.arange(60), 6)
    groups = np.array([f"photo {place:02}" for place in six_times], object)
    copies = labels[six_times], probabilities[six_times]
    single = evaluate(labels, probabilities, None, SETTINGS, 1, metrics)
    grouped = evaluate(*copies, groups, SETTINGS, 1, metrics)
    apart = evaluate(*copies, None, SETTINGS, 1, metrics)
    assert grouped["low"].tolist() == pytest.approx(single["low"].tolist())  # copies tell nothing new
    assert grouped["high"].tolist() == pytest.approx(single["high"].tolist())
    assert (apart["high"] - apart["low"] < 0.6 * (single["high"] - single["low"])).all()
    own = np.array([f"{place:02}" for place in range(60)], object)
    assert evaluate(labels, probabilities, own, SETTINGS, 1, metrics).equals(single)


def test_all_right_is_not_known_to_be_always_right() -> None:
    labels = np.arange(60) % 3
    table = evaluate(labels, certain(labels, labels, 3), None, SETTINGS, 1)
    expected = proportion_confint(60, 60, 0.05, "wilson")[0]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision"):
        assert table.loc[name].tolist() == pytest.approx([1, expected, 1])
    assert table.loc["top_k_accuracy"].tolist() == [1, 1, 1]  # of three classes, three are named
    assert table.loc["log_loss", ["low", "high"]].isna().all()  # each image loses the same
    assert table.loc["brier", "low"] < table.loc["brier", "value"] < table.loc["brier", "high"] < 0.2
    assert table.loc["calibration_error", "low"] == 0


def test_the_edge_counts_groups_small_classes_and_the_rarer_side() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 40])
    probabilities = certain(labels, labels, 3)
    table = evaluate(labels, probabilities, None, SETTINGS, 1)
    balanced = 9 / (1 / 10 + 1 / 20 + 1 / 40)
    assert table.loc["balanced_accuracy", "low"] == pytest.approx(wilson_interval(balanced, balanced, 0.95)[0])
    ranked = 9 / (1 / 10 + 1 / 20 + 1 / 30)  # of the last class the 30 others are fewer
    assert table.loc["roc_auc", "low"] == pytest.approx(wilson_interval(ranked, ranked, 0.95)[0])
    pairs = np.array([f"pair {place // 2}" for place in range(70)], object)
    grouped = evaluate(labels, probabilities, pairs, SETTINGS, 1)
    assert grouped.loc["accuracy", "low"] == pytest.approx(wilson_interval(35, 35, 0.95)[0])
    two = evaluate(labels[:30], probabilities[:30, :2], None, SETTINGS, 1)
    assert two.loc["roc_auc", "low"] == pytest.approx(wilson_interval(10, 10, 0.95)[0])


def test_what_is_undefined_is_nan() -> None:
    one_class = evaluate(np.zeros(8, int), predicted(8, 4, 1.0)[1], None, SETTINGS, 1)
    assert one_class.loc[["roc_auc", "average_precision"]].isna().all(axis=None)
    assert one_class.drop(["roc_auc", "average_precision"]).notna().all(axis=None)
    one_image = evaluate(np.array([1]), np.array([[0.2, 0.8]]), None, SETTINGS, 1)
    assert one_image.loc["accuracy"].tolist() == pytest.approx([1, *wilson_interval(1, 1, 0.95)])
    assert one_image.loc[["log_loss", "calibration_error"], ["low", "high"]].isna().all(axis=None)
    absent = evaluate(*predicted(40, 3, 1.0), None, SETTINGS, 1)
    wider = evaluate(predicted(40, 3, 1.0)[0], np.pad(predicted(40, 3, 1.0)[1], ((0, 0), (0, 2))), None, SETTINGS, 1)
    assert wider.drop("top_k_accuracy").equals(absent.drop("top_k_accuracy"))


def test_one_image_per_class_and_one_group_give_intervals_or_say_nothing() -> None:
    labels, probabilities = predicted(12, 12, 2.0)
    table = evaluate(labels, probabilities, None, SETTINGS, 1)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    together = np.array(["a"] * 12, object)
    table = evaluate(labels, probabilities, together, SETTINGS, 1)
    share = table.loc["accuracy", "value"]
    assert table.loc["accuracy", ["low", "high"]].tolist() == pytest.approx(wilson_interval(share, 1, 0.95))


def test_what_does_not_fit_is_refused() -> None:
    labels, probabilities = predicted(9, 3, 1.0)
    with pytest.raises(ValueError, match=r"metrics must be among .*, received \['auc'\]"):
        evaluate(labels, probabilities, None, SETTINGS, 1, metrics=("accuracy", "auc"))
    with pytest.raises(ValueError, match="expected 9 rows of probabilities"):
        evaluate(labels, probabilities[:5], None, SETTINGS, 1)
    with pytest.raises(ValueError, match="received 9 labels and 5 groups"):
        evaluate(labels, probabilities, np.array(list("abcde"), object), SETTINGS, 1)
    with pytest.raises(ValueError, match="received 0 labels"):
        evaluate(labels[:0], probabilities[:0], None, SETTINGS, 1)


def test_classes_by_hand() -> None:
    """Class 0: three of four, and one of class 1 is called so. Class 2 occurs and is never predicted. No class 3."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    chosen = np.array([0, 0, 0, 1, 1, 1, 0, 1, 1])
    table = evaluate_classes(labels, certain(labels, chosen, 4), None, SETTINGS, 1)
    assert table["n"].tolist() == [4, 3, 2, 0]
    assert table.loc[0, ["precision", "recall", "f1"]].tolist() == pytest.approx([3 / 4, 3 / 4, 3 / 4])
    assert table.loc[1, ["precision", "recall", "f1"]].tolist() == pytest.approx([2 / 5, 2 / 3, 4 / 8])
    assert table.loc[2, ["recall", "f1"]].tolist() == [0, 0]
    assert table.loc[2, ["precision", "precision_low", "precision_high"]].isna().all()
    assert table.loc[3].drop("n").isna().all()
    assert table.loc[1, ["recall_low", "recall_high"]].tolist() == pytest.approx(
        proportion_confint(2, 3, 0.05, "wilson")
    )
    assert table.loc[1, ["precision_low", "precision_high"]].tolist() == pytest.approx(
        proportion_confint(2, 5, 0.05, "wilson")
    )
    low, high = proportion_confint(2, 6, 0.05, "wilson")  # six images are or are called 1
    assert table.loc[1, ["f1_low", "f1_high"]].tolist() == pytest.approx([2 * low / (1 + low), 2 * high / (1 + high)])


def test_classes_are_scikit_learns() -> None:
    labels, probabilities = predicted(200, 6, 1.5)
    table = evaluate_classes(labels, probabilities, None, SETTINGS, 1)
    expected = precision_recall_fscore_support(labels, probabilities.argmax(axis=1))
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        assert table[name].tolist() == pytest.approx(values.tolist())


def test_classes_in_groups_count_the_groups() -> None:
    labels, probabilities = predicted(60, 3, 1.5)
    six_times = np.repeat(np.arange(60), 6)
    groups = np.array([f"photo {place:02}" for place in six_times], object)
    settings = SETTINGS.model_copy(update={"resamples": 4000})
    single = evaluate_classes(labels, probabilities, None, settings, 1)
    grouped = evaluate_classes(labels[six_times], probabilities[six_times], groups, settings, 1)
    for end in ("recall_low", "recall_high"):
        assert grouped[end].tolist() == pytest.approx(single[end].tolist(), abs=0.03)
    all_right = evaluate_classes(labels[six_times], certain(labels, labels, 3)[six_times], groups, settings, 1)
    assert all_right["recall_low"].tolist() == pytest.approx([wilson_interval(20, 20, 0.95)[0]] * 3)
    own = np.array([f"{place:02}" for place in range(60)], object)
    alone = evaluate_classes(labels, probabilities, own, settings, 1)
    assert (alone - single).abs().max(axis=None) < 0.05
