"""What each strategy of data.split promises, and the cap on training images."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from splits_on_trial import counts, data, split, stars

from graft.splits import SplitError, cap_training, carved, check_classes, stratified_split, training_counts, unit_names


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


def test_an_image_is_drawn_with_its_group_else_with_its_star():
    rows = pd.DataFrame({"group": ["herd", None, None, None]})
    assert unit_names(rows, stars([0, 0, 2, 2])).tolist() == ["group:herd", "star:0", "star:2", "star:2"]


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


def test_the_seed_alone_decides():
    labels = ["ants"] * 40
    assert split(labels, seed=3) == split(labels, seed=3)
    assert split(labels, seed=3) != split(labels, seed=4)


@pytest.mark.parametrize("asked", [{}, {"split": "kfold", "folds": 3}])
def test_a_new_class_moves_no_image_of_the_others(asked):
    before = split(["bees"] * 20 + ["wasps"] * 23, **asked)
    after = split(["ants"] * 7 + ["bees"] * 20 + ["wasps"] * 23, **asked)
    assert after[7:] == before


def test_classes_of_equal_size_are_not_drawn_alike():
    splits = split(["ants"] * 40 + ["bees"] * 40)
    assert splits[:40] != splits[40:]


def test_stratified_pools_the_sources_own_splits():
    labels, given = ["ants"] * 40, ["train"] * 20 + ["test"] * 20
    assert split(labels, given) == split(labels)


def test_group_draws_fractions_of_the_groups():
    """Of 10 groups, among them one of 100 images, 2 validate and 2 test."""
    groups = ["g0"] * 100 + [f"g{place}" for place in range(1, 10)]
    held_out = []
    for seed in range(8):
        splits = split(["ants"] * 109, groups=groups, split="group", seed=seed)
        assert Counter([splits[0], *splits[100:]]) == {"train": 6, "validation": 2, "test": 2}
        held_out.append(splits[0] != "train")
    assert any(held_out)


def test_group_keeps_every_class_in_every_split_where_each_group_has_one():
    labels = [name for name in ("ants", "bees") for _ in range(12)]
    groups = [f"{place // 4}" for place in range(24)]
    for seed in range(5):
        table = counts(labels, split(labels, groups=groups, split="group", seed=seed))
        assert table == {name: {"train": 4, "validation": 4, "test": 4} for name in ("ants", "bees")}


def test_group_draws_all_groups_together_where_a_class_alone_has_too_few():
    """Two groups have more ants, two more bees: two cannot be in three splits, four with both classes can."""
    labels = ["ants", "ants", "bees"] * 2 + ["bees", "bees", "ants"] * 2
    groups = [f"{place // 3}" for place in range(12)]
    drawn = set()
    for seed in range(9):
        splits = split(labels, groups=groups, split="group", seed=seed)
        assert Counter(splits[::3]) == {"train": 2, "validation": 1, "test": 1}
        drawn.add(tuple(splits))
    assert len(drawn) > 3


def test_group_without_groups_is_refused():
    with pytest.raises(SplitError, match=r"data\.split is group, but .* name the column in data\.table\.group"):
        split(["ants"] * 10, split="group")


def test_predefined_without_splits_is_refused():
    with pytest.raises(SplitError, match="source gives no image a split; choose stratified, group, hash or kfold"):
        split(["ants"] * 10, split="predefined")


def test_the_sources_own_splits_are_kept():
    labels = ["ants"] * 30
    given = ["train"] * 10 + ["validation"] * 10 + ["test"] * 10
    assert split(labels, given, split="predefined") == given


@pytest.mark.parametrize(("own", "carved_split"), [("validation", "test"), ("test", "validation")])
def test_a_split_that_the_source_lacks_is_carved_from_its_training_images(own, carved_split):
    labels, given = ["ants"] * 30, ["train"] * 20 + [own] * 10
    splits = split(labels, given, split="predefined", validation=0.1, test=0.1)
    assert splits[20:] == [own] * 10
    assert Counter(splits[:20]) == {"train": 18, carved_split: 2}


def test_no_split_is_carved_from_units_that_are_held_out_already():
    """Drawn to test, the other half of a validation image's group would drive it out of validation."""
    labels, given = ["ants"] * 40, ["train"] * 30 + ["validation"] * 10
    groups = [f"{place}" for place in range(10)] + [None] * 20 + [f"{place}" for place in range(10)]
    for seed in range(5):
        splits = split(labels, given, groups, split="predefined", test=0.5, seed=seed)
        assert set(splits[:10]) == {"train"}
        assert Counter(splits[10:30]) == {"train": 10, "test": 10}


@pytest.mark.parametrize("strategy", ["predefined", "kfold"])
def test_the_sources_test_images_go_unused_where_no_test_is_wanted(strategy):
    labels, given = ["ants"] * 30, ["train"] * 20 + ["test"] * 10
    splits = split(labels, given, split=strategy, test="none")
    assert splits[20:] == [None] * 10
    assert Counter(splits[:20]) == {"train": 16, "validation": 4}


# Hash.


