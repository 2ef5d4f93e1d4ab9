"""A support vector machine on a frozen base's features."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from graft.artifacts import Manifest, read_manifest
from graft.extraction import svm_vectors
from graft.feature_sets import FeatureSet, read_features, read_view_pixels, with_vectors
from graft.machines import describe_machine
from graft.params import Params, load_params, row
from graft.runs import RunIdentity, RunPaths, Training, held_out_rows, train_and_write
from graft.sections import Backbone
from graft.stages import PARAMS_FILE, ParamsFile, recorded_params, run_key_of, stage_name, start
from graft.storage import read_json, write_json
from graft.svm import Machine, count_parameters, fit_svm, save_svm
from graft.svm_layers import layers_json, point_of

if TYPE_CHECKING:
    from graft.checkpoints import Checkpoints
    from graft.trials import Publish

PACKAGES = ("scikit-learn", "scipy", "numpy")  # that decide the last bits of a search


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
    vectors: Path | None = None,
) -> None:
    """Fit one backbone's SVM and write the machine, its predictions and its journal."""
    from graft.resource_checks import check_svm

    backbone = row(params.backbones, name, "backbones")
    manifest = read_manifest(prepared)
    feature_set = read_features(features, manifest, read_view_pixels(prepared, augmented, manifest))
    feature_set = with_vectors(feature_set, vectors, manifest, layers_json(backbone.features))
    card = read_json(source / "card.json")
    base = _base(params, name, feature_set, card["weights_sha256"])
    started = time.perf_counter()
    rows = _rows(manifest, feature_set, source, backbone, params.seed)
    check_svm(params, name, *rows.train[0].shape)
    reading = time.perf_counter() - started

    def fit(seed: int, publish: Publish, checkpoints: Checkpoints) -> tuple[Training, Callable[[Path], None]]:
        search = checkpoints.phase("search")
        machine = fit_svm(*rows.train, backbone.svm, seed, params.train.class_weights, search)
        training = Training(
            machine.model.predict_proba(rows.held_out),
            card["parameters"] + count_parameters(machine.model),
            {"search": reading + search.seconds},
            tables={"search.csv": machine.search},
        )
        print(f"svm {name}: " + ", ".join(f"{parameter} {value}" for parameter, value in machine.choice.items()))
        return training, lambda folder: _save(folder, machine, base)

    here = describe_machine(PACKAGES)
    train_and_write(fit, paths, _identity(params, name, key), manifest=manifest, params=params, machine=here)


def _identity(params: Params, name: str, key: str) -> RunIdentity:
    return RunIdentity(
        key=key,
        model=f"{name}-svm",
        kind="svm",
        backbone=name,
        stage=stage_name("svm", name),
        params=recorded_params(params, name, "svm"),
    )


@dataclass(frozen=True)
class _Rows:
    """What a machine stands on: all views of the training images with labels and groups, and the held-out images."""

    train: tuple[np.ndarray, np.ndarray, np.ndarray]
    held_out: np.ndarray


def _rows(manifest: Manifest, features: FeatureSet, source: Path, backbone: Backbone, seed: int) -> _Rows:
    """Images of one group stay together in the machine's folds, as do the views of one image."""
    train = np.flatnonzero((features.index["split"] == "train").to_numpy())
    group_of = manifest.rows.set_index("image_id")["group"]
    groups = group_of.loc[features.index["image_id"].iloc[train]].to_numpy()
    held_out = held_out_rows(manifest)  # a feature folder begins with the images in manifest order
    vectors = [svm_vectors(features, rows, source, backbone, seed) for rows in (train, held_out)]
    return _Rows((vectors[0], features.labels[train], groups), vectors[1])


def _base(params: Params, name: str, features: FeatureSet, weights_sha256: str) -> dict[str, Any]:
    """What makes the machine's features of images, rounded as those were that it was fitted on."""
    backbone = params.backbones[name]
    point = point_of(backbone.features)
    storage = np.dtype(features.stored[point].dtype).name if point in features.stored else "float32"
    return {
        "backbone": name,
        "application": backbone.base.application,
        "input_size": backbone.base.input_size,
        "image_size": params.data.image_size,
        "svm_layers": layers_json(backbone.features),
        "batch_size": backbone.features.batch_size,
        "storage": storage,
        "weights_sha256": weights_sha256,
    }


def _save(folder: Path, machine: Machine, base: dict[str, Any]) -> None:
    save_svm(folder / "svm.skops", machine.model)
    write_json(folder / "base.json", base)


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    features: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    model: Annotated[Path, typer.Option()],
    run_folder: Annotated[Path, typer.Option("--run")],
    metrics: Annotated[Path, typer.Option()],
    vectors: Annotated[Path | None, typer.Option()] = None,
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
        vectors=vectors,
    )


if __name__ == "__main__":
    start(main)
