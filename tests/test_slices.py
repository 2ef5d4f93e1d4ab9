from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from graft import slices
from graft.comparison_sections import Compare
from graft.evaluation import METRICS
from graft.slices import FEWEST, MEASURED, MOST_GROUPS, MOST_VALUES, evaluate_slices, slice_table
from graft.storage import ArtifactError

SETTINGS = Compare(confidence=0.95, resamples=100, top_k=2, calibration_bins=10)


def sliced(n: int, further: dict[str, Any] | None = None, **columns: Any) -> pd.DataFrame:
    """The slices of n images that differ in what is given."""
    given = {"label": ["a", "b"] * (n // 2) + ["a"] * (n % 2), "group": [f"{place:064d}" for place in range(n)]}
    given |= {"width": 32, "height": 32} | columns
    ids = [f"id{place}" for place in range(n)]
    brightness = given.pop("brightness", 100.0)
    attributes = pd.DataFrame({"image_id": ids, "brightness": brightness} | (further or {}))
    return slice_table(pd.DataFrame({"image_id": ids} | given), attributes)


def predictions(labels: np.ndarray, right: np.ndarray, classes: int = 2) -> np.ndarray:
    """Probabilities (n, classes) of 0.7 for the right class, or for the next one."""
    rows = np.full((len(labels), classes), 0.3 / (classes - 1))
    rows[np.arange(len(labels)), np.where(right, labels, (labels + 1) % classes)] = 0.7
    return rows


def measured(
    right: np.ndarray, groups: np.ndarray | None = None, settings: Compare = SETTINGS, **ways: Any
) -> pd.DataFrame:
    """The table of some ways of slicing images that are rightly or wrongly predicted."""
    labels = np.arange(len(right)) % 2
    table = pd.DataFrame(ways, dtype=object)
    return evaluate_slices(labels, predictions(labels, right), ("a", "b"), table, groups, settings, 1)


def test_images_are_cut_into_quarters_by_what_differs() -> None:
    found = sliced(20, brightness=np.arange(20) * 10 + 0.2, width=30, height=np.arange(20) + 20)
    assert found.columns.tolist() == ["class", "image size", "shape", "brightness"]
    assert found["brightness"].unique().tolist() == [
        "darkest quarter (0 to 40)",
        "second darkest quarter (50 to 90)",
        "second brightest quarter (100 to 140)",
        "brightest quarter (150 to 190)",
    ]
    assert found["brightness"].value_counts().tolist() == [5] * 4
    # The shorter side is 20, 21, ... 30, 30, ...: half of the images are on the upper edges.
    assert found["image size"].unique().tolist() == [
        "shorter side 20 to 24 px",
        "shorter side 25 to 29 px",
        "shorter side 30 px",
    ]
    assert found["shape"].tolist() == ["landscape"] * 8 + ["square or nearly"] * 6 + ["portrait"] * 6


def test_what_is_the_same_everywhere_is_no_slice() -> None:
    assert sliced(8).columns.tolist() == ["class"]
    assert sliced(8, width=[20, 32] * 4, height=[20, 32] * 4)["image size"].unique().tolist() == [
        "shorter side 20 px",
        "shorter side 32 px",
    ]


def test_the_sources_large_groups_are_slices_and_groups_of_likes_are_not() -> None:
    names = ["group:anna"] * 6 + ["group:ben"] * 4 + ["f" * 64] * 6
    assert sliced(16, group=names)["group"].tolist() == ["anna"] * 6 + [None] * 10
    many = [f"group:{number:03d}" for number in range(MOST_GROUPS + 10) for _ in range(FEWEST + (number == 55))]
    kept = sliced(len(many), group=many)["group"].dropna()
    assert sorted(kept.unique()) == [f"{number:03d}" for number in [*range(MOST_GROUPS - 1), 55]]


def test_a_tables_columns_are_sliced_by_what_they_hold() -> None:
    n = 40
    found = sliced(
        n,
        {
            "table:camera": ["red", "blue"] * 15 + [None] * 10,
            "table:year": ["2019", "2020", "007", "NA"] * 10,
            "table:exposure": [f"{place / 8}" for place in range(n - 8)] + ["n/a"] * 8,
            "table:seconds": np.arange(n) * 0.5,
            "table:row": [str(place) for place in range(n)],
            "table:file": [f"f{place}.png" for place in range(n)],
            "table:constant": ["same"] * n,
            "table:blank": pd.Series([None] * n, dtype="str"),
            "table:kind": ["often"] * 30 + ["rare"] * 4 + [f"once {place}" for place in range(6)],
            "table:class": ["x", "y"] * (n // 2),
        },
    )
    assert found.columns.tolist() == ["class", "camera", "year", "exposure", "seconds", "kind", "class (table)"]
    assert found["camera"].value_counts().to_dict() == {"red": 15, "blue": 15, "missing": 10}
    assert found["year"].value_counts().to_dict() == {"2019": 10, "2020": 10, "007": 10, "missing": 10}
    assert found["exposure"].value_counts(sort=False).to_dict() == {
        "lowest quarter (0 to 0.875)": 8,
        "second lowest quarter (1 to 1.875)": 8,
        "second highest quarter (2 to 2.875)": 8,
        "highest quarter (3 to 3.875)": 8,
        "missing": 8,
    }
    assert found["seconds"].iloc[0] == "lowest quarter (0 to 4.5)"
    assert found["kind"].value_counts().to_dict() == {"often": 30, "other": 10}


def test_rare_values_of_many_are_gathered() -> None:
    values = [f"v{number:02d}" for number in range(MOST_VALUES + 5) for _ in range(FEWEST + (number > 20))]
    counts = sliced(len(values), {"table:kind": values})["kind"].value_counts()
    assert len(counts) == MOST_VALUES + 1
    assert counts["other"] == 5 * FEWEST
    assert set(counts.index) == {"other"} | {f"v{number:02d}" for number in [*range(16), *range(21, 35)]}


def test_attributes_of_other_images_are_refused() -> None:
    rows = pd.DataFrame({"image_id": ["x", "y"]})
    with pytest.raises(ArtifactError, match="attributes of the measured images"):
        slice_table(rows, pd.DataFrame({"image_id": ["y", "x"]}))


def test_a_slice_is_measured_and_tested_against_the_rest() -> None:
    """Of 20 images 5 are dark, of which 4 are wrong, and no other is: 5 of the C(20, 4) ways to place 4 errors."""
    right = np.arange(20) >= 4
    table = measured(right, brightness=["dark"] * 5 + ["bright"] * 15)
    dark = table.set_index("value").loc["dark"]
    assert dark[["slice", "n", "share", "accuracy", "rest_accuracy", "difference"]].tolist() == [
        *("brightness", 5, 0.25),
        *(pytest.approx(0.2), 1, pytest.approx(-0.8)),
    ]
    assert dark["p_value"] == pytest.approx(5 / 4845)
    assert dark["p_adjusted"] == pytest.approx(5 / 4845)  # dark or bright is one question
    assert table[["value", "worse"]].to_numpy().tolist() == [["dark", True], ["bright", False]]
    assert dark["accuracy_low"] < 0.2 < dark["accuracy_high"] < 1
    assert table.columns.tolist() == [
        *("slice", "value", "n", "share"),
        *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")),
        *("rest_accuracy", "difference", "p_value", "p_adjusted", "worse"),
    ]
    assert dark["brier"] == pytest.approx((4 * 2 * 0.7**2 + 2 * 0.3**2) / 5)
    assert dark["log_loss"] == pytest.approx(-(4 * np.log(0.3) + np.log(0.7)) / 5)


def test_what_compares_classes_is_undefined_in_a_slice_of_one() -> None:
    labels = np.repeat([0, 1], 20)
    names = np.array(["a", "b"])[labels]
    probabilities = predictions(labels, np.arange(40) % 5 > 0, 3)
    table = evaluate_slices(labels, probabilities, tuple("abc"), pd.DataFrame({"class": names}), None, SETTINGS, 1)
    assert table["value"].tolist() == ["a", "b"]
    undefined = ["balanced_accuracy", "macro_f1", "roc_auc", "average_precision"]
    assert table[undefined].isna().all(axis=None)
    assert table[["accuracy", "log_loss", "brier", "top_k_accuracy", "calibration_error"]].notna().all(axis=None)


def test_a_weak_slice_among_many_is_found_and_comes_first() -> None:
    random = np.random.default_rng(0)
    cameras = random.choice([f"camera {number}" for number in range(9)], 400)
    right = random.random(400) < np.where(cameras == "camera 3", 0.6, 0.97)
    noise = {f"noise {number}": random.choice(["x", "y", "z"], 400) for number in range(6)}
    table = measured(right, camera=cameras, **noise)
    assert len(table) == 9 + 18
    assert table.loc[table["worse"], ["slice", "value"]].to_numpy().tolist() == [["camera", "camera 3"]]
    assert table["worse"].tolist() == [True] + [False] * 26
    assert table["accuracy_high"].iloc[1:].is_monotonic_increasing


def test_where_there_is_no_weak_slice_none_is_named() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        ways = {f"noise {number}": random.choice(["x", "y", "z"], 200) for number in range(6)}
        assert not measured(random.random(200) < 0.9, **ways)["worse"].any()


def test_a_tiny_slice_is_listed_and_not_judged() -> None:
    """Four errors in four images, which chance would place there once in 64,684,950 times; five of five are judged."""
    right = np.arange(200) >= 4
    table = measured(right, kind=["few"] * 4 + ["other"] * 196).set_index("value")
    assert table.loc["few", ["n", "accuracy", "difference"]].tolist() == [4, 0, -1]
    assert 0.4 < table.loc["few", "accuracy_high"] < 0.6
    assert table.loc["few", ["p_value", "p_adjusted"]].isna().all()
    assert table.loc["other", "p_adjusted"] == table.loc["other", "p_value"]  # of one tested slice
    assert not table["worse"].any()
    assert measured(np.arange(200) >= 5, kind=["few"] * 5 + ["other"] * 195).set_index("value").loc["few", "worse"]


def test_images_of_one_group_do_not_count_as_independent() -> None:
    """Ten wrong images of one person are one person's: with 20 persons a slice with this person is not yet worse."""
    persons = np.repeat(np.arange(20), 10)
    right = persons != 0
    indoors = np.where(persons < 5, "indoors", "outdoors")
    assert fisher_exact([[40, 10], [150, 0]]).pvalue < 1e-6
    assert measured(right, place=indoors)["worse"].any()
    alike = measured(right, groups=persons.astype(str).astype(object), place=indoors)
    assert not alike["worse"].any()
    assert alike["p_value"].tolist() == [pytest.approx(5 / 20)] * 2  # each person counts once
    itself = measured(right, groups=persons.astype(str).astype(object), group=persons.astype(str).astype(object))
    assert itself.loc[itself["worse"], "value"].tolist() == ["0"]  # the person's own slice is about this person


def test_groups_whose_images_are_alike_raise_no_false_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty persons of nine images, some easier than others, eight of them indoors; nothing depends on the place."""
    monkeypatch.setattr(slices, "MEASURED", 0)
    random, alarms = np.random.default_rng(0), {"alike": 0, "independent": 0}
    persons = np.repeat(np.arange(40), 9)
    for _ in range(200):
        right = random.random(360) < random.beta(2.1, 0.23, 40)[persons]  # 90 % right, correlated by 0.3
        place = np.where(np.isin(persons, random.choice(40, 8, replace=False)), "indoors", "outdoors")
        for name, groups in (("alike", persons.astype(str).astype(object)), ("independent", None)):
            alarms[name] += measured(right, groups=groups, place=place)["p_value"].iloc[0] < 0.05
    assert alarms["alike"] <= 15
    assert alarms["independent"] >= 40


def test_of_very_many_slices_the_worst_have_every_metric() -> None:
    right = np.arange(800) >= 10
    table = measured(right, kind=[f"v{place // 10:02d}" for place in range(800)])
    assert len(table) == 80
    assert table["value"].iloc[0] == "v00"
    assert table["log_loss"].notna().sum() == MEASURED
    assert table.sort_values("log_loss")["log_loss"].notna().head(MEASURED).all()
    assert table[["accuracy", "accuracy_low", "accuracy_high", "p_value"]].notna().all(axis=None)


def test_a_slice_of_every_image_has_no_rest_and_is_left_out() -> None:
    assert measured(np.arange(10) > 2, kind=["x"] * 10).empty


def test_slices_of_other_images_are_refused() -> None:
    labels = np.array([0, 1, 0])
    for names in (["a", "b"], ["a", "a", "b"]):
        with pytest.raises(ArtifactError, match="of different images"):
            evaluate_slices(
                labels, predictions(labels, labels == 0), ("a", "b"), pd.DataFrame({"class": names}), None, SETTINGS, 1
            )


def test_the_same_images_give_the_same_table() -> None:
    right = np.random.default_rng(2).random(60) < 0.8
    ways = {"kind": ["x", "y", "z"] * 20}
    pd.testing.assert_frame_equal(measured(right, **ways), measured(right, **ways))


def test_where_no_way_tells_anything_there_is_no_slice() -> None:
    table = sliced(1)
    assert table.shape == (1, 0)
    found = evaluate_slices(np.array([0]), np.array([[0.8, 0.2]]), ("a", "b"), table, None, SETTINGS, 1)
    assert found.empty
    assert {"slice", "accuracy", "worse"} <= set(found.columns)
