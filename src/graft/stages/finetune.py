"""A backbone's head, then its upper layers, trained on the prepared images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.artifacts import read_images, read_manifest
from graft.checkpoints import Checkpoints
from graft.feature_sets import read_features, read_view_pixels
from graft.finetuning import fine_tune
from graft.finetuning_memory import settled_finetuning
from graft.network_runs import network_fit
from graft.params import Params, load_params, row
from graft.runs import RunIdentity, RunPaths, train_and_write
from graft.stages import PARAMS_FILE, ParamsFile, recorded_params, run_key_of, stage_name, start
from graft.training import Publish, Trained
from graft.weights import load_base


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
    """Fine-tune one backbone and write the model, its predictions and its journal."""
    row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    feature_set = read_features(features, manifest, read_view_pixels(prepared, augmented, manifest))
    params = settled_finetuning(params, name, source, feature_set)
    backbone = params.backbones[name]

    def train(seed: int, publish: Publish, checkpoints: Checkpoints) -> Trained:
        return fine_tune(
            load_base(source),
            backbone,
            manifest,
            feature_set,
            image_size=params.data.image_size,
            class_weights=params.train.class_weights,
            seed=seed,
            publish=publish,
            checkpoints=checkpoints,
        )

    images = read_images(prepared, manifest.rows)
    fit = network_fit(train, manifest=manifest, images=images, batch_size=backbone.features.batch_size)
    identity = _identity(params, name, key)
    train_and_write(fit, paths, identity, manifest=manifest, params=params, machine=runtime.machine())


def _identity(params: Params, name: str, key: str) -> RunIdentity:
    return RunIdentity(
        key=key,
        model=name,
        kind="finetune",
        backbone=name,
        stage=stage_name("finetune", name),
        params=recorded_params(params, name, "finetune"),
    )


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    features: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    model: Annotated[Path, typer.Option()],
    run_folder: Annotated[Path, typer.Option("--run")],
    metrics: Annotated[Path, typer.Option()],
    history: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the finetune stage of one backbone."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    run(
        loaded,
        name,
        prepared=prepared,
        augmented=augmented,
        features=features,
        source=source,
        paths=RunPaths(model, run_folder, metrics, history),
        key=run_key_of("finetune", name),
    )


if __name__ == "__main__":
    start(main)
