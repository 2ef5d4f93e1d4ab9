from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_reports import replace_manifest, write_reports
from fake_runs import DIGITS, fake_params, fake_predictions, write_run

from graft.artifacts import Manifest, Predictions, read_manifest, read_predictions, write_predictions
from graft.curve_files import ALL, write_curve
from graft.evaluation import evaluate_classes
from graft.params import Params
from graft.reliability import bins, coverage_curve
from graft.reporting.comparison import Comparison
from graft.reporting.gathering import Inputs, gather
from graft.storage import ArtifactError, read_json, write_json

PARAMS = fake_params(2)


def inputs(folder: Path) -> Inputs:
    return Inputs(folder / "prepared", folder / "data", folder / "runs", folder / "history", folder / "rows")


def gathered(folder: Path, params: Params = PARAMS) -> Comparison:
    return gather(params, inputs(folder))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without a dvc.lock, from which the hashes of the data would come."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of five models, not to be written to; cnn's predictions have a temperature."""
    folder = tmp_path_factory.mktemp("reports")
    write_reports(folder, PARAMS, per_class=6)
    file = folder / "runs/cnn/predictions.parquet"
    write_predictions(file, dataclasses.replace(read_predictions(file), temperature=2.0))
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_reports(tmp_path, PARAMS, per_class=3)
    return tmp_path


@pytest.fixture(scope="module")
def comparison(reports: Path) -> Comparison:
    return gathered(reports)


class TestModels:
    def test_all_are_in_the_order_of_the_leaderboard(self, comparison: Comparison) -> None:
        models = comparison.frame["model"].tolist()
        assert sorted(models) == sorted(PARAMS.models())
        assert [*comparison.runs] == [*comparison.reliability] == [*comparison.coverage] == models
        assert comparison.champion.model == models[0]
        assert comparison.classes["model"].unique().tolist() == models

    def test_every_class_of_every_model_is_measured_on_test(self, comparison: Comparison) -> None:
        of_cnn = comparison.classes[comparison.classes["model"] == "cnn"].reset_index(drop=True)
        assert of_cnn["label"].tolist() == list(DIGITS)
        labels, probabilities = comparison.runs["cnn"].predictions.split("test")
        expected = evaluate_classes(labels, probabilities, None, PARAMS.compare, PARAMS.seed)
        pd.testing.assert_frame_equal(of_cnn[list(expected.columns)], expected)

    def test_reliability_is_told_before_and_after_calibration(self, comparison: Comparison) -> None:
        predictions, count = comparison.runs["cnn"].predictions, PARAMS.compare.calibration_bins
        labels, calibrated = predictions.split("test")
        raw = calibrated**2 / (calibrated**2).sum(axis=1, keepdims=True)
        before, after = comparison.reliability["cnn"]
        pd.testing.assert_frame_equal(before, bins(labels, raw, count))
        pd.testing.assert_frame_equal(after, bins(labels, calibrated, count))
        expected = coverage_curve(labels, calibrated, PARAMS.compare.confidence)
        pd.testing.assert_frame_equal(comparison.coverage["cnn"], expected)

    def test_groups_of_the_manifest_make_intervals_wider(self, reports: Path, own: Path) -> None:
        manifest = read_manifest(own / "prepared")
        of_three = manifest.rows["split"] + "-" + manifest.rows["label"]  # the images of a class
        before = gathered(own).frame.set_index("model")
        replace_manifest(own, Manifest(manifest.rows.assign(group=of_three), manifest.classes))
        after = gathered(own).frame.set_index("model")
        assert (after.loc[before.index, "test_accuracy"] == before["test_accuracy"]).all()
        assert (after.loc[before.index, "test_accuracy_low"] != before["test_accuracy_low"]).all()

    def test_without_test_images_validation_takes_their_place(self, tmp_path: Path) -> None:
        params = fake_params(1, test="none")
        write_reports(tmp_path, params, per_class=4, test=False)
        found = gathered(tmp_path, params)
        assert found.classes["n"].sum() == 3 * 40
        assert found.coverage["cnn"]["n"].iloc[-1] == 40
        assert {tile.title.split("-")[0] for tile in (*found.mistakes, *found.doubts)} == {"validation"}


class TestBases:
    def test_scores_seconds_and_maps_are_told_of_each(self, comparison: Comparison) -> None:
        assert comparison.transfer.to_dict("records") == [
            pytest.approx(
                {"backbone": name, "logme": logme, "linear_probe": probe, "linear_probe_low": probe - 0.05,
                 "linear_probe_high": probe + 0.05, "seconds": 1.5}
            )
            for name, logme, probe in (("vgg16", 0.4, 0.8), ("resnet50", 0.5, 0.83))
        ]  # fmt: skip
        assert [*comparison.maps] == ["vgg16", "resnet50"]
        assert len(comparison.maps["vgg16"]) == 50
        of_bases = comparison.frame.dropna(subset="backbone")
        assert of_bases["feature_seconds"].unique().tolist() == [3.5]

    def test_scores_are_set_against_the_accuracies_on_test(self, comparison: Comparison) -> None:
        assert [(each.score, each.kind, each.n) for each in comparison.correlations] == [
            ("logme", "finetune", 2), ("logme", "svm", 2), ("linear_probe", "finetune", 2), ("linear_probe", "svm", 2),
        ]  # fmt: skip
        accuracy = comparison.frame.set_index("model")["test_accuracy"]
        sign = np.sign(accuracy["resnet50"] - accuracy["vgg16"])  # resnet50 has the higher scores
        assert comparison.correlations[0].coefficient == sign

    def test_without_backbones_there_is_nothing_to_tell(self, tmp_path: Path) -> None:
        params = fake_params(0)
        write_reports(tmp_path, params, per_class=3)
        found = gathered(tmp_path, params)
        assert len(found.transfer) == len(found.correlations) == len(found.maps) == 0
        assert set(found.suspects["judged_by"]) <= {"cnn"}


