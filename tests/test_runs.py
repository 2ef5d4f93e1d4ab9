from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graft.artifacts import Manifest, read_predictions
from graft.journal import read_journal, work_folder
from graft.runs import RunIdentity, RunPaths, held_out_predictions, held_out_rows, write_run
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
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], "float32")  # a, c, d, e


def test_held_out_images_keep_the_manifests_order_and_their_labels() -> None:
    predictions = held_out_predictions(MANIFEST, PROBABILITIES)
    assert held_out_rows(MANIFEST).tolist() == [0, 2, 3, 4]
    assert predictions.rows["image_id"].tolist() == ["a", "c", "d", "e"]
    labels, probabilities = predictions.split("validation")
    assert labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(probabilities, PROBABILITIES[[0, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-15)


def test_a_run_is_written_with_validation_metrics_only_and_its_work_folder_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    identity = RunIdentity("k1", "vgg16", "finetune", "vgg16", "finetune@vgg16", {"seed": 1})
    paths = RunPaths(tmp_path / "model", tmp_path / "run", tmp_path / "metrics.json", tmp_path / "history.csv")
    journal = identity.start_journal()
    journal.epoch(1, "frozen", {"loss": 0.5})
    metrics = write_run(
        paths,
        identity,
        journal,
        parameters=7,
        predictions=held_out_predictions(MANIFEST, PROBABILITIES),
        seconds={"frozen": 1.5, "unfrozen": 2.0},
        history=[{"epoch": 1, "phase": "frozen", "loss": 0.5}],
    )
    # of a, d, e the model has only a right; F1 of ant = 2 * 1 / (2 + 2), of bee 0; -(ln .9 + ln .4 + ln .3) / 3
    assert metrics == {
        "val_accuracy": pytest.approx(1 / 3),
        "val_macro_f1": pytest.approx(0.25),
        "val_log_loss": pytest.approx(0.7418747),
    }
    assert read_json(paths.metrics) == metrics
    assert read_json(paths.run / "timings.json") == {
        "train_seconds": 3.5,
        "frozen_seconds": 1.5,
        "unfrozen_seconds": 2.0,
    }
    assert read_json(paths.run / "summary.json") == {
        "model": "vgg16",
        "kind": "finetune",
        "backbone": "vgg16",
        "stage": "finetune@vgg16",
        "parameters": 7,
    }
    record = read_journal(paths.run / "journal.jsonl")
    assert record.complete
    assert record.metrics == metrics
    assert len(read_predictions(paths.run / "predictions.parquet").rows) == 4
    assert not work_folder("k1").exists()
