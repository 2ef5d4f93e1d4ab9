from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tuning_on_trial import Memory

from graft.artifacts import Manifest
from graft.comparison_sections import Curve
from graft.curve_files import ALL, read_curve
from graft.curve_fits import CurveError, Fit, Fitted, Subset, choose_subset, curve_sizes, run_fits
from graft.errors import GraftError
from graft.feature_sets import TOP, FeatureSet, feature_index

VIEWS = 3
CLASSES = ("ant", "bee")


def images(ants: int = 12, bees: int = 4) -> Manifest:
    """Training images, and one of each class to validate and to test on, in a mixed order."""
    rows = [(f"{label}{k:02d}", label, "train") for label, n in (("ant", ants), ("bee", bees)) for k in range(n)]
    rows += [(f"{label}-{split}", label, split) for label in CLASSES for split in ("validation", "test")]
    table = pd.DataFrame(rows, columns=["image_id", "label", "split"]).sample(frac=1, random_state=3)
    table = table.assign(group=table["image_id"], source="", width=8, height=8)
    return Manifest(table.reset_index(drop=True), CLASSES)


def numbered(manifest: Manifest) -> FeatureSet:
    """Row i of the features holds the number i."""
    train = manifest.rows["image_id"].to_numpy()[manifest.positions("train")]
    views = pd.DataFrame({"image_id": np.tile(train, VIEWS), "view": np.repeat(np.arange(VIEWS), len(train))})
    index = feature_index(manifest, views)
    return FeatureSet(index, {TOP: Memory(np.arange(len(index))[:, None])}, manifest.classes)


def chosen(manifest: Manifest, per_class: int, seed: int = 1) -> set[str]:
    rows = choose_subset(manifest, numbered(manifest), per_class, seed).manifest.rows
    return set(rows.loc[rows["split"] == "train", "image_id"])


@pytest.mark.parametrize(
    ("wanted", "largest", "sizes"),
    [
        ([5, 10, 20, 50, "all"], 20, [5, 10, ALL]),
        (["all", 10, 5], 100, [5, 10, ALL]),
        ([5, 10], 100, [5, 10]),
        ([5, 50, 80], 20, [5, ALL]),
    ],
)
def test_a_size_that_takes_every_image_is_all_of_them(wanted: list[int | str], largest: int, sizes: list[int]) -> None:
    assert curve_sizes(wanted, largest) == sizes


def test_so_many_of_each_class_are_taken_or_as_many_as_there_are() -> None:
    manifest = images()
    subset = choose_subset(manifest, numbered(manifest), 6, seed=1)
    rows = subset.manifest.rows
    assert rows["label"][rows["split"] == "train"].value_counts().to_dict() == {"ant": 6, "bee": 4}
    assert len(subset.held_out) == 4
    assert (subset.images, subset.all_images) == (10, 16)
    assert len(chosen(manifest, ALL)) == 16


def test_a_smaller_choice_is_part_of_a_larger_one_and_seeds_choose_differently() -> None:
    manifest = images(40, 40)
    assert chosen(manifest, 5) < chosen(manifest, 10) < chosen(manifest, 20)
    assert chosen(manifest, 5, seed=1) != chosen(manifest, 5, seed=2)


def test_the_choice_depends_on_no_order_and_on_no_other_class() -> None:
    manifest = images(20, 20)
    turned = Manifest(manifest.rows[::-1].reset_index(drop=True), CLASSES)
    assert chosen(turned, 5) == chosen(manifest, 5)
    assert {name for name in chosen(images(20, 4), 5) if name.startswith("ant")} < chosen(manifest, 5)


def test_features_follow_the_chosen_images_in_manifest_order() -> None:
    manifest = images()
    features = numbered(manifest)
    subset = choose_subset(manifest, features, 2, seed=1)
    index, rows = subset.features.index, subset.manifest.rows
    assert index["image_id"].head(len(rows)).tolist() == rows["image_id"].tolist()
    numbers = subset.features.stored[TOP][:].ravel()
    original = features.index.iloc[numbers].reset_index(drop=True)
    pd.testing.assert_frame_equal(original, index)
    assert len(subset.train) == 4 * VIEWS
    assert index["image_id"].iloc[subset.held_out].tolist() == rows["image_id"].iloc[subset.held_out].tolist()


