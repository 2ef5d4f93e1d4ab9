"""A backbone's head, then its upper layers, trained on the prepared images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.artifacts import read_images, read_manifest
from graft.feature_sets import read_features, read_view_pixels
from graft.finetuning import fine_tune
from graft.network_runs import write_network_run
from graft.params import Params, load_params, row
from graft.runs import RunIdentity, RunPaths
from graft.stages import PARAMS_FILE, ParamsFile, recorded_params, run_key_of, stage_name, start
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
    backbone = row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    pixels = read_view_pixels(prepared, augmented, manifest)
    identity = _identity(params, name, key)
    journal = identity.start_journal()
    trained = fine_tune(
        load_base(source),
        backbone,
        manifest,
        read_features(features, manifest, pixels),
        image_size=params.data.image_size,
        class_weights=params.train.class_weights,
        seed=params.seed,
        publish=journal.epoch,
    )
    write_network_run(
        paths,
        identity,
        journal,
        trained,
        manifest=manifest,
        images=read_images(prepared, len(manifest.rows)),
        batch_size=backbone.features.batch_size,
        resize=params.data.resize,
    )


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
