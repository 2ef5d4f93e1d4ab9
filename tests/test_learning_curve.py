from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.curve_files import ALL, write_curve
from graft.learning_curve import COLUMNS, conclusions, duel, read_summary, summarise

# By kind and size: how many of ten test images each seed has right, and the same of ten for validation.
Right = Mapping[tuple[str, int], tuple[tuple[int, ...], tuple[int, ...]]]
Curve = tuple[pd.DataFrame, pd.DataFrame]
CNN: Right = {("baseline", 5): ((5, 6, 7), (6, 6, 6)), ("baseline", ALL): ((9, 9, 9), (9, 9, 9))}
VGG: Right = {
    ("frozen", 5): ((7, 8, 9), (7, 7, 7)),
    ("finetune", 5): ((8, 9, 10), (8, 8, 8)),
    ("frozen", ALL): ((8, 8, 8), (8, 8, 8)),
    ("finetune", ALL): ((10, 10, 9), (9, 9, 9)),
}


def curve(right: Right, seconds: float) -> Curve:
    """Predictions of ten images a split, the first ones right, and fits that take so long per image."""
    rows, fits = [], []
    for (kind, size), counts in right.items():
        images = 20 if size == ALL else 2 * size
        for seed in range(len(counts[0])):
            fits.append((kind, size, seed, images, 3, seconds * images))
            for split, count in zip(("test", "validation"), counts, strict=True):
                truth = [(f"{split}{k}", "bee", "bee" if k < count[seed] else "ant") for k in range(10)]
                rows += [(kind, size, seed, split, *image) for image in truth]
    columns = ["kind", "per_class", "seed", "split", "image_id", "label", "predicted"]
    fit_columns = ["kind", "per_class", "seed", "images", "epochs", "seconds"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(fits, columns=fit_columns)


def summary(cnn: Right = CNN, vgg: Right = VGG, seconds: float = 0.1) -> pd.DataFrame:
    curves = {"cnn": curve(cnn, 0.2), "vgg16": curve(vgg, seconds)}
    parts = [{name: pair[place] for name, pair in curves.items()} for place in (0, 1)]
    return summarise(parts[0], parts[1], "test", 0.95)


def test_accuracies_are_means_over_seeds_with_students_interval() -> None:
    table = summary()
    assert list(table.columns) == list(COLUMNS)
    found = table.set_index(["model", "kind", "per_class"])
    row = found.loc[("cnn", "baseline", 5)]
    # 0.5, 0.6 and 0.7: mean 0.6, standard deviation 0.1; Student's t of 2 degrees at 97.5 % is 4.3027.
    margin = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert row[["accuracy", "low", "high"]].tolist() == pytest.approx([0.6, 0.6 - margin, 0.6 + margin])
    assert (row["images"], row["seeds"]) == (10, 3)
    assert row["seconds"] == pytest.approx(2.0)
    assert row["validation_accuracy"] == pytest.approx(0.6)
    assert row["by_seed"] == pytest.approx({0: 0.5, 1: 0.6, 2: 0.7})


def test_sizes_ascend_and_all_images_come_last() -> None:
    assert summary()["per_class"].tolist() == [5, 5, 5, ALL, ALL, ALL]
    assert summary()["kind"].tolist() == ["baseline", "frozen", "finetune"] * 2


def test_one_seed_has_no_interval() -> None:
    table = summary(dict.fromkeys(CNN, ((8,), (8,))), dict.fromkeys(VGG, ((9,), (9,))))
    assert table["low"].isna().all()
    told = conclusions(table, 0.95)
    assert "a difference of +10.0 points (one seed, so no interval), which does not tell them apart." in told[0]
    assert "More accurate: not shown by one training each." in told[-1]


def test_without_a_test_split_accuracy_is_of_validation() -> None:
    predictions, fits = curve(CNN, 0.1)
    only = predictions[predictions["split"] == "validation"]
    table = summarise({"cnn": only}, {"cnn": fits}, "validation", 0.95)
    assert table["accuracy"].tolist() == pytest.approx([0.6, 0.9])
    assert table["validation_accuracy"].tolist() == pytest.approx([0.6, 0.9])


def test_the_summary_of_folders_is_that_of_their_tables(tmp_path: Path) -> None:
    for name, right, seconds in (("cnn", CNN, 0.2), ("vgg16", VGG, 0.1)):
        write_curve(tmp_path / name / "curve", *curve(right, seconds))
    pd.testing.assert_frame_equal(read_summary(tmp_path, ["cnn", "vgg16"], "test", 0.95), summary(), check_dtype=False)


def test_models_are_compared_seed_by_seed() -> None:
    found = duel(summary(), 5, 0.95)
    assert (found.transfer["kind"], found.scratch["kind"]) == ("finetune", "baseline")
    # The accuracies of each vary by 0.1 and their difference not at all.
    assert (found.difference, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))
    assert found.settled


