from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import DEFAULT

from graft import publisher_process
from graft.artifacts import Manifest, read_predictions
from graft.calibration import apply_temperature, fit_temperature, read_calibration
from graft.checkpoints import Checkpoints
from graft.journal import read_journal, work_folder
from graft.metrics import classification_metrics
from graft.operation_sections import Tracking
from graft.params import Params
from graft.runs import (
    SEED_STRIDE,
    RunIdentity,
    RunPaths,
    Training,
    calibrated,
    held_out_predictions,
    held_out_rows,
    train_and_write,
)
from graft.storage import read_json

MANIFEST = Manifest(
    pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d", "e"],
            "label": ["ant", "bee", "ant", "bee", "ant"],
            "split": ["validation", "train", "test", "validation", "validation"],
            "group": ["a", "b", "c", "d", "e"],
            "source": "",
            "width": 1,
            "height": 1,
        }
    ),
    ("ant", "bee"),
)
MACHINE = {"processor": "of the tests"}
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], "float32")  # a, c, d, e


def test_held_out_images_keep_the_manifests_order_and_their_labels() -> None:
    predictions = held_out_predictions(MANIFEST, PROBABILITIES)
    assert held_out_rows(MANIFEST).tolist() == [0, 2, 3, 4]
    assert predictions.rows["image_id"].tolist() == ["a", "c", "d", "e"]
    labels, probabilities = predictions.split("validation")
    assert labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(probabilities, PROBABILITIES[[0, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-15)


def test_validation_alone_calibrates_and_all_images_are_at_its_temperature() -> None:
    raw = held_out_predictions(MANIFEST, PROBABILITIES)
    predictions, calibration = calibrated(raw, 0.9)
    assert predictions.temperature == calibration.temperature == fit_temperature(*raw.split("validation"))
    np.testing.assert_array_equal(
        predictions.probabilities, apply_temperature(raw.probabilities, calibration.temperature)
    )
    np.testing.assert_allclose(predictions.uncalibrated(), raw.probabilities, atol=1e-9)
    elsewhere = dataclasses.replace(raw, probabilities=raw.probabilities.copy())
    elsewhere.probabilities[1] = [0.01, 0.99]  # the test image
    assert calibrated(elsewhere, 0.9)[1] == calibration


class FakeFit:
    """Trainings that never happened; what they say follows from their seed."""

    def __init__(self, **more: Any) -> None:
        self.more, self.seeds = more, list[int]()

    def __call__(self, seed: int, publish: Any, checkpoints: Checkpoints) -> tuple[Training, Callable[[Path], None]]:
        self.seeds.append(seed)
        epoch = {"loss": 0.5 + seed, "accuracy": 0.5, "val_loss": 0.5, "val_accuracy": 0.5, "learning_rate": 0.1}
        publish(1, "frozen", epoch)
        chances = PROBABILITIES + np.array([0.01, -0.01], "float32") * (seed % 7)
        seconds = {"frozen": 1.5, "unfrozen": 2.0}
        told = {"history": [{"epoch": 1, "phase": "frozen", **epoch}], **self.more}
        training = Training(chances, 7, seconds, **told)
        return training, partial(self._save, seed)

    @staticmethod
    def _save(seed: int, folder: Path) -> None:
        (folder / "model.keras").write_text(f"seed {seed}")


def params(**train: Any) -> Params:
    """The default ones, without MLflow, which has tests of its own."""
    quiet = DEFAULT.tracking.model_copy(update={"live": False})
    return DEFAULT.model_copy(update={"train": DEFAULT.train.model_copy(update=train), "tracking": quiet})


def write(folder: Path, fit: Any, settings: Params) -> RunPaths:
    identity = RunIdentity("k1", "vgg16", "finetune", "vgg16", "finetune@vgg16", {"seed": 1})
    paths = RunPaths(folder / "model", folder / "run", folder / "metrics.json", folder / "history.csv")
    train_and_write(fit, paths, identity, manifest=MANIFEST, params=settings, machine=MACHINE)
    return paths


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_a_run_is_written_with_validation_metrics_only_and_its_work_folder_removed(root: Path) -> None:
    paths = write(root, FakeFit(), params(abstain_accuracy=0.5))
    predictions = read_predictions(paths.run / "predictions.parquet")
    metrics = read_json(paths.metrics)
    own = classification_metrics(*predictions.split("validation"))
    assert metrics == {f"val_{name}": value for name, value in own.items()} | {"temperature": predictions.temperature}
    assert metrics["val_accuracy"] == pytest.approx(1 / 3)  # of a, d, e the model has only a right
    assert read_json(paths.run / "timings.json") == {
        "train_seconds": 3.5,
        "frozen_seconds": 1.5,
        "unfrozen_seconds": 2.0,
    }
    calibration = read_calibration(paths.model)
    assert (calibration.temperature, calibration.abstain_accuracy) == (predictions.temperature, 0.5)
    assert read_json(paths.run / "summary.json") == {
        "model": "vgg16",
        "kind": "finetune",
        "backbone": "vgg16",
        "stage": "finetune@vgg16",
        "parameters": 7,
        "abstain_below": calibration.abstain_below,
    }
    record = read_journal(paths.run / "journal.jsonl")
    assert record.complete
    assert record.metrics == metrics
    assert paths.history is not None
    assert paths.history.read_text().splitlines()[1:] == ["1,frozen,1.5,0.5,0.5,0.5,0.1"]
    assert (paths.model / "model.keras").read_text() == "seed 1"
    assert read_json(paths.model / "input.json") == {"image_size": 32, "resize": "stretch"}
    assert read_json(paths.model / "classes.json") == ["ant", "bee"]
    assert not work_folder("k1").exists()


def test_what_a_search_tells_is_kept(root: Path) -> None:
    candidate = {"name": "head-01", "phase": "frozen", "params": {"dropout": 0.1}, "history": [], "chosen": True}
    paths = write(root, FakeFit(candidates=[candidate], tables={"search.csv": pd.DataFrame({"C": [1.0]})}), params())
    assert (paths.run / "search.csv").read_text() == "C\n1.0\n"
    assert read_journal(paths.run / "journal.jsonl").candidates == [candidate]


def test_repeats_leave_the_first_training_as_it_is_alone(root: Path) -> None:
    """Their predictions are those of a run that has their seed, each at its own temperature."""
    fit = FakeFit()
    alone, repeated = write(root / "alone", FakeFit(), params()), write(root / "repeated", fit, params(repeats=3))
    assert fit.seeds == [1, 1 + SEED_STRIDE, 1 + 2 * SEED_STRIDE]
    for one, other in ((alone.model, repeated.model), (alone.run, repeated.run)):
        for path in one.iterdir():
            if path.name not in ("timings.json", "journal.jsonl"):
                assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    assert not (alone.run / "repeats").exists()
    assert [path.name for path in sorted((repeated.run / "repeats").iterdir())] == ["01.parquet", "02.parquet"]
    for number, path in enumerate(sorted((repeated.run / "repeats").iterdir()), start=1):
        seeded = params().model_copy(update={"seed": 1 + number * SEED_STRIDE})
        itself = write(root / f"seed {number}", FakeFit(), seeded)
        assert path.read_bytes() == (itself.run / "predictions.parquet").read_bytes()
    temperatures = {read_predictions(path).temperature for path in repeated.run.rglob("*.parquet")}
    assert len(temperatures) == 3


def test_repeats_are_records_of_their_own_beside_the_first_trainings_epochs(root: Path) -> None:
    paths = write(root, FakeFit(), params(repeats=3))
    record = read_journal(paths.run / "journal.jsonl")
    assert [epoch["metrics"]["loss"] for epoch in record.epochs] == [1.5]
    assert [(repeat["name"], repeat["seed"]) for repeat in record.repeats] == [("repeat-02", 1001), ("repeat-03", 2001)]
    for number, repeat in enumerate(record.repeats, start=1):
        predictions = read_predictions(paths.run / "repeats" / f"{number:02d}.parquet")
        own = classification_metrics(*predictions.split("validation"))
        assert repeat["metrics"] == {f"val_{name}": value for name, value in own.items()}
        assert [epoch["loss"] for epoch in repeat["history"]] == [0.5 + repeat["seed"]]
    first = {"train_seconds": 3.5, "frozen_seconds": 1.5, "unfrozen_seconds": 2.0}
    assert read_json(paths.run / "timings.json") == record.timings == first | {"repeats_seconds": 7.0}


def test_a_repeat_that_is_not_trained_by_epochs_has_none(root: Path) -> None:
    paths = write(root, FakeFit(history=None), params(repeats=2))
    assert [repeat["history"] for repeat in read_journal(paths.run / "journal.jsonl").repeats] == [[]]


def test_the_system_is_sampled_meanwhile(root: Path) -> None:
    paths = write(root, FakeFit(), params())
    (sample,) = read_journal(paths.run / "journal.jsonl").system
    assert sample["metrics"]["system/process_memory_megabytes"] > 0


def test_every_kind_of_model_records_the_values_that_all_share_under_the_same_names() -> None:
    from graft.stages import baseline, finetune, svm

    settings = params(repeats=2, class_weights="balanced")
    shared = settings.train.model_dump(mode="json")
    network = baseline._identity(settings, "cnn", "k").params
    assert network["train"] == shared | settings.baselines["cnn"].train.model_dump(mode="json")
    for stage in (finetune, svm):
        assert stage._identity(settings, "vgg16", "k").params["train"] == shared
        assert {"seed", "data", "augment"} <= stage._identity(settings, "vgg16", "k").params.keys() & network.keys()


@pytest.mark.parametrize(
    ("kind", "live", "followed"), [("finetune", True, 1), ("svm", True, 0), ("baseline", False, 0)]
)
def test_mlflow_follows_networks_where_the_params_say_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, live: bool, followed: int
) -> None:
    seen: list[tuple[Path, str]] = []

    @contextmanager
    def follow(work: Path, experiment: str) -> Iterator[None]:
        assert not read_journal(work / "journal.jsonl").epochs
        seen.append((work, experiment))
        yield

    monkeypatch.setattr(publisher_process, "published_live", follow)
    identity = RunIdentity("k1", "vgg16", kind, "vgg16", f"{kind}@vgg16", {"seed": 1})
    tracking = Tracking(experiment="photos", registered_model="photos", live=live)
    with identity.recorded(MACHINE) as journal, identity.followed(journal, tracking):
        assert seen == [(work_folder("k1"), "photos")] * followed


def test_the_largest_seed_goes_round(root: Path) -> None:
    fit = FakeFit()
    write(root, fit, params(repeats=2).model_copy(update={"seed": 2**32 - 1}))
    assert fit.seeds == [2**32 - 1, SEED_STRIDE - 1]