def test_hash_goes_by_the_pixels_alone():
    """SHA-256 of the letters a to g begins ca97, 3e23, 2e7d, 18ac, 3f79, 252f, cd0a: 0.79, 0.24, 0.18, 0.10, ..."""
    expected = ["train", "validation", "test", "test", "validation", "test", "train"]
    assert split(["ants"] * 7, pixels=list("abcdefg"), split="hash") == expected
    assert split(["ants"] * 7, pixels=list("abcdefg"), leader=[0] * 7, split="hash", seed=9) == expected
    without = ["train", "train", "validation", "validation", "train", "validation", "train"]
    assert split(["ants"] * 7, pixels=list("abcdefg"), split="hash", test="none") == without


def test_hash_keeps_groups_together_and_goes_by_their_names():
    groups = [f"{place // 5}" for place in range(50)]
    splits = split(["ants"] * 50, groups=groups, split="hash")
    assert all(len(set(splits[first : first + 5])) == 1 for first in range(0, 50, 5))
    assert splits == split(["ants"] * 50, groups=groups, pixels=[f"other {place}" for place in range(50)], split="hash")


def test_hash_fractions_hold_on_average():
    taken = Counter(split(["ants"] * 10_000, split="hash", validation=0.1, test=0.3))
    assert taken["validation"] == pytest.approx(1000, abs=100)  # 3 standard deviations are 90
    assert taken["test"] == pytest.approx(3000, abs=150)


def test_another_validation_fraction_moves_no_test_image_under_hash():
    few, many = (np.array(split(["ants"] * 100, split="hash", validation=share)) for share in (0.1, 0.5))
    assert ((few == "test") == (many == "test")).all()


def test_hash_names_what_to_choose_where_a_class_is_missed():
    with pytest.raises(SplitError, match=r"'ants' has 1 train, 0 validation, 0 test; .* on average only; choose strat"):
        split(["ants"], pixels=["a"], split="hash")


# The cap.


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
    capped = split(labels, given, split="predefined", test="none", train_per_class=5)
    chosen = np.flatnonzero(np.array(capped) == "train")
    assert len(chosen) == 5
    assert chosen.max() < 20
    assert chosen.tolist() != [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["stratified", "group", "hash", "predefined", "kfold"])
def test_the_cap_takes_one_image_of_every_unit_before_a_second(strategy):
    groups = [f"{place // 4}" for place in range(80)]
    asked = {"split": strategy, "groups": groups, "given": ["train"] * 80}
    trained = {group for group, name in zip(groups, split(["ants"] * 80, **asked), strict=True) if name == "train"}
    for most in (3, len(trained), len(trained) + 2):
        capped = split(["ants"] * 80, train_per_class=most, **asked)
        taken = Counter(group for group, name in zip(groups, capped, strict=True) if name == "train")
        assert len(taken) == min(most, len(trained))
        assert sum(taken.values()) == most


def test_the_cap_follows_the_order_it_is_given():
    labels = np.array(["ants", "bees", "ants", "ants", "bees", "ants"])
    splits = np.array(["train", "train", "test", "train", None, "train"], object)
    order = np.array([5, 4, 3, 2, 1, 0])
    assert cap_training(labels, splits, order, 2).tolist() == [None, "train", "test", "train", None, "train"]
    assert cap_training(labels, splits, order, None).tolist() == splits.tolist()


# Absent classes, and what a listing tells.


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
        split(labels, given, split="predefined" if given else "stratified")


def test_a_class_that_dropping_left_absent_is_named():
    labels = np.array(["ants"] * 3 + ["bees"] * 3)
    splits = np.array(["train", "validation", "test"] * 2, object)
    check_classes(labels, splits, data())
    splits[4] = None
    with pytest.raises(
        SplitError, match=r"^every class .* in every split; class 'bees' has 1 train, 0 validation, 1 test$"
    ):
        check_classes(labels, splits, data())


def test_a_plain_split_names_the_class_that_is_too_small():
    with pytest.raises(SplitError, match=r"class 'bees' has 0 train, 1 validation$"):
        stratified_split(np.array(["ants", "ants", "bees"]), 0.2, 1)


@pytest.mark.parametrize("strategy", ["stratified", "predefined", "kfold"])
@pytest.mark.parametrize("most", [None, 12])
@pytest.mark.parametrize("test", ["none", 0.3])
def test_a_listing_tells_the_training_images_of_files_that_are_all_usable(strategy, most, test):
    listed = Counter({("train", "ants"): 31, ("train", "bees"): 18, ("test", "ants"): 5, ("test", "bees"): 7})
    given, labels = zip(*listed.elements(), strict=True)
    splits = split(labels, given, split=strategy, test=test, train_per_class=most)
    told = training_counts(listed, data(split=strategy, test=test, train_per_class=most), seed=1)
    assert told == {name: counts(labels, splits)[name]["train"] for name in ("ants", "bees")}


def test_a_listing_says_nothing_of_groups_and_hashes():
    listed = Counter({(None, "ants"): 1})
    assert training_counts(listed, data(split="group"), 1) == training_counts(listed, data(split="hash"), 1) == {}
    with pytest.raises(SplitError, match="class 'ants' has 0 train, 1 validation, 0 test"):
        training_counts(listed, data(), 1)