class TestImages:
    def test_suspects_are_judged_by_models_that_had_not_learned_from_them(self, comparison: Comparison) -> None:
        by_split = comparison.suspects.groupby("split")["judged_by"].unique()
        champion = comparison.champion.model
        assert by_split["train"].tolist() == ["linear probe on resnet50"]  # whose probe is the best
        assert by_split["validation"].tolist() == by_split["test"].tolist() == [champion]
        assert [tile.title for tile in comparison.suspect_tiles] == comparison.suspects["source"].head(24).tolist()

    def test_mistakes_and_doubts_are_the_champions_on_test(self, comparison: Comparison) -> None:
        labels, probabilities = comparison.champion.predictions.split("test")
        wrong = int((probabilities.argmax(axis=1) != labels).sum())
        assert len(comparison.mistakes) == min(12, wrong)
        assert len(comparison.doubts) == 12
        assert all(tile.true != tile.predicted for tile in comparison.mistakes)
        assert all(tile.true == tile.predicted for tile in comparison.doubts)

    def test_slices_are_of_the_champion(self, comparison: Comparison) -> None:
        labels, probabilities = comparison.champion.predictions.split("test")
        right = probabilities.argmax(axis=1) == labels
        of_class = comparison.slices[comparison.slices["slice"] == "class"].set_index("value")
        for number, name in enumerate(DIGITS):
            assert of_class.loc[name, "accuracy"] == pytest.approx(right[labels == number].mean())
        assert "brightness" in set(comparison.slices["slice"])


class TestCurve:
    def test_it_is_left_out_where_it_is_off(self, comparison: Comparison) -> None:
        assert comparison.curve is None

    def test_the_rows_that_the_params_name_are_summarised_on_the_final_split(self, own: Path) -> None:
        """Of two test images one is right; of two validation images both."""
        point = {"kind": "baseline", "per_class": ALL, "seed": 1}
        images = pd.DataFrame({"split": ["validation"] * 2 + ["test"] * 2, "image_id": list("abcd"), "label": "0"})
        predictions = images.assign(**point, predicted=["0", "0", "0", "1"])
        fits = pd.DataFrame([point | {"images": 50, "epochs": 3, "seconds": 2.0}])
        write_curve(own / "rows/cnn/curve", predictions, fits)
        content = PARAMS.model_dump()
        content["curve"]["baselines"] = ["cnn"]
        curve = gathered(own, Params.model_validate(content)).curve
        assert curve is not None
        found = curve[["model", "kind", "images", "accuracy", "validation_accuracy"]].to_dict("records")
        assert found == [
            {"model": "cnn", "kind": "baseline", "images": 50, "accuracy": 0.5, "validation_accuracy": 1.0}
        ]


class TestRefused:
    @pytest.mark.parametrize(
        ("file", "change", "complaint"),
        [
            ("transferability/scores.json", {"logme": None}, "scores.json must give logme as a number"),
            ("transferability/scores.json", {"linear_probe": "high"}, "must give linear_probe as a number"),
            ("transferability/timings.json", {"seconds": None}, "timings.json must give seconds as a number"),
            ("features/timings.json", {"feature_seconds": "long"}, "must give feature_seconds as a number"),
        ],
    )
    def test_a_damaged_file_is_named(self, own: Path, file: str, change: dict[str, Any], complaint: str) -> None:
        path = own / "rows/vgg16" / file
        write_json(path, read_json(path) | change)
        with pytest.raises(ArtifactError, match=complaint):
            gathered(own)

    @pytest.mark.parametrize(
        "file", ["transferability/scores.json", "transferability/map.parquet", "features/timings.json"]
    )
    def test_a_missing_file_is_named(self, own: Path, file: str) -> None:
        (own / "rows/resnet50" / file).unlink()
        with pytest.raises(ArtifactError, match=f"resnet50/{file} is missing; `dvc repro` makes it"):
            gathered(own)

    def test_features_that_nobody_timed_cost_an_unknown_time(self, own: Path) -> None:
        path = own / "rows/vgg16/features/timings.json"
        write_json(path, read_json(path) | {"feature_seconds": None})
        frame = gathered(own).frame.set_index("model")
        assert np.isnan(frame.loc["vgg16", "feature_seconds"])

    def test_predictions_of_other_images_than_the_prepared_ones(self, own: Path) -> None:
        for model, kind in PARAMS.models().items():
            full = fake_predictions(DIGITS, 3, 0.8, seed=0)
            rows = full.rows.assign(image_id="other " + full.rows["image_id"])
            write_run(own, model, kind, Predictions(rows, full.probabilities, full.classes))
        with pytest.raises(ArtifactError, match=r"cnn/predictions.parquet: row 0 must be .* received \['other "):
            gathered(own)

    def test_a_probe_of_other_images(self, own: Path) -> None:
        path = own / "rows/resnet50/transferability/out_of_fold.parquet"
        judged = read_predictions(path)
        rows = judged.rows.assign(image_id="x" + judged.rows["image_id"])
        write_predictions(path, dataclasses.replace(judged, rows=rows))
        with pytest.raises(ArtifactError, match=r"out_of_fold.parquet: row 0 must be .* received \['xtrain"):
            gathered(own)
