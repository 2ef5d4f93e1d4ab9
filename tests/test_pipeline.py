"""The stages in one process on a tiny folder: every file that is promised, and none that is not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from networks_on_trial import learnable_digits, tiny_params
from PIL import Image

from graft.artifacts import read_manifest, read_predictions, read_views
from graft.params import Params
from graft.predicting import load_model
from graft.reporting.gathering import Inputs
from graft.runs import RunPaths
from graft.stages import (
    augment,
    baseline,
    compare,
    curve,
    curve_baseline,
    features,
    finetune,
    inspect,
    inspect_baseline,
    prepare,
    pretrain,
    svm,
    track,
    transferability,
)
from graft.storage import read_json


def paths(root: Path, name: str, *, history: bool = True) -> RunPaths:
    reports = root / "reports"
    return RunPaths(
        root / "models" / name,
        reports / "runs" / name,
        reports / "metrics/validation" / f"{name}.json",
        reports / "history" / f"{name}.csv" if history else None,
    )


def run_transfer(root: Path, params: Params, name: str, prefix: str = "") -> None:
    """The stages features, transferability, finetune and svm of a backbone; what they write is named with a prefix."""
    extracted, row = root / f"data/features/{prefix}{name}", root / f"reports/rows/{prefix}{name}"
    folders = {what: root / "data" / what for what in ("prepared", "augmented")}
    folders["source"] = root / "models/source" / name
    _, done = features.run(params, name, **folders, out=extracted, store=root / ".store/features")
    features.write_timings(row / "features/timings.json", done)
    transferability.run(params, name, **folders, features=extracted, out=row / "transferability")
    for stage, model in ((finetune, name), (svm, f"{name}-svm")):
        key = f"key-{prefix}{model}"
        to = paths(root, f"{prefix}{model}", history=stage is finetune)
        stage.run(params, name, **folders, features=extracted, paths=to, key=key)


def run_curve(root: Path, params: Params) -> None:
    data, rows = root / "data", root / "reports/rows"
    shared = {"prepared": data / "prepared", "augmented": data / "augmented"}
    for name in params.curve.baselines:
        curve_baseline.run(params, name, **shared, out=rows / name / "curve", work=root / f".work/curve-{name}")
    for name in params.curve.backbones:
        base = {"features": data / "features" / name, "source": root / "models/source" / name}
        curve.run(params, name, **shared, **base, out=rows / name / "curve", work=root / f".work/curve-{name}")


def outputs(reports: Path) -> compare.Outputs:
    return compare.Outputs(
        leaderboard=reports / "leaderboard", test_metrics=reports / "metrics/test", tables=reports / "tables",
        figures=reports / "figures/models", plots=reports / "figures/plots", model_card=reports / "model_card",
        page=reports / "index.html",
    )  # fmt: skip


def run_pipeline(root: Path, params: Params) -> None:
    """What `dvc repro` does, through the stages' functions."""
    prepared, augmented, reports = root / "data/prepared", root / "data/augmented", root / "reports"
    preview = reports / "figures/augmentation.png"
    prepare.run(params.data, params.seed, prepared, reports / "data")
    augment.run(params.augment, params.seed, prepared, augmented, preview)
    for name in params.baselines:
        baseline.run(params, name, prepared=prepared, augmented=augmented, paths=paths(root, name), key=f"key-{name}")
    for name in params.backbones:
        pretrain.run(params, name, root / "models/source" / name)
        run_transfer(root, params, name)
    for stage, names in ((inspect_baseline, params.baselines), (inspect, params.backbones)):
        for name in names:
            stage.run(params, name, prepared=prepared, models=root / "models", out=reports / f"rows/{name}/inspect")
    run_curve(root, params)
    compare.run(
        params, Inputs(prepared, reports / "data", reports / "runs", reports / "history", reports / "rows"),
        augmentation_preview=preview, out=outputs(reports),
    )  # fmt: skip
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {}}))
    track.run(
        params, runs=reports / "runs", models=root / "models", leaderboard=reports / "leaderboard.json",
        figures=reports / "figures/models", report=reports / "index.html", prepared=prepared,
        data_report=reports / "data", lock=root / "dvc.lock",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run on 45 images of three digits, with one file that is no image."""
    root = tmp_path_factory.mktemp("pipeline")
    pixels, labels = learnable_digits(16)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / "photos" / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    (root / "photos/digit 1/broken.png").write_bytes(b"\x89PNG\r\n")
    curve_of = {"curve__backbones": ["mobilenet"], "curve__baselines": ["cnn"], "curve__per_class": [2, "all"]}
    params = tiny_params(
        data__source="folder", data__path=str(root / "photos"), data__image_size=32, train__repeats=2, **curve_of
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(root)
        run_pipeline(root, params)
        yield root, params


MODELS = {"cnn", "vgg16", "mobilenet", "vgg16-svm", "mobilenet-svm"}


def test_every_model_leaves_a_model_predictions_and_a_journal(finished: Any) -> None:
    root, _ = finished
    for name in MODELS:
        assert (root / "models" / name / "classes.json").exists()
        assert (root / "models" / name / ("svm.skops" if name.endswith("-svm") else "model.keras")).exists()
        files = {path.name for path in (root / "reports/runs" / name).iterdir()}
        assert (root / "models" / name / "calibration.json").exists()
        expected = {"predictions.parquet", "journal.jsonl", "summary.json", "timings.json", "repeats"}
        assert files == expected | ({"search.csv"} if name.endswith("-svm") else set())
    left = [path for path in root.rglob("*") if "partial" in path.name or ".raw" in path.name]
    assert not left
    assert not (root / ".work").exists() or not list((root / ".work").glob("key-*"))


def test_no_test_image_is_trained_on_and_the_broken_one_is_reported(finished: Any) -> None:
    root, _ = finished
    manifest = read_manifest(root / "data/prepared")
    views = read_views(root / "data/augmented", manifest)
    splits = manifest.rows.set_index("image_id")["split"]
    assert set(splits[views["image_id"]]) == {"train"}
    assert "broken.png" in (root / "reports/data/quarantine.csv").read_text()
    assert not manifest.rows["source"].str.contains("broken").any()


def test_all_models_are_measured_on_the_same_images_in_the_same_order(finished: Any) -> None:
    root, _ = finished
    manifest = read_manifest(root / "data/prepared").rows
    held_out = manifest[manifest["split"] != "train"]
    for name in MODELS:
        rows = read_predictions(root / "reports/runs" / name / "predictions.parquet").rows
        assert rows["image_id"].tolist() == held_out["image_id"].tolist()
        assert rows["label"].tolist() == held_out["label"].tolist()


@pytest.mark.parametrize("name", ["vgg16", "cnn", "vgg16-svm"])
def test_the_classifier_answers_image_files_as_was_reported(finished: Any, name: str) -> None:
    root, _ = finished
    predictions = read_predictions(root / "reports/runs" / name / "predictions.parquet")
    sources = read_manifest(root / "data/prepared").rows.set_index("image_id")["source"]
    classifier = load_model(name, root / "models")
    files = [(root / "photos" / source).read_bytes() for source in sources.loc[predictions.rows["image_id"]]]
    np.testing.assert_allclose(classifier.classify(files), predictions.probabilities, rtol=1e-4, atol=1e-5)
    assert classifier.temperature == predictions.temperature


def test_the_leaderboard_agrees_with_the_predictions(finished: Any) -> None:
    root, _ = finished
    rows = json.loads((root / "reports/leaderboard.json").read_text())
    assert {row["model"] for row in rows} == MODELS
    assert {row["kind"] for row in rows} == {"baseline", "finetune", "svm"}
    assert sum(row["champion"] for row in rows) == 1
    assert max(row["val_accuracy"] for row in rows) == next(r["val_accuracy"] for r in rows if r["champion"])
    for row in rows:
        predictions = read_predictions(root / "reports/runs" / row["model"] / "predictions.parquet")
        for split, prefix in (("validation", "val"), ("test", "test")):
            labels, probabilities = predictions.split(split)
            assert row[f"{prefix}_accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
        assert row["test_accuracy_low"] <= row["test_accuracy"] <= row["test_accuracy_high"]
        own = read_json(root / f"reports/metrics/validation/{row['model']}.json")
        assert row["val_accuracy"] == own["val_accuracy"]
    page = (root / "reports/index.html").read_text()
    assert all(name in page for name in MODELS)
    assert "http-equiv" not in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_two_phases_are_one_history(finished: Any) -> None:
    root, _ = finished
    lines = [line.split(",") for line in (root / "reports/history/vgg16.csv").read_text().splitlines()[1:]]
    assert [int(line[0]) for line in lines] == [1, 2, 3, 4]
    assert [line[1] for line in lines] == ["frozen", "frozen", "unfrozen", "unfrozen"]


def runs_in_mlflow(root: Path, params: Params) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    return client, client.search_runs([experiment.experiment_id], "tags.`graft.key` != ''")


def test_the_further_training_of_each_model_is_a_run_under_its_own(finished: Any) -> None:
    root, params = finished
    client, runs = runs_in_mlflow(root, params)
    nested = client.search_runs([runs[0].info.experiment_id], "tags.kind = 'repeat'")
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {run.info.run_id for run in runs}
    assert {run.info.run_name for run in nested} == {"repeat-02"}
    assert all("val_accuracy" in run.data.metrics for run in nested)


def test_mlflow_holds_one_finished_run_per_model_and_the_champion(finished: Any) -> None:
    root, params = finished
    client, runs = runs_in_mlflow(root, params)
    assert {run.info.run_name for run in runs} == MODELS
    assert len(runs) == len(MODELS)
    rows = {row["model"]: row for row in json.loads((root / "reports/leaderboard.json").read_text())}
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_accuracy"] == pytest.approx(rows[run.info.run_name]["test_accuracy"])
    champion = client.get_model_version_by_alias(params.tracking.registered_model, "champion")
    assert rows[client.get_run(champion.run_id).info.run_name]["champion"]


TIMED = {  # what tells how long something took, and pages and tables that show it beside results
    *("journal.jsonl", "timings.json", "timings.csv", "curve.csv", "index.html", "pareto.svg"),
    *("model_card.json", "model_card.md"),
}


def result_digests(root: Path) -> dict[str, str]:
    """Hashes of everything that is a result."""
    results = [
        path
        for folder in ("data", "models", "reports")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name not in TIMED
        and not path.name.startswith("leaderboard")
    ]  # fmt: skip
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in results}


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes_and_no_second_mlflow_run(finished: Any) -> None:
    root, params = finished
    first = result_digests(root)
    for folder in ("data", "models", "reports"):
        shutil.rmtree(root / folder)
    run_pipeline(root, params)
    second = result_digests(root)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert len(runs_in_mlflow(root, params)[1]) == len(MODELS)


def test_the_disk_that_features_may_take_changes_no_result(finished: tuple[Path, Params]) -> None:
    root, params = finished
    nothing = params.model_copy(update={"features": params.features.model_copy(update={"max_gb": 0.0})})
    try:
        run_transfer(root, nothing, "mobilenet", prefix="unstored-")
        assert read_json(root / "data/features/unstored-mobilenet/plan.json")["stored"] == []
        for model in ("mobilenet", "mobilenet-svm"):
            stored, unstored = (
                read_predictions(root / f"reports/runs/{prefix}{model}/predictions.parquet").uncalibrated()
                for prefix in ("", "unstored-")
            )
            np.testing.assert_allclose(unstored, stored, rtol=1e-4, atol=1e-6)
    finally:
        for folder in root.glob("*/**/unstored-*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
