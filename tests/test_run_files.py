from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fake_reports import write_reports
from fake_runs import DIGITS, fake_params, fake_predictions, write_run

from graft.artifacts import Predictions, write_predictions
from graft.learned_filters import FirstLayer, write_first_layer
from graft.looks import Look, Tile, write_looks
from graft.reporting.comparison import Run
from graft.reporting.run_files import read_csv, read_runs
from graft.storage import ArtifactError, read_json, write_json

PARAMS = fake_params(2)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write_reports(tmp_path, PARAMS, per_class=2)
    return tmp_path


def read(reports: Path) -> dict[str, Run]:
    return {run.model: run for run in read_runs(PARAMS, reports / "runs", reports / "history", reports / "rows")}


def reordered(predictions: Predictions) -> Predictions:
    rows = predictions.rows.iloc[::-1]
    return dataclasses.replace(predictions, rows=rows, probabilities=predictions.probabilities[::-1])


def shortened(predictions: Predictions) -> Predictions:
    return dataclasses.replace(predictions, rows=predictions.rows.iloc[1:], probabilities=predictions.probabilities[1:])


def renamed(predictions: Predictions) -> Predictions:
    rows = predictions.rows.assign(label=predictions.rows["label"].replace("9", "ten"))
    return dataclasses.replace(predictions, rows=rows, classes=(*predictions.classes[:-1], "ten"))


OTHERS = pytest.mark.parametrize(
    ("change", "complaint"),
    [(reordered, "images in the same order"), (shortened, "images in the same order"), (renamed, "classes")],
)


class TestRuns:
    def test_kinds_and_bases_come_from_the_params(self, reports: Path) -> None:
        runs = read(reports)
        assert {name: run.kind for name, run in runs.items()} == PARAMS.models()
        assert {name: run.backbone for name, run in runs.items()} == {
            "cnn": None,
            "vgg16": "vgg16",
            "vgg16-svm": "vgg16",
            "resnet50": "resnet50",
            "resnet50-svm": "resnet50",
        }

    def test_what_the_stages_left_is_found(self, reports: Path) -> None:
        look = Look("filters", "Filters", "Of the first layer.", [Tile(b"png", "1")])
        write_looks(reports / "rows/vgg16/inspect/vgg16", [look])
        write_first_layer(reports / "rows/vgg16/inspect/vgg16", FirstLayer("conv", 7, (8, 8), True, []))
        runs = read(reports)
        network, machine = runs["vgg16"], runs["vgg16-svm"]
        assert (network.parameters, network.abstain_below) == (240_000, 0.6)
        assert network.timings == {"train_seconds": 8.3, "fit_seconds": 8.3}
        assert network.train_seconds == 8.3
        assert network.costs["multiply_adds"] == 2_000_000
        assert network.costs["latency_ms"] == 3.0
        assert network.costs["throughput"] == 300
        assert list(network.looks) == [look]
        assert network.first_layer is not None
        assert (network.first_layer.layer, network.first_layer.count) == ("conv", 7)
        assert (machine.history, list(machine.looks), machine.first_layer) == (None, [], None)

    def test_histories_are_numbers_by_phase(self, reports: Path) -> None:
        history = read(reports)["vgg16"].history
        assert history is not None
        assert pd.api.types.is_float_dtype(history["val_loss"])
        assert history["phase"].unique().tolist() == ["frozen", "unfrozen"]

    def test_repeats_come_in_their_order(self, reports: Path) -> None:
        repeats = [fake_predictions(DIGITS, 2, 0.5, seed=seed) for seed in (7, 8)]
        write_run(reports, "cnn", "baseline", fake_predictions(DIGITS, 2, 0.5, seed=6), repeats=repeats)
        found = read(reports)
        assert [each.probabilities.tolist() for each in found["cnn"].repeats] == [
            each.probabilities.tolist() for each in repeats
        ]
        assert list(found["vgg16"].repeats) == []

    def test_a_model_without_a_threshold_always_abstains(self, reports: Path) -> None:
        summary = reports / "runs/cnn/summary.json"
        write_json(summary, read_json(summary) | {"abstain_below": None})
        assert read(reports)["cnn"].abstain_below is None

    def test_runs_that_the_params_do_not_list_are_ignored(self, reports: Path) -> None:
        write_run(reports, "retired", "baseline", fake_predictions(DIGITS, 2, 1.0, seed=0))
        assert list(read(reports)) == list(PARAMS.models())


