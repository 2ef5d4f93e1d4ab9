from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from interruptions import MACHINE, in_many_lives
from networks_on_trial import learnable_digits, tiny_params

from graft import networks, runtime
from graft.artifacts import Manifest, read_predictions
from graft.baselines import train_baseline
from graft.checkpoints import Checkpoints
from graft.journal import read_journal
from graft.network_runs import candidate_table, network_fit, save_keras_model
from graft.params import Params
from graft.runs import SEED_STRIDE, RunIdentity, RunPaths, train_and_write
from graft.sections import Baseline
from graft.shards import Shards, ShardWriter
from graft.training import Candidate, Publish, Rows, Trained


def test_equal_models_give_equal_files_that_keras_loads_safely(tmp_path: Path) -> None:
    import keras

    for name in ("one", "two"):
        runtime.configure(3)
        model = networks.build_head(4, 3, dropout=0.2)
        save_keras_model(tmp_path / f"{name}.keras", model)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.keras", "two.keras"]
    loaded = keras.saving.load_model(tmp_path / "one.keras", compile=False, safe_mode=True)
    vectors = np.random.default_rng(0).random((2, 4)).astype("float32")
    np.testing.assert_array_equal(loaded.predict_on_batch(vectors), model.predict_on_batch(vectors))


def test_candidates_are_a_line_each_at_their_best_epoch() -> None:
    """Also where none of its epochs counts; heads and tails have columns of their own."""
    epochs = [{"epoch": number, "val_loss": loss, "val_accuracy": loss / 2} for number, loss in ((1, 0.8), (2, 0.6))]
    table = candidate_table(
        [
            Candidate("head-01", "frozen", {"dropout": 0.3}, epochs, True),
            Candidate("tail-01", "unfrozen", {"batch_size": 8}, [], False),
        ]
    )
    assert list(table) == ["name", "phase", "dropout", "batch_size", "epochs", "val_loss", "val_accuracy", "chosen"]
    assert table.to_csv(index=False).splitlines()[1:] == [
        "head-01,frozen,0.3,,2,0.6,0.3,True",
        "tail-01,unfrozen,,8,0,,,False",
    ]


LAYERS: list[dict[str, dict[str, Any]]] = [
    {"Rescaling": {"scale": 1 / 255}}, {"Conv2D": {"filters": 4, "kernel_size": 3}}, {"Flatten": {}},
    {"Dropout": {"rate": 0.3}},
]  # fmt: skip


def train_cnn(folder: Path, settings: Params) -> RunPaths:
    """A tiny network with dropout on forty digits, twenty of which it is told."""
    pixels, labels = learnable_digits(8)
    kept = np.arange(40)
    with ShardWriter(folder, "images", (8, 8, 3), np.uint8) as writer:
        writer.append(pixels[kept])
    images = Shards(folder, "images")
    names = [f"{number:02d}" for number in range(40)]
    split = np.where(np.arange(40) % 2, "train", np.where(np.arange(40) % 4, "validation", "test"))
    columns = {"image_id": names, "label": labels[kept].astype(str), "split": split, "group": names, "source": names}
    manifest = Manifest(pd.DataFrame(columns).assign(width=8, height=8), ("0", "1"))
    train = settings.baselines["cnn"].train
    row = Baseline(
        engine="keras", input_size=8, channels=3, layers=LAYERS, train=train.model_copy(update={"batch_size": 4})
    )

    def rows(name: str) -> Rows:
        places = manifest.positions(name)
        return Rows(images, [places], manifest.labels[places])

    def fit(seed: int, publish: Publish, checkpoints: Checkpoints) -> Trained:
        told = rows("train"), rows("validation")
        return train_baseline(row, *told, classes=2, seed=seed, publish=publish, checkpoints=checkpoints)

    paths = RunPaths(folder / "model", folder / "run", folder / "metrics.json", folder / "history.csv")
    identity = RunIdentity("k", "cnn", "baseline", None, "baseline@cnn", {})
    repeatable = network_fit(fit, manifest=manifest, images=images, batch_size=8)
    train_and_write(repeatable, paths, identity, manifest=manifest, params=settings, machine=MACHINE)
    return paths


def test_a_training_that_mlflow_follows_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for live in (True, False):
        train_cnn(tmp_path / str(live), tiny_params(tracking__live=live))
    for name in ("model/model.keras", "model/calibration.json", "run/predictions.parquet", "metrics.json"):
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()


def test_a_repeat_is_what_a_run_with_its_seed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, batches and dropout follow from the seed alone, whatever the process has trained before."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def settings(seed: int, repeats: int) -> Params:
        quiet = {"tracking__live": False, "baselines__cnn__train__epochs": 3}
        return tiny_params(seed=seed, train__repeats=repeats, **quiet)

    repeated = train_cnn(tmp_path / "repeated", settings(1, 2))
    other = train_cnn(tmp_path / "other", settings(1 + SEED_STRIDE, 1))
    train_cnn(tmp_path / "alone", settings(1, 1))
    second = repeated.run / "repeats" / "01.parquet"
    assert second.read_bytes() == (other.run / "predictions.parquet").read_bytes()
    for name in ("model/model.keras", "model/calibration.json", "run/predictions.parquet", "metrics.json"):
        assert (tmp_path / "repeated" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    (repeat,) = read_journal(repeated.run / "journal.jsonl").repeats
    assert repeat["history"] == [
        {"epoch": epoch["epoch"], "phase": epoch["phase"], **epoch["metrics"]}
        for epoch in read_journal(other.run / "journal.jsonl").epochs
    ]
    first = read_predictions(repeated.run / "predictions.parquet").probabilities
    assert np.abs(read_predictions(second).probabilities - first).max() > 1e-3
    assert len((tmp_path / "repeated" / "history.csv").read_text().splitlines()) == 1 + 3


def test_repeats_that_are_interrupted_in_every_epoch_end_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first training and the second; nothing of the work is left."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    settings = tiny_params(train__repeats=2, tracking__live=False, baselines__cnn__train__epochs=3)
    train_cnn(tmp_path / "whole", settings)
    resumed, interruptions = in_many_lives(
        lambda _: train_cnn(tmp_path / "resumed", settings), tmp_path / "unused", monkeypatch
    )
    assert interruptions == 2 * 3 - 1
    names = ("model/model.keras", "run/predictions.parquet", "run/repeats/01.parquet", "metrics.json", "history.csv")
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name
    journals = [read_journal(tmp_path / name / "run" / "journal.jsonl") for name in ("whole", "resumed")]
    told = [[(epoch["epoch"], epoch["phase"], epoch["metrics"]) for epoch in journal.epochs] for journal in journals]
    assert told[0] == told[1]
    assert journals[0].repeats == journals[1].repeats
    assert list((tmp_path / ".work").glob("*/*")) == []
    assert resumed.model.is_dir()
