"""No group, no picture and no confirmed copy of one may be in two splits; these tests attack that."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from splits_on_trial import data, stars

from graft.leakage import check_no_leak, conflicting_labels, drop_straddling, keep_rows, resolve_copies
from graft.splits import SplitError, assign_splits, cap_training, texts

STRATEGIES = ["stratified", "group", "hash", "predefined", "kfold"]
HELD_OUT = {"test": 0, "validation": 1, "train": 2}


def copies(*rows):
    frame = pd.DataFrame(rows, columns=["image_id", "label", "split", "source"])
    return resolve_copies(frame.assign(group=None)).drop(columns="group")


def grouped_copies(*groups):
    """What becomes of copies of one image in these groups, and the group of each."""
    rows = pd.DataFrame({"group": groups}).astype(object)
    rows = rows.assign(image_id="1", label="ants", split=None, source=[f"{place}.png" for place in range(len(groups))])
    verdict = resolve_copies(rows.where(rows.notna(), None))
    return verdict["reason"].tolist(), verdict["group"].tolist()


def test_the_copy_that_stays_is_in_the_group_that_any_of_them_names():
    reasons, groups = grouped_copies(None, "herd", "herd")
    assert reasons == [None, "duplicate", "duplicate"]
    assert groups[0] == "herd"


def test_an_image_in_two_groups_is_in_none():
    assert grouped_copies("herd", None, "flock")[0] == ["conflicting-group"] * 3


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


def test_copies_are_found_whatever_the_rows_index():
    rows = pd.DataFrame(
        {"image_id": ["1", "2", "1"], "label": "ants", "split": None, "source": ["b", "c", "a"]}, index=[7, 3, 5]
    )
    verdict = resolve_copies(rows.assign(group=None))
    assert verdict["reason"].to_dict() == {7: "duplicate", 3: None, 5: None}
    assert verdict.index.tolist() == [7, 3, 5]


def pictures(labels, pixels=None, groups=None):
    number = len(labels)
    return pd.DataFrame(
        {
            "label": list(labels),
            "pixel_id": [f"{place}" for place in range(number)] if pixels is None else list(pixels),
            "group": [None] * number if groups is None else list(groups),
            "source": [f"{place}.png" for place in range(number)],
        }
    )


def test_of_a_star_with_two_labels_all_images_conflict():
    verdict = conflicting_labels(pictures("aaabb"), stars([0, 0, 0, 0, 4]))
    assert verdict["reason"].tolist() == ["conflicting-label"] * 4 + [None]
    assert verdict["detail"].tolist() == ["the same picture as 3.png under b"] * 3 + [
        "the same picture as 0.png under a",
        None,
    ]


def test_the_same_pixels_under_two_labels_conflict_even_if_no_star_holds_them():
    verdict = conflicting_labels(pictures("aba", pixels="ppq"), stars([0, 1, 2]))
    assert verdict["reason"].tolist() == ["conflicting-label", "conflicting-label", None]


def test_of_a_bridge_between_labels_the_ends_and_their_pixels_conflict_but_not_their_stars():
    """Rows 0-2 are a star of which 0 and 2 have the same pixels; 0 is also like 3, and 1 like 5 of its own label."""
    rows = pictures("aaabba", pixels="pqpstu")
    verdict = conflicting_labels(rows, stars([0, 0, 0, 3, 3, 5], [(0, 3), (1, 5)]))
    assert verdict["reason"].tolist() == [
        "conflicting-label",
        None,
        "conflicting-label",
        "conflicting-label",
        None,
        None,
    ]
    assert verdict["detail"].dropna().tolist() == [
        "the same picture as 3.png under b",
        "the same picture as 3.png under b",
        "the same picture as 0.png under a",
    ]


def test_images_that_stay_are_numbered_anew_with_their_stars_and_bridges():
    """0 leads 1 and 3, 2 leads 5, 4 stands alone; 0 and 4 go."""
    before = stars([0, 0, 2, 0, 4, 2], [(0, 2), (3, 5), (4, 5), (1, 2)])
    after = keep_rows(before, np.array([False, True, True, True, False, True]))
    assert after.leader.tolist() == [0, 1, 0, 1]
    assert after.bridges.tolist() == [[2, 3], [0, 1]]


def drop(splits, leader=None, bridges=(), groups=None, pixels=None):
    splits = np.array([{"t": "train", "v": "validation", "T": "test", "-": None}[letter] for letter in splits], object)
    rows = pictures("a" * len(splits), pixels, groups)
    return drop_straddling(rows, splits, stars(range(len(splits)) if leader is None else leader, bridges))


@pytest.mark.parametrize(
    ("splits", "lost"),
    [("TTT", []), ("tTv", [0, 2]), ("tvv", [0]), ("ttt", []), ("-tv", [1]), ("-tt", []), ("-T-", [])],
)
def test_within_a_star_the_most_held_out_images_stay(splits, lost):
    assert np.flatnonzero(drop(splits, leader=[0, 0, 0])["reason"].notna()).tolist() == lost


def test_what_is_dropped_is_told_why():
    verdict = drop(
        "TtvtvtTt",
        leader=[0, 0, 2, 3, 4, 5, 6, 7],
        bridges=[(0, 2), (4, 3)],
        groups=[None, None, None, None, None, "herd", "herd", None],
        pixels="abcdefgg",
    )
    assert list(verdict.itertuples(index=False, name=None)) == [
        (None, None),
        ("leaked-copy", "the same picture as 0.png in test"),  # its star
        ("leaked-copy", "the same picture as 0.png in test"),  # a bridge
        ("leaked-copy", "the same picture as 4.png in validation"),
        (None, None),
        ("split-group", "of one group with 6.png in test"),
        (None, None),
        ("leaked-copy", "the same pixels as 6.png in test"),
    ]


def test_a_dropped_validation_image_drops_no_training_image():
    """Test 0 is like validation 1, which is like training 2."""
    verdict = drop("Tvt", bridges=[(0, 1), (1, 2)])
    assert verdict["reason"].tolist() == [None, "leaked-copy", None]


def test_copies_are_not_followed_further_than_confirmed():
    verdict = drop("Ttttt", bridges=[(0, 1), (1, 2), (2, 3), (3, 4)])
    assert verdict["reason"].tolist() == [None, "leaked-copy", None, None, None]


def test_a_bridge_holds_for_every_image_with_its_pixels():
    """The end of the bridge itself, 1, is unused; 2 has its pixels."""
    assert drop("T-t", bridges=[(0, 1)], pixels="abb")["reason"].tolist() == [None, None, "leaked-copy"]
    assert drop("-tT", bridges=[(0, 1)], pixels="aba")["reason"].tolist() == [None, "leaked-copy", None]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            {"groups": [None, "herd", "herd"]},
            r"1\.png is in validation and 2\.png in test, although both are of one group",
        ),
        ({"leader": [0, 0, 2]}, r"0\.png is in train and 1\.png in validation, although both are of one picture"),
        ({"bridges": [(2, 0)]}, r"2\.png is in test and 0\.png in train, although both are of one picture"),
        ({"pixels": "aba"}, r"0\.png is in train and 2\.png in test, although both are of the same pixels"),
    ],
)
def test_the_gate_names_two_images_that_are_apart(found, message):
    splits = np.array(["train", "validation", "test"], object)
    rows = pictures("aaa", found.get("pixels"), found.get("groups"))
    duplicates = stars(found.get("leader", range(3)), found.get("bridges", ()))
    with pytest.raises(SplitError, match=message):
        check_no_leak(rows, splits, duplicates)
    check_no_leak(rows, np.array(["test", "test", "test"], object), duplicates)
    check_no_leak(rows, np.array([None, "test", None], object), duplicates)


def test_the_gate_sees_a_bridge_whose_end_is_unused_through_its_pixels():
    rows, duplicates = pictures("aaa", pixels="abb"), stars([0, 1, 1], [(0, 1)])
    with pytest.raises(SplitError, match=r"0\.png is in test and 2\.png in train, although both are of one picture"):
        check_no_leak(rows, np.array(["test", None, "train"], object), duplicates)


# Attacks: any collection of images, whatever is alike in it.


@dataclass(frozen=True)
class Collection:
    """Images with their pixels, and the pairs of pixels that are alike (besides equal ones)."""

    rows: pd.DataFrame
    alike: frozenset[tuple[str, str]]

    def same(self):
        """Whether each pair of images has equal or alike pixels, of shape (n, n)."""
        pixels = self.rows["pixel_id"].to_numpy()
        same = pixels[:, None] == pixels
        for one, other in self.alike:
            same |= np.outer(pixels == one, pixels == other) | np.outer(pixels == other, pixels == one)
        return same

    def duplicates(self):
        """Stars in the order of the rows; bridges between the first of each pixels, which stand for the others."""
        same, leader = self.same(), []
        for row in range(len(self.rows)):
            leaders = (first for first in range(row) if leader[first] == first and same[first, row])
            leader.append(next(leaders, row))
        again = self.rows["pixel_id"].duplicated().to_numpy()
        pairs = zip(*np.nonzero(np.triu(same & ~again & ~again[:, None], 1)), strict=True)
        return stars(leader, [(one, other) for one, other in pairs if leader[one] != leader[other]])


PIXELS = 24
GROUPS = [None, None, None, "g", "h", "i", "j"]
SPLITS = ["train", "train", None, "validation", "test"]
OWN = [(f"own {place}", "ab"[place % 2], None, ["train", "validation", "test"][place % 3]) for place in range(30)]


@st.composite
def contents(draw, fewest=24):
    """Images (pixels, label, group, split) with many copies among few pixels, the odd one under a wrong label."""
    random = draw(st.randoms(use_true_random=True))
    odd = draw(st.sampled_from([0, 0, 0.05]))
    numbers = [random.randrange(PIXELS) for _ in range(draw(st.integers(fewest, 40)))]
    labels = ["ab"[(number + (random.random() < odd)) % 2] for number in numbers]
    return [
        (number, label, random.choice(GROUPS), random.choice(SPLITS))
        for number, label in zip(numbers, labels, strict=True)
    ]


@st.composite
def alike_pixels(draw):
    """Pairs of pixels that are alike, mostly of one label, in chains that are longer than stars."""
    random = draw(st.randoms(use_true_random=True))
    pairs = [(number, number + 2) for number in range(PIXELS - 2) if random.random() < 0.7]
    return pairs + [(0, random.randrange(1, PIXELS)) for _ in range(draw(st.integers(0, 3)))]


def collection(images, alike):
    """Rows by image id, which is as random as a hash and does not depend on other images."""
    frame = pd.DataFrame([*images, *OWN], columns=["pixel_id", "label", "group", "split"]).astype({"pixel_id": object})
    frame["source"] = [f"{place}.png" for place in range(len(frame))]
    frame["image_id"] = [_hash(*image) for image in [*enumerate(images), *OWN]]
    frame["pixel_id"] = [_hash(pixels) for pixels in frame["pixel_id"]]
    pairs = frozenset((_hash(one), _hash(other)) for one, other in alike)
    return Collection(frame.sort_values("image_id", ignore_index=True), pairs)


def _hash(*content):
    return hashlib.sha256(repr(content).encode()).hexdigest()


def prepared(images, *, seed=1, **settings):
    """As the stage does it: the rows without conflicting labels, with the splits assigned, left and at last used."""
    duplicates = images.duplicates()
    fine = conflicting_labels(images.rows, duplicates)["reason"].isna().to_numpy()
    rows, duplicates = images.rows[fine].reset_index(drop=True), keep_rows(duplicates, fine)
    section = data(**{"validation": 0.3, "test": 0.3, "folds": 3} | settings)
    try:
        assigned, order = assign_splits(rows, duplicates, section, seed)
    except SplitError:
        reject()
    lost = drop_straddling(rows, assigned, duplicates)["reason"].notna().to_numpy()
    left = np.where(lost, None, assigned)
    final = cap_training(rows["label"].to_numpy(), left, order, section.train_per_class)
    check_no_leak(rows, final, duplicates)
    return rows.assign(assigned=assigned, left=left, final=final), duplicates


def straddling(images, splits, duplicates):
    """Every pair in two splits that should be in one, found pair by pair."""
    groups, splits = texts(images.rows["group"]), np.array(splits, object)
    together = images.same() | (duplicates.leader[:, None] == duplicates.leader)
    together |= (groups[:, None] == groups) & (groups != None)  # noqa: E711 - elementwise
    used = pd.notna(splits)
    apart = (splits[:, None] != splits) & used & used[:, None]
    return list(zip(*np.nonzero(np.triu(together & apart)), strict=True))


attacked = settings(derandomize=True, deadline=None, max_examples=10, database=None)


@pytest.mark.parametrize("test", [0.3, "none"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@attacked
@given(images=contents(), alike=alike_pixels(), most=st.none() | st.integers(1, 12), fold=st.integers(0, 2))
def test_nothing_alike_is_in_two_splits(strategy, test, images, alike, most, fold):
    everything = collection(images, alike)
    rows, duplicates = prepared(everything, split=strategy, test=test, train_per_class=most, fold=fold)
    kept = Collection(rows, everything.alike)
    assert not straddling(kept, rows["final"], duplicates)
    labels = rows["label"].to_numpy(object)
    assert not (kept.same() & (labels[:, None] != labels)).any()
    assert (rows["left"] == "test").tolist() == (rows["assigned"] == "test").tolist()


@attacked
@given(images=contents(), alike=alike_pixels(), strategy=st.sampled_from(STRATEGIES))
def test_each_dropped_image_would_be_refused_by_the_gate(images, alike, strategy):
    """Brought back alone, it has something alike in a more held-out split, which the gate sees."""
    everything = collection(images, alike)
    rows, duplicates = prepared(everything, split=strategy)
    kept = Collection(rows, everything.alike)
    for row in np.flatnonzero(rows["assigned"].notna() & rows["left"].isna()):
        back = rows["left"].to_numpy(object).copy()
        back[row] = rows["assigned"][row]
        pairs = straddling(kept, back, duplicates)
        assert any(HELD_OUT[back[sum(pair) - row]] < HELD_OUT[back[row]] for pair in pairs)
        with pytest.raises(SplitError, match="this is a fault of the prepare stage"):
            check_no_leak(rows, back, duplicates)


@attacked
@given(images=contents(), more=contents(fewest=0), alike=alike_pixels(), seed=st.integers(0, 9))
def test_under_hash_no_image_moves_when_others_come(images, more, alike, seed):
    """New images bring copies, bridges and stars with new leaders, and another seed: old ones may only be dropped."""
    before, _ = prepared(collection(images, alike), split="hash")
    after, _ = prepared(collection([*images, *more], alike), split="hash", seed=seed)
    old = before.set_index("image_id")
    new = after.set_index("image_id").reindex(old.index)
    known = new["assigned"].notna()  # else its label now conflicts with a new image's
    assert new["assigned"][known].tolist() == old["assigned"][known].tolist()
    used = new["final"].notna()
    assert new["final"][used].tolist() == old["assigned"][used].tolist()


@attacked
@given(images=contents(), alike=alike_pixels(), test=st.sampled_from([0.3, "none"]))
def test_the_folds_part_what_is_not_tested_on(images, alike, test):
    runs = [prepared(collection(images, alike), split="kfold", test=test, fold=fold)[0] for fold in range(3)]
    tests = [(run["final"] == "test").tolist() for run in runs]
    assert tests[0] == tests[1] == tests[2]
    validated = sum((run["final"] == "validation").astype(int) for run in runs)
    leaked = (runs[0]["final"] == "test") | (runs[0]["split"] == "test") & (test == "none")
    assert (validated[leaked] == 0).all()
    free = pd.concat([run["left"] for run in runs], axis=1).notna().any(axis=1) & ~leaked
    assert (validated[free] == 1).all()


@attacked
@given(
    images=contents(),
    alike=alike_pixels(),
    strategy=st.sampled_from(STRATEGIES),
    random=st.randoms(use_true_random=False),
)
def test_the_order_of_files_does_not_matter(images, alike, strategy, random):
    """Files in any order, some of them twice: by image id, the same images end up in the same splits."""
    everything = collection(images, alike)
    again = everything.rows.iloc[::3].assign(source=lambda rows: "again/" + rows["source"])
    files = pd.concat([everything.rows, again], ignore_index=True)
    outcomes = []
    for _ in range(2):
        shuffled = files.iloc[random.sample(range(len(files)), len(files))]
        usable = shuffled[resolve_copies(shuffled)["reason"].isna().to_numpy()]
        ordered = Collection(usable.sort_values("image_id", ignore_index=True), everything.alike)
        outcomes.append(prepared(ordered, split=strategy, train_per_class=6)[0])
    pd.testing.assert_frame_equal(*outcomes)
