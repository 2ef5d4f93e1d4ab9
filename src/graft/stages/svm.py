"""A support vector machine on a frozen base's features."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from graft.artifacts import Manifest, read_manifest
from graft.feature_sets import TOP, FeatureSet, read_features, read_view_pixels
from graft.params import Params, load_params, row
from graft.runs import RunIdentity, RunPaths, held_out_predictions, held_out_rows, write_classifier_facts, write_run
from graft.sections import Backbone, Svm
from graft.stages import PARAMS_FILE, ParamsFile, recorded_params, run_key_of, stage_name, start
from graft.storage import new_folder, read_json, write_json
from graft.svm import Machine, count_parameters, fit_svm, save_svm

TopRows = Callable[[np.ndarray], np.ndarray]  # row numbers to activations (n, features)


def run(
    params: Params,
    name: str,
    *,
    prepared: Path,
    augmented: Path,
    features: Path,
    source: Path,
    paths: RunPaths,
    key: str,
) -> None:
    """Fit one backbone's SVM and write the machine, its predictions and its journal."""
    backbone = row(params.backbones, name, "backbones")
    manifest = read_manifest(prepared)
    feature_set = read_features(features, manifest, read_view_pixels(prepared, augmented, manifest))
    identity = _identity(params, name, key)
    journal = identity.start_journal()
    started = time.perf_counter()
    top = partial(_top, feature_set, source, backbone, params.seed)
    machine = _fit(params, backbone.svm, manifest, feature_set, top)
    seconds = time.perf_counter() - started
    card = read_json(source / "card.json")
    base = {
        "backbone": name,
        "application": backbone.base.application,
        "input_size": backbone.base.input_size,
        "image_size": params.data.image_size,
        "pooling": backbone.features.pooling,
        "batch_size": backbone.features.batch_size,
        "weights_sha256": card["weights_sha256"],
    }
    _write_model(paths.model, machine, base, manifest, params)
    metrics = write_run(
        paths,
        identity,
        journal,
        parameters=card["parameters"] + count_parameters(machine.model),
        predictions=_predict(machine, manifest, top),
        seconds={"search": seconds},
        search=machine.search,
    )
    chosen = ", ".join(f"{parameter} {value}" for parameter, value in machine.choice.items())
    print(f"svm {name}: {chosen}, validation accuracy {metrics['val_accuracy']:.1%}")


def _identity(params: Params, name: str, key: str) -> RunIdentity:
    return RunIdentity(
        key=key,
        model=f"{name}-svm",
        kind="svm",
        backbone=name,
        stage=stage_name("svm", name),
        params=recorded_params(params, name, "svm"),
    )


def _top(features: FeatureSet, source: Path, backbone: Backbone, seed: int, rows: np.ndarray) -> np.ndarray:
    """Activations at the top; only where the plan of the features stage stored none does this need TensorFlow."""
    if TOP in features.stored:
        return features.stored[TOP][rows]
    from graft import runtime
    from graft.extraction import top_rows

    runtime.configure(seed)
    return top_rows(features, rows, source, backbone)


def _fit(params: Params, settings: Svm, manifest: Manifest, features: FeatureSet, top: TopRows) -> Machine:
    """The machine of all views of the training images, whose groups stay together in its folds."""
    train = np.flatnonzero((features.index["split"] == "train").to_numpy())
    group_of = manifest.rows.set_index("image_id")["group"]
    groups = group_of.loc[features.index["image_id"].iloc[train]].to_numpy()
    weights = params.train.class_weights
    return fit_svm(top(train), features.labels[train], groups, settings, params.seed, weights)


def _write_model(out: Path, machine: Machine, base: dict[str, Any], manifest: Manifest, params: Params) -> None:
    with new_folder(out) as folder:
        save_svm(folder / "svm.skops", machine.model)
        write_json(folder / "base.json", base)
        write_classifier_facts(folder, manifest.classes, params.data.image_size, params.data.resize)


def _predict(machine: Machine, manifest: Manifest, top: TopRows) -> Any:
    held_out = top(held_out_rows(manifest))  # a feature folder begins with the images in manifest order
    return held_out_predictions(manifest, machine.model.predict_proba(held_out))


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    features: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    model: Annotated[Path, typer.Option()],
    run_folder: Annotated[Path, typer.Option("--run")],
    metrics: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the svm stage of one backbone."""
    paths = RunPaths(model, run_folder, metrics, None)
    key = run_key_of("svm", name)
    run(
        load_params(params),
        name,
        prepared=prepared,
        augmented=augmented,
        features=features,
        source=source,
        paths=paths,
        key=key,
    )


if __name__ == "__main__":
    start(main)
