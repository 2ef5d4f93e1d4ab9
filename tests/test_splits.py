from collections import Counter

import numpy as np
import pandas as pd
import pytest

from graft.splits import SplitError, assign_splits, carved, resolve_copies


def split(labels, given=None, *, validation=0.2, test=0.2, train_per_class=None, seed=1):
    given = [None] * len(labels) if given is None else given
    return assign_splits(
        labels, given, validation=validation, test=test, train_per_class=train_per_class, seed=seed
    ).tolist()


def counts(labels, splits):
    return {
        name: Counter(split for label, split in zip(labels, splits, strict=True) if label == name)
        for name in sorted(set(labels))
    }


@pytest.mark.parametrize(
    ("given", "test", "expected"),
    [
        ({None}, True, ("validation", "test")),
        ({None}, False, ("validation",)),
        ({"train", "validation"}, True, ("test",)),
        ({"train", "test"}, True, ("validation",)),
        ({"train", "validation", "test"}, True, ()),
    ],
)
def test_only_missing_splits_are_carved_from_training(given, test, expected):
    assert carved(given, test) == expected


def test_each_class_is_split_by_the_fractions():
    labels = ["ants"] * 10 + ["bees"] * 50
    assert counts(labels, split(labels)) == {
        "ants": {"train": 6, "validation": 2, "test": 2},
        "bees": {"train": 30, "validation": 10, "test": 10},
    }


def test_small_classes_are_in_every_split():
    labels = ["ants"] * 3 + ["bees"] * 4
    assert counts(labels, split(labels, validation=0.01, test=0.01)) == {
        "ants": {"train": 1, "validation": 1, "test": 1},
        "bees": {"train": 2, "validation": 1, "test": 1},
    }
    assert counts(labels, split(labels, validation=0.49, test=0.49))["bees"]["train"] >= 1


def test_without_a_test_split_all_else_is_training():
    labels = ["ants"] * 10
    assert counts(labels, split(labels, test="none")) == {"ants": {"train": 8, "validation": 2}}


def test_the_sources_own_splits_are_kept():
    labels = ["ants"] * 30
    given = ["train"] * 10 + ["validation"] * 10 + ["test"] * 10
    assert split(labels, given) == given


@pytest.mark.parametrize(("own", "carved_split"), [("validation", "test"), ("test", "validation")])
def test_a_split_that_the_source_lacks_is_carved_from_its_training_images(own, carved_split):
    labels, given = ["ants"] * 30, ["train"] * 20 + [own] * 10
    splits = split(labels, given, validation=0.1, test=0.1)
    assert splits[20:] == [own] * 10
    assert Counter(splits[:20]) == {"train": 18, carved_split: 2}


def test_the_sources_test_images_go_unused_where_no_test_is_wanted():
    labels, given = ["ants"] * 30, ["train"] * 20 + ["test"] * 10
    splits = split(labels, given, test="none")
    assert splits[20:] == [None] * 10
    assert Counter(splits[:20]) == {"train": 16, "validation": 4}


def test_surplus_training_images_go_unused_and_held_out_ones_stay():
    labels = ["ants"] * 100 + ["bees"] * 10
    everything, capped = split(labels), split(labels, train_per_class=8)
    assert counts(labels, capped) == {
        "ants": {"train": 8, "validation": 20, "test": 20, None: 52},
        "bees": {"train": 6, "validation": 2, "test": 2},
    }
    held_out = [name in ("validation", "test") for name in everything]
    assert np.array(everything, object)[held_out].tolist() == np.array(capped, object)[held_out].tolist()


def test_the_cap_is_a_random_choice_of_the_sources_own_training_images():
    labels, given = ["ants"] * 40, ["train"] * 20 + ["validation"] * 20
    chosen = np.flatnonzero(np.array(split(labels, given, test="none", train_per_class=5)) == "train")
    assert len(chosen) == 5
    assert chosen.max() < 20
    assert chosen.tolist() != [0, 1, 2, 3, 4]


def test_the_seed_alone_decides():
    labels = ["ants"] * 40
    assert split(labels, seed=3) == split(labels, seed=3)
    assert split(labels, seed=3) != split(labels, seed=4)


def test_a_new_class_moves_no_image_of_the_others():
    before = split(["bees"] * 20 + ["wasps"] * 20)
    after = split(["ants"] * 7 + ["bees"] * 20 + ["wasps"] * 20)
    assert after[7:] == before


def test_classes_of_equal_size_are_not_drawn_alike():
    splits = split(["ants"] * 40 + ["bees"] * 40)
    assert splits[:40] != splits[40:]


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        pytest.param(
            ["ants"] * 5 + ["bees"] * 2, None, "class 'bees' has 0 train, 1 validation, 1 test", id="too few to carve"
        ),
        pytest.param(
            ["ants", "ants", "ants", "bees", "bees"],
            ["train", "validation", "test", "train", "validation"],
            "class 'bees' has 1 train, 1 validation, 0 test",
            id="absent from an own split",
        ),
        pytest.param(
            ["ants", "ants", "ants", "bees", "bees"],
            ["train", "validation", "test", "test", "validation"],
            "class 'bees' has 0 train, 1 validation, 1 test",
            id="absent from training",
        ),
    ],
)
def test_a_class_that_would_be_absent_from_a_split_is_named(labels, given, message):
    with pytest.raises(SplitError, match=message):
        split(labels, given)


def copies(*rows):
    frame = pd.DataFrame(rows, columns=["image_id", "label", "split", "source"])
    return resolve_copies(frame)


def test_images_that_occur_once_stay():
    verdict = copies(("1", "ants", None, "a"), ("2", "bees", "train", "b"))
    assert verdict.isna().to_numpy().all()


@pytest.mark.parametrize(
    ("splits", "kept"),
    [
        ((None, None, None), 0),
        (("train", "validation", "train"), 1),
        (("train", "validation", "test"), 2),
        (("test", "train", "test"), 0),
    ],
)
def test_of_copies_the_most_held_out_one_stays(splits, kept):
    verdict = copies(*((("1", "ants", own, f"{place}.png")) for place, own in enumerate(splits)))
    assert np.flatnonzero(verdict["reason"].isna()).tolist() == [kept]
    assert set(verdict["reason"].dropna()) == {"duplicate"}
    assert set(verdict["detail"].dropna()) == {f"the same bytes as {kept}.png"}


def test_the_copy_that_stays_does_not_depend_on_the_order_of_files():
    rows = [("1", "ants", None, "b.png"), ("1", "ants", None, "a.png")]
    assert copies(*rows)["reason"].tolist() == ["duplicate", None]
    assert copies(*rows[::-1])["reason"].tolist() == [None, "duplicate"]


def test_of_copies_under_two_labels_none_stays():
    verdict = copies(("1", "ants", "test", "a"), ("2", "ants", None, "b"), ("1", "bees", "train", "c"))
    assert verdict["reason"].tolist() == ["conflicting-label", None, "conflicting-label"]
    assert verdict["detail"][0] == "the same bytes stand under ants, bees"
