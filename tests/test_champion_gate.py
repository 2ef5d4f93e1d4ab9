import math

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_params

from graft.artifacts import Predictions
from graft.champion_gate import judge

SETTINGS = fake_params(1).compare
CLASSES = ("ant", "bee")


def predictions(right, *, split="validation", classes=CLASSES, labels=None, ids=None):
    """One row per image, of the classes in turn, answered rightly where `right` says so."""
    labels = labels or [classes[number % 2] for number in range(len(right))]
    ids = ids or [f"{split}-{number}" for number in range(len(right))]
    probabilities = np.full((len(right), len(classes)), 0.1 / (len(classes) - 1))
    for row, (label, good) in enumerate(zip(labels, right, strict=True)):
        actual = classes.index(label)
        probabilities[row, actual if good else (actual + 1) % len(classes)] = 0.9
    rows = pd.DataFrame({"image_id": ids, "split": split, "label": labels})
    return Predictions(rows, probabilities, classes)


def joined(*parts):
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    return Predictions(rows, np.concatenate([part.probabilities for part in parts]), parts[0].classes)


def answer(new, present, groups=None):
    return judge(new, present, groups or {image: image for image in new.rows["image_id"]}, SETTINGS, 1)


MOST, FEW, HALF = [True] * 95 + [False] * 5, [True] * 10 + [False] * 90, [True, True, False, False] * 25


def test_a_model_that_is_better_or_as_good_is_promoted():
    better = answer(predictions(MOST), predictions(HALF))
    assert (better.promote, better.n, round(better.difference, 4)) == (True, 100, 0.45)
    assert 0 < better.low < 0.45 < better.high
    same = answer(predictions(MOST), predictions(MOST))
    assert same.promote
    assert same.difference == 0
    assert "not worse than the present champion: accuracy +0.0 points, 95 % interval" in same.reason
    assert "on 100 validation images of both" in same.reason


def test_a_model_that_is_surely_worse_is_refused_and_its_reason_says_how_to_overrule_that():
    worse = answer(predictions(FEW), predictions(MOST))
    assert (worse.promote, worse.n) == (False, 100)
    assert worse.difference == pytest.approx(-0.85)
    assert worse.high < 0
    assert "worse than the present champion: accuracy -85.0 points" in worse.reason
    assert "`graft promote`" in worse.reason


def test_a_model_that_is_worse_within_the_interval_is_promoted():
    verdict = answer(predictions([True] * 93 + [False] * 7), predictions(MOST))
    assert verdict.difference == pytest.approx(-0.02)
    assert verdict.low < 0 < verdict.high
    assert verdict.promote


def test_images_of_one_group_count_as_one_observation():
    new, present = predictions([True] * 84 + [False] * 16), predictions([True] * 100)
    alone = answer(new, present)
    grouped = answer(new, present, {image: str(min(n, 84)) for n, image in enumerate(new.rows["image_id"])})
    assert alone.difference == grouped.difference == pytest.approx(-0.16)
    assert not alone.promote
    assert grouped.promote  # all errors are of one scene


def test_only_images_that_both_have_count_in_whatever_order_they_come():
    ids = [f"i{number}" for number in range(120)]
    new = predictions(MOST + [True] * 20, ids=ids)
    order = np.random.default_rng(0).permutation(100)
    whole = predictions([True] * 100, ids=ids[:100])
    shuffled = Predictions(whole.rows.iloc[order], whole.probabilities[order], whole.classes)
    verdict = answer(new, shuffled)
    assert (verdict.n, round(verdict.difference, 4)) == (100, -0.05)
    assert verdict == answer(new, whole)


def test_test_images_change_nothing():
    new, present = predictions(HALF), predictions(MOST)
    expected = answer(new, present)
    for ours, theirs in ((MOST, FEW), (FEW, MOST), ([True] * 100, [False] * 100)):
        with_test = joined(new, predictions(ours, split="test")), joined(present, predictions(theirs, split="test"))
        assert answer(*with_test) == expected
    # What was a test image for one of them is none for both either.
    moved = predictions([True] * 100, split="test", ids=[f"m{number}" for number in range(100)])
    seen = predictions([False] * 100, ids=[f"m{number}" for number in range(100)])
    assert answer(joined(new, moved), joined(present, seen)) == expected
    assert answer(joined(new, seen), joined(present, moved)) == expected


def test_labels_are_those_of_the_new_model_where_they_differ():
    flipped = [CLASSES[(number + 1) % 2] for number in range(100)]
    verdict = answer(predictions([True] * 100, labels=flipped), predictions([True] * 100))
    assert verdict.difference == 1.0


def test_classes_in_another_order_are_the_same_classes():
    new, present = predictions(HALF), predictions(MOST)
    turned = Predictions(present.rows, present.probabilities[:, ::-1], CLASSES[::-1])
    assert answer(new, turned) == answer(new, present)


def test_a_model_of_other_classes_answers_another_question_and_is_promoted():
    verdict = answer(predictions(FEW, classes=("ant", "wasp")), predictions(MOST))
    assert verdict.promote
    assert verdict.difference is None
    assert "another question" in verdict.reason
    assert "added: wasp; gone: bee" in verdict.reason


def test_without_a_shared_validation_image_nothing_is_promoted():
    verdict = answer(predictions(MOST, ids=[f"other-{n}" for n in range(100)]), predictions(FEW))
    assert (verdict.promote, verdict.n, verdict.difference) == (False, 0, None)
    assert "shares no validation image" in verdict.reason
    assert "`graft promote`" in verdict.reason


@pytest.mark.parametrize("right", [[True], [False], [True, False]])
def test_few_images_give_a_wide_interval_rather_than_an_error(right):
    verdict = answer(predictions(right), predictions([not good for good in right]))
    assert math.isfinite(verdict.low)
    assert verdict.promote


def test_the_same_question_has_the_same_answer():
    assert answer(predictions(HALF), predictions(MOST)) == answer(predictions(HALF), predictions(MOST))