def test_validation_chooses_the_transferred_model() -> None:
    swapped = {**VGG, ("frozen", 5): (VGG["frozen", 5][0], (9, 9, 9))}
    assert duel(summary(vgg=swapped), 5, 0.95).transfer["kind"] == "frozen"


def test_where_transfer_wins_the_labels_saved_are_named() -> None:
    assert conclusions(summary(), 0.95) == [
        "With 5 labelled images per class (10 in all), vgg16 (fine-tuned) has an accuracy of 90.0% and cnn (from "
        "scratch) one of 60.0%: a difference of +30.0 points (95% interval +30.0 to +30.0, 3 seeds).",
        "With all 20 labelled images, vgg16 (fine-tuned) has an accuracy of 96.7% and cnn (from scratch) one of 90.0%: "
        "a difference of +6.7 points (95% interval -7.7 to +21.0, 3 seeds), which does not tell them apart.",
        "vgg16 (fine-tuned) reaches the 90.0% that cnn (from scratch) has with all 20 labelled images with 5 labelled "
        "images per class (10 in all): 50% of the labels are saved.",
        "Transfer is said to need less data, to train faster and to be more accurate. Here, less data: yes. Faster: "
        "yes (2.0 s against 4.0 s with all 20 labelled images, without the base's own training and its one pass over "
        "the images). More accurate: not shown by 3 trainings each. "
        "Models were chosen on validation; the intervals are over the seeds, "
        "on the same images.",
    ]


def test_where_the_network_from_scratch_wins_that_is_said() -> None:
    better: Right = {("baseline", 5): ((10, 9, 10), (9, 9, 9)), ("baseline", ALL): ((10, 10, 10), (9, 9, 9))}
    worse: Right = {("svm", 5): ((5, 4, 5), (5, 5, 5)), ("svm", ALL): ((7, 6, 7), (7, 7, 7))}
    told = conclusions(summary(better, worse, seconds=0.3), 0.95)
    assert "a difference of -50.0 points (95% interval -50.0 to -50.0, 3 seeds)." in told[0]
    assert told[2] == (
        "No transferred model reaches the 100.0% that cnn (from scratch) has with all 20 labelled images: "
        "no labels are saved."
    )
    assert "less data: no. Faster: no (6.0 s against 4.0 s" in told[3]
    assert "More accurate: no." in told[3]


def test_no_label_is_saved_where_scratch_needs_as_few() -> None:
    steady: Right = {("baseline", 5): ((9, 9, 9), (9, 9, 9)), ("baseline", ALL): ((9, 9, 9), (9, 9, 9))}
    told = conclusions(summary(steady), 0.95)
    assert told[2].endswith("with 5 labelled images per class (10 in all), no fewer than are needed from scratch.")
    assert "less data: no." in told[3]


def test_without_both_sides_nothing_is_concluded() -> None:
    table = summary()
    assert conclusions(table[table["kind"] == "baseline"], 0.95) == []
    assert conclusions(table[table["kind"] != "baseline"], 0.95) == []


def test_seeds_that_only_one_of_both_has_are_left_out_of_their_difference() -> None:
    predictions, fits = curve(VGG, 0.1)
    keep = predictions["seed"] > 0, fits["seed"] > 0
    cnn = curve(CNN, 0.2)
    table = summarise(
        {"cnn": cnn[0], "vgg16": predictions[keep[0]]}, {"cnn": cnn[1], "vgg16": fits[keep[1]]}, "test", 0.95
    )
    assert duel(table, ALL, 0.95).difference == pytest.approx(np.mean([0.1, 0.0]))