def test_repeated_features_make_an_epoch_as_long_as_one_of_all_images_and_rotate_the_views() -> None:
    manifest = images(12, 12)
    features = numbered(manifest)
    subset = choose_subset(manifest, features, 4, seed=1)
    repeated = subset.repeated()
    shown = [repeated.positions("train", view) for view in range(VIEWS)]
    assert [len(rows) for rows in shown] == [24] * VIEWS
    source = features.index.iloc[repeated.stored[TOP][:].ravel()]
    ids, views = source["image_id"].to_numpy(), source["view"].to_numpy()
    for view, rows in enumerate(shown):
        assert ids[rows].tolist() == ids[shown[0]].tolist()
        assert views[rows].tolist() == [(view + copy) % VIEWS for copy in range(3) for _ in range(8)]
    assert set(ids[shown[0]]) == chosen(manifest, 4)
    before = subset.features.stored[TOP][subset.held_out]
    np.testing.assert_array_equal(repeated.stored[TOP][subset.held_out], before)


def test_all_images_are_not_repeated() -> None:
    manifest = images()
    subset = choose_subset(manifest, numbered(manifest), ALL, seed=1)
    pd.testing.assert_frame_equal(subset.repeated().index, numbered(manifest).index)


def always_ants(calls: list[str], fail_at: str = "") -> Callable[[Fit, Subset], Fitted | None]:
    """A fit that takes no time; an SVM needs two bees."""

    def fit(which: Fit, subset: Subset) -> Fitted | None:
        calls.append(which.folder)
        if which.folder == fail_at:
            raise GraftError("the loss must stay finite")
        if which.kind == "svm" and which.per_class == 1:
            return None
        return Fitted(np.tile([0.9, 0.1], (len(subset.held_out), 1)), epochs=3, seconds=0.5)

    return fit


def run(root: Path, calls: list[str], fail_at: str = "") -> Path:
    manifest = images()
    run_fits(
        "vgg16", ("frozen", "svm"), manifest, numbered(manifest), always_ants(calls, fail_at),
        curve=Curve(backbones=["vgg16"], baselines=[], per_class=[1, 6, "all"], seeds=2), seed=2**32 - 1,
        work=root / "work", out=root / "curve",
    )  # fmt: skip
    return root / "curve"


def test_every_fit_predicts_every_held_out_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, fits = read_curve(run(tmp_path, []))
    seeds = [2**32 - 1, 999]  # below what NumPy and Keras take
    assert fits["seed"].drop_duplicates().tolist() == seeds
    assert fits.groupby(["kind", "per_class"], sort=False)["images"].max().to_dict() == {
        ("frozen", 1): 2, ("frozen", 6): 10, ("svm", 6): 10, ("frozen", ALL): 16, ("svm", ALL): 16,
    }  # fmt: skip
    assert (fits["epochs"] == 3).all()
    assert len(predictions) == len(fits) * 4
    assert set(predictions["predicted"]) == {"ant"}
    told = capsys.readouterr().out
    assert "curve vgg16: svm, 1 images per class, seed 999: left out, there are too few images" in told
    assert "curve vgg16: frozen, all images per class, seed 999: 16 images, 0.5 s, validation accuracy 50.0%" in told


def test_an_interrupted_curve_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", [])
    before: list[str] = []
    with pytest.raises(CurveError, match="curve vgg16: svm, 6 images per class, seed 999: the loss must stay finite"):
        run(tmp_path / "torn", before, fail_at="svm-6-999")
    assert not (tmp_path / "torn/curve").exists()
    after: list[str] = []
    resumed = run(tmp_path / "torn", after)
    made = [name for name in before if not name.startswith("svm-1-")]  # what was left out is no result to keep
    assert not set(made[:-1]) & set(after)
    for path in whole.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()
