"""Everything that the comparison reads, of models that never existed, beside images that show nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from fake_runs import DIGITS, fake_params, fake_predictions, write_data_report, write_run

from graft.artifacts import Manifest, Predictions, read_predictions, write_manifest, write_predictions
from graft.params import Params
from graft.shards import ShardWriter
from graft.storage import read_json, write_json, write_table

__all__ = ["DIGITS", "fake_params", "fake_predictions", "replace_manifest", "write_prepared", "write_reports"]

SIDE = 8  # px


def write_reports(
    reports: Path, params: Params, *, classes: Sequence[str] = DIGITS, per_class: int = 36, test: bool = True
) -> None:
    """The runs of all models of the params, the later in `Params.models` the worse, and all that goes with them."""
    held_out = fake_predictions(classes, per_class, 0.5, seed=0, test=test)  # of the images that all are of
    manifest = write_prepared(reports / "prepared", held_out, classes)
    for number, (model, kind) in enumerate(params.models().items()):
        accuracy = 0.93 - {"baseline": 0.0, "finetune": -0.01, "svm": 0.05}[kind] - 0.012 * (number % 4)
        predictions = fake_predictions(classes, per_class, accuracy, seed=number, test=test)
        predictions = dataclasses.replace(predictions, manifest=manifest.digest)
        write_run(
            reports, model, kind, predictions, parameters=120_000 * (number + 1), seconds=7.3 * number + 1, seed=number
        )
        summary = reports / "runs" / model / "summary.json"
        write_json(summary, read_json(summary) | {"abstain_below": 0.6})
        _write_inspected(reports / "rows" / model.removesuffix("-svm") / "inspect" / model, kind, number)
    for number, name in enumerate(params.backbones):
        _write_base(reports / "rows" / name, manifest, number)
    write_data_report(reports, classes)


def write_prepared(folder: Path, held_out: Predictions, classes: Sequence[str]) -> Manifest:
    """A manifest of five training images per class and those of some predictions, and grey images."""
    train = pd.DataFrame(
        [(f"train-{k}-{label}", "train", label) for label in classes for k in range(5)],
        columns=["image_id", "split", "label"],
    )
    rows = pd.concat([train, held_out.rows], ignore_index=True)
    rows = rows.assign(group=rows["image_id"], source=rows["image_id"] + ".png", width=40, height=30)
    manifest = Manifest(rows, tuple(classes))
    write_manifest(folder, manifest)
    brightness = np.linspace(20, 220, len(rows)).round()
    write_table(
        folder.parent / "data" / "attributes.parquet",
        pd.DataFrame({"image_id": rows["image_id"], "brightness": brightness}),
    )
    with ShardWriter(folder, "images", (SIDE, SIDE, 3), np.uint8, rows) as writer:
        writer.append(np.broadcast_to(brightness[:, None, None, None], (len(rows), SIDE, SIDE, 3)).astype(np.uint8))
    return manifest


def replace_manifest(reports: Path, manifest: Manifest) -> None:
    """Another manifest of the same images, and predictions that are of it."""
    write_manifest(reports / "prepared", manifest)
    made = [*reports.glob("runs/**/*.parquet"), *reports.glob("rows/*/transferability/out_of_fold.parquet")]
    for path in made:
        write_predictions(path, dataclasses.replace(read_predictions(path), manifest=manifest.digest))


def _write_inspected(folder: Path, kind: str, number: int) -> None:
    write_json(folder / "costs.json", {"multiply_adds": 10**6 * (number + 1), "model_bytes": 10**6})
    latency = 2.0 + number
    speed = {"latency_ms": latency, "latency_ms_low": 0.9 * latency, "latency_ms_high": 1.2 * latency}
    write_json(folder / "timings.json", speed | {"throughput": 900 / latency, "repeats": 5, "batch": 64})
    if kind != "svm":
        write_json(folder / "looks.json", [])
        write_json(folder / "first_layer.json", None)


def _write_base(folder: Path, manifest: Manifest, number: int) -> None:
    classes = manifest.classes
    write_json(folder / "features/timings.json", {"feature_seconds": 3.5, "seconds": 0.1, "computed": 0, "reused": 9})
    accuracy = 0.8 + 0.03 * number
    scores = {"logme": 0.4 + 0.1 * number, "linear_probe": accuracy, "n": 5 * len(classes), "folds": 5}
    interval = {"linear_probe_low": accuracy - 0.05, "linear_probe_high": accuracy + 0.05}
    write_json(folder / "transferability/scores.json", scores | interval)
    write_json(folder / "transferability/timings.json", {"seconds": 1.5})
    shown = fake_predictions(classes, 5, accuracy, seed=number, test=False)
    ids = [f"train-{k}-{label}" for label in classes for k in range(5)]
    order = np.argsort(shown.rows["label"].to_numpy(), kind="stable")
    rows = shown.rows.iloc[order].reset_index(drop=True).assign(image_id=ids, split="train")
    unseen = Predictions(rows, shown.probabilities[order], classes, manifest=manifest.digest)
    write_predictions(folder / "transferability/out_of_fold.parquet", unseen)
    places = np.random.default_rng(number).normal(size=(len(rows), 4))
    columns = pd.DataFrame(places, columns=["pca_x", "pca_y", "tsne_x", "tsne_y"])
    write_table(folder / "transferability/map.parquet", pd.concat([rows, columns], axis=1))
