"""How well a frozen base suits the images, and a map of its features, before anything is trained on it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from graft.artifacts import Manifest, Predictions, read_manifest, write_predictions
from graft.extraction import top_activations
from graft.feature_sets import read_features, read_view_pixels
from graft.intervals import wilson_interval
from graft.params import Params, load_params, row
from graft.projections import draw_stratified, project
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder, write_json, write_table
from graft.transferability import Probe, linear_probe, logme


def run(
    params: Params,
    name: str,
    *,
    prepared: Path,
    augmented: Path,
    features: Path,
    source: Path,
    out: Path,
) -> None:
    """Judge one base by the training images alone; the map shows validation images too.

    Writes scores.json, out_of_fold.parquet (the probe's predictions of the training images), map.parquet, and
    timings.json with the seconds of reading the features and scoring them.
    """
    backbone = row(params.backbones, name, "backbones")
    manifest = read_manifest(prepared)
    feature_set = read_features(features, manifest, read_view_pixels(prepared, augmented, manifest))
    train, mapped = manifest.positions("train"), _mapped(manifest, params)
    started = time.perf_counter()
    wanted = np.union1d(train, mapped)  # a feature folder begins with the images in manifest order
    top = top_activations(feature_set, wanted, source, backbone, params.seed)
    rows, labels = top[np.searchsorted(wanted, train)], manifest.labels[train]
    groups = manifest.rows["group"].to_numpy()[train]
    evidence = logme(rows, labels)
    folds, classes = params.transferability.folds, len(manifest.classes)
    probe = linear_probe(rows, labels, groups, classes=classes, folds=folds, seed=params.seed)
    seconds = time.perf_counter() - started
    scores = {"logme": evidence} | _accuracy(probe, labels, groups, params.compare.confidence)
    points = manifest.rows[["image_id", "split", "label"]].iloc[mapped].reset_index(drop=True)
    points = points.join(project(top[np.searchsorted(wanted, mapped)], params.seed))
    with new_folder(out) as folder:
        write_json(folder / "scores.json", scores | {"folds": probe.folds})
        write_json(folder / "timings.json", {"seconds": seconds})
        judged = Predictions(manifest.rows.iloc[train], probe.probabilities, manifest.classes, manifest=manifest.digest)
        write_predictions(folder / "out_of_fold.parquet", judged)
        write_table(folder / "map.parquet", points)
    print(f"transferability {name}: LogME {evidence:.3f}, linear probe {scores['linear_probe']:.1%}")


def _mapped(manifest: Manifest, params: Params) -> np.ndarray:
    """Row numbers of the images in the map, ascending."""
    seen = np.flatnonzero((manifest.rows["split"] != "test").to_numpy())
    return seen[draw_stratified(manifest.labels[seen], params.transferability.max_points, params.seed)]


def _accuracy(probe: Probe, labels: np.ndarray, groups: np.ndarray, confidence: float) -> dict[str, float]:
    """The probe's accuracy; images of one group count as a single observation for the width of its interval."""
    accuracy = float((probe.probabilities.argmax(axis=1) == labels).mean())
    observations = len(np.unique(groups))
    low, high = wilson_interval(accuracy * observations, observations, confidence)
    return {"linear_probe": accuracy, "linear_probe_low": low, "linear_probe_high": high, "n": len(labels)}


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    features: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the transferability stage of one backbone."""
    run(
        load_params(params),
        name,
        prepared=prepared,
        augmented=augmented,
        features=features,
        source=source,
        out=out,
    )


if __name__ == "__main__":
    start(main)