class TestRefused:
    def test_a_missing_run_is_named(self, tmp_path: Path) -> None:
        write_reports(tmp_path, fake_params(1), per_class=2)
        with pytest.raises(ArtifactError, match=r"runs lacks the runs of resnet50, resnet50-svm; `dvc repro` makes"):
            read(tmp_path)

    @OTHERS
    def test_a_model_measured_on_something_else_is_named(
        self, reports: Path, change: Callable[[Predictions], Predictions], complaint: str
    ) -> None:
        write_run(reports, "vgg16-svm", "svm", change(fake_predictions(DIGITS, 2, 0.8, seed=5)))
        with pytest.raises(ArtifactError, match=f"the same {complaint}; received others than cnn's from vgg16-svm$"):
            read(reports)

    @OTHERS
    def test_so_is_a_repeat(self, reports: Path, change: Callable[[Predictions], Predictions], complaint: str) -> None:
        repeat = change(fake_predictions(DIGITS, 2, 0.8, seed=5))
        write_predictions(reports / "runs/vgg16/repeats/01.parquet", repeat)
        with pytest.raises(ArtifactError, match=f"the same {complaint}; received others than cnn's from vgg16$"):
            read(reports)

    def test_predictions_without_a_validation_image_choose_no_champion(self, reports: Path) -> None:
        for model, kind in PARAMS.models().items():
            full = fake_predictions(DIGITS, 2, 0.8, seed=0)
            only = (full.rows["split"] == "test").to_numpy()
            tests = dataclasses.replace(full, rows=full.rows[only], probabilities=full.probabilities[only])
            write_run(reports, model, kind, tests)
        with pytest.raises(ArtifactError, match="cnn predicted no validation image"):
            read(reports)

    @pytest.mark.parametrize(
        ("file", "content", "complaint"),
        [
            ("runs/cnn/summary.json", "{}", "summary.json must give parameters as a number, received {}"),
            ("runs/cnn/summary.json", '{"parameters": "many"}', "must give parameters as a number"),
            (
                "runs/cnn/summary.json",
                '{"parameters": 1, "abstain_below": "never"}',
                "summary.json must give abstain_below as a number",
            ),
            ("runs/cnn/timings.json", "[]", "timings.json must give train_seconds as a number"),
            ("runs/cnn/timings.json", '{"train_seconds": true}', "timings.json must give train_seconds as a number"),
            ("runs/cnn/timings.json", "{", "timings.json is not JSON"),
            ("rows/cnn/inspect/cnn/costs.json", '{"multiply_adds": 1}', "costs.json must give model_bytes as a number"),
            ("rows/cnn/inspect/cnn/timings.json", "{}", "timings.json must give latency_ms as a number"),
            ("rows/cnn/inspect/cnn/looks.json", '[{"name": "x"}]', "looks.json must hold looks"),
            ("rows/cnn/inspect/cnn/first_layer.json", "[]", "first_layer.json must hold filters"),
            ("history/cnn.csv", "epoch,loss\n1,2\n", r"cnn.csv must have the columns \['epoch', 'phase'"),
            ("history/cnn.csv", "epoch,phase,loss,accuracy,val_loss,val_accuracy\n", "list at least one epoch"),
            ("history/cnn.csv", "", "cnn.csv is not a readable CSV file"),
        ],
    )
    def test_a_damaged_file_is_named(self, reports: Path, file: str, content: str, complaint: str) -> None:
        (reports / file).write_text(content)
        with pytest.raises(ArtifactError, match=complaint):
            read(reports)

    @pytest.mark.parametrize(
        "file",
        [
            "history/vgg16.csv",
            "runs/vgg16/predictions.parquet",
            "runs/vgg16/timings.json",
            "rows/vgg16/inspect/vgg16/costs.json",
            "rows/vgg16/inspect/vgg16-svm/timings.json",
            "rows/vgg16/inspect/vgg16/looks.json",
            "rows/vgg16/inspect/vgg16/first_layer.json",
        ],
    )
    def test_a_missing_file_is_named(self, reports: Path, file: str) -> None:
        (reports / file).unlink()
        with pytest.raises(ArtifactError, match=f"{Path(file).name} is missing; `dvc repro` makes it"):
            read(reports)

    def test_a_number_that_is_text_in_a_history_is_named(self, reports: Path) -> None:
        (reports / "history/cnn.csv").write_text("epoch,phase,loss,accuracy,val_loss,val_accuracy\n1,train,?,1,1,1\n")
        with pytest.raises(ArtifactError, match=r"cnn.csv must hold numbers.*'\?'"):
            read(reports)


def test_cells_of_a_table_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text("label,train\n007,1\nNA,2\n")
    assert read_csv(tmp_path / "counts.csv", ["label"])["label"].tolist() == ["007", "NA"]
