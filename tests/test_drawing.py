"""Units are drawn as a whole, single images as they always were."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given as every
from hypothesis import settings
from hypothesis import strategies as st
from splits_on_trial import counts, plain_split, split

from graft.splits import SplitError, stratified_split

attacked = settings(derandomize=True, deadline=None, max_examples=60, database=None)

FRACTIONS = st.floats(0.01, 0.49)
TEST_FRACTIONS = st.one_of(FRACTIONS, st.just("none"))
LABELS = st.lists(st.sampled_from(["ants", "bees", "wespen-größer"]), min_size=1, max_size=60)


@attacked
@every(
    labels=LABELS,
    validation=FRACTIONS,
    test=TEST_FRACTIONS,
    most=st.none() | st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_single_images_are_drawn_as_they_always_were(labels, validation, test, most, seed):
    expected = plain_split(
        labels, [None] * len(labels), validation=validation, test=test, train_per_class=most, seed=seed
    )
    if expected is None:
        with pytest.raises(SplitError):
            split(labels, validation=validation, test=test, seed=seed)
    else:
        assert split(labels, validation=validation, test=test, train_per_class=most, seed=seed) == expected
        if test == "none" and most is None:
            assert stratified_split(np.array(labels), validation, seed).tolist() == expected


@attacked
@every(
    rows=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["train", "train", None, "validation", "test"])),
        min_size=1,
        max_size=60,
    ),
    test=TEST_FRACTIONS,
    most=st.none() | st.integers(1, 9),
)
def test_single_images_beside_the_sources_own_splits_are_drawn_as_they_always_were(rows, test, most):
    labels, given = ([row[column] for row in rows] for column in (0, 1))
    expected = plain_split(labels, given, validation=0.3, test=test, train_per_class=most, seed=1)
    asked = {"split": "predefined", "validation": 0.3, "test": test, "train_per_class": most}
    if expected is None or not any(given):
        with pytest.raises(SplitError):
            split(labels, given, **asked)
    else:
        assert split(labels, given, **asked) == expected


# Units.


@pytest.mark.parametrize("strategy", ["stratified", "group", "predefined", "kfold"])
def test_a_unit_is_drawn_as_a_whole(strategy):
    """20 groups of 3 images, 20 stars of 2, 20 single images."""
    groups = [f"{place // 3}" for place in range(60)] + [None] * 60
    leader = [*range(60), *(60 + place // 2 * 2 for place in range(40)), *range(100, 120)]
    splits = split(["ants"] * 120, ["train"] * 120, groups, leader, split=strategy)
    assert all(len(set(splits[first : first + 3])) == 1 for first in range(0, 60, 3))
    assert all(len(set(splits[first : first + 2])) == 1 for first in range(60, 100, 2))
    assert {"train", "validation", "test"} <= set(splits)


def test_fractions_are_of_images_where_units_differ_in_size():
    leader = [place // 3 * 3 for place in range(60)]
    assert Counter(split(["ants"] * 60, leader=leader)) == {"train": 36, "validation": 12, "test": 12}
    large = [0] * 50 + list(range(50, 100))  # of 100 images, 50 are one picture: too many for a fifth
    for seed in range(5):
        splits = split(["ants"] * 100, leader=large, seed=seed)
        assert Counter(splits) == {"train": 60, "validation": 20, "test": 20}
        assert set(splits[:50]) == {"train"}


def test_a_fraction_is_met_as_nearly_as_units_can():
    """Of 24 images, 5 are a fifth: two units of 3 are nearer than one."""
    leader = [place // 3 * 3 for place in range(24)]
    assert Counter(split(["ants"] * 24, leader=leader)) == {"train": 12, "validation": 6, "test": 6}


@attacked
@every(
    sizes=st.lists(st.integers(1, 8), min_size=3, max_size=40),
    validation=FRACTIONS,
    test=FRACTIONS,
    seed=st.integers(0, 9),
)
def test_units_fill_each_fraction_to_within_half_of_the_largest(sizes, validation, test, seed):
    leader = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes).tolist()
    splits = split(["ants"] * len(leader), leader=leader, validation=validation, test=test, seed=seed)
    taken = Counter(splits)
    assert all(taken[name] for name in ("train", "validation", "test"))
    spare = 3 * max(sizes)  # with few units, one must be held back for each split
    if min(validation, test, 1 - validation - test) * len(leader) >= spare:
        for name, fraction in (("validation", validation), ("test", test)):
            assert abs(taken[name] - fraction * len(leader)) <= max(sizes) / 2 + 0.5


def test_three_units_are_in_three_splits_whatever_their_sizes():
    for sizes in ([9, 1, 1], [1, 9, 1], [1, 1, 9], [5, 5, 5], [2, 1, 2]):
        leader = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes).tolist()
        for seed in range(6):
            splits = split(["ants"] * len(leader), leader=leader, validation=0.45, test=0.45, seed=seed)
            assert set(splits) == {"train", "validation", "test"}


def test_two_units_cannot_be_in_three_splits():
    with pytest.raises(SplitError, match="class 'ants' has 5 train, 5 validation, 0 test"):
        split(["ants"] * 10, leader=[0] * 5 + [5] * 5)


def test_a_unit_of_several_classes_counts_to_its_most_frequent_one():
    """The only bees beside 9 single ones are 3 in a group of 5 ants, and drawn with it."""
    labels = ["ants"] * 5 + ["bees"] * 3 + ["ants"] * 9 + ["bees"] * 9
    groups = ["herd"] * 8 + [None] * 18
    for seed in range(5):
        splits = split(labels, groups=groups, seed=seed, validation=0.33, test="none")
        assert len(set(splits[:8])) == 1
        assert Counter(splits[17:]) == {"train": 6, "validation": 3}  # of 9 bees, not of 12


def test_a_unit_of_two_equal_classes_counts_to_the_first_by_name():
    labels = ["bees"] * 3 + ["ants"] * 3 + ["ants"] * 9 + ["bees"] * 9
    for seed in range(5):
        splits = split(labels, groups=["herd"] * 6 + [None] * 18, seed=seed, validation=0.33, test="none")
        assert Counter(splits[15:]) == {"train": 6, "validation": 3}  # of 9 bees, not of 15


# Folds.


def test_every_image_that_is_not_tested_on_validates_in_exactly_one_fold():
    labels = ["ants"] * 23 + ["bees"] * 41
    runs = [split(labels, split="kfold", folds=4, fold=fold) for fold in range(4)]
    for place in range(len(labels)):
        assert Counter(run[place] for run in runs) in ({"validation": 1, "train": 3}, {"test": 4})
    for name, (size, tested) in {"ants": (23, 5), "bees": (41, 8)}.items():
        assert {counts(labels, run)[name]["test"] for run in runs} == {tested}
        validating = [counts(labels, run)[name]["validation"] for run in runs]
        assert sum(validating) == size - tested
        assert max(validating) - min(validating) <= 1


def test_folds_leave_the_test_images_of_the_stratified_split():
    labels = ["ants"] * 40 + ["bees"] * 40
    stratified = [name == "test" for name in split(labels)]
    assert [name == "test" for name in split(labels, split="kfold", fold=3)] == stratified


def test_folds_leave_the_sources_own_test_images():
    labels, given = ["ants"] * 30, ["train"] * 15 + ["validation"] * 5 + ["test"] * 10
    runs = [split(labels, given, split="kfold", fold=fold) for fold in range(5)]
    assert all(run[20:] == ["test"] * 10 for run in runs)
    assert all(Counter(run[:20]) == {"train": 16, "validation": 4} for run in runs)


def test_folds_balance_units_of_several_classes():
    """30 groups of 4 ants, of which 5 have a bee each: one bee validates in every fold."""
    labels, groups = [], []
    for group in range(30):
        members = ["ants"] * 4 + ["bees"] * (group < 5)
        labels += members
        groups += [f"{group}"] * len(members)
    for fold in range(5):
        for seed in range(3):
            splits = split(labels, groups=groups, split="kfold", test="none", fold=fold, seed=seed)
            assert counts(labels, splits)["bees"] == {"train": 4, "validation": 1}
            assert counts(labels, splits)["ants"] == {"train": 96, "validation": 24}


def test_large_units_do_not_unbalance_folds():
    """Six images are one picture, six stand alone: each of two folds gets six."""
    for seed in range(9):
        splits = split(
            ["ants"] * 12, leader=[0] * 6 + list(range(6, 12)), split="kfold", folds=2, test="none", seed=seed
        )
        assert Counter(splits) == {"train": 6, "validation": 6}


def test_what_is_left_over_of_classes_is_spread_over_folds():
    """6 images of each of 50 classes in 5 folds: 50 in each, and 50 more that must not all be in the first."""
    labels = [f"{place % 50}" for place in range(300)]
    runs = [split(labels, split="kfold", test="none", fold=fold).count("validation") for fold in range(5)]
    assert sum(runs) == 300
    assert max(runs) < 80


def test_a_class_that_is_too_small_for_the_folds_is_named_whichever_fold_validates():
    for fold in range(5):
        with pytest.raises(
            SplitError, match=r"in every fold; class 'bees' is in 4 of 5; .* as many images as data\.folds"
        ):
            split(
                ["ants"] * 9 + ["bees"] * 8,
                leader=[*range(9), 9, 9, 9, 9, 9, 14, 15, 16],
                split="kfold",
                test="none",
                fold=fold,
            )
