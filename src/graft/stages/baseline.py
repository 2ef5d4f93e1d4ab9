"""A network trained from scratch, for the other models to be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.artifacts import read_images, read_manifest, read_views, view_rows
from graft.baselines import settled_baseline, train_baseline
from graft.checkpoints import Checkpoints
from graft.network_runs import network_fit
from graft.params import Params, load_params, row
from graft.runs import RunIdentity, RunPaths, train_and_write
from graft.stages import PARAMS_FILE, UNTRACKED, ParamsFile, run_key_of, stage_name, start
from graft.training import Publish, Rows, Trained, class_weights


def run(params: Params, name: str, *, prepared: Path, augmented: Path, paths: RunPaths, key: str) -> None:
    """Train one baseline and write the model, its predictions and its journal."""
    row(params.baselines, name, "baselines")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    views = read_views(augmented, manifest)
    params = settled_baseline(params, name, len(manifest.positions("train")), len(manifest.classes))
    baseline = params.baselines[name]
    images = read_images(prepared, manifest.rows)
    labels, validation = manifest.labels, manifest.positions("validation")
    train_labels = labels[manifest.positions("train")]
    weights = class_weights(train_labels, params.train.class_weights)
    pixels = Rows(read_images(augmented, views), view_rows(views), train_labels, weights)

    def train(seed: int, publish: Publish, checkpoints: Checkpoints) -> Trained:
        return train_baseline(
            baseline,
            pixels,
            Rows(images, [validation], labels[validation]),
            classes=len(manifest.classes),
            seed=seed,
            publish=publish,
            checkpoints=checkpoints,
        )

    fit = network_fit(train, manifest=manifest, images=images, batch_size=baseline.train.rows_per_step)
    identity = _identity(params, name, key)
    train_and_write(fit, paths, identity, manifest=manifest, params=params, machine=runtime.machine())


def _identity(params: Params, name: str, key: str) -> RunIdentity:
    recorded = params.model_dump(mode="json", include={"seed", "data", "augment", "train"}, exclude=UNTRACKED)
    own = params.baselines[name].model_dump(mode="json")
    own["train"] = recorded["train"] | own["train"]  # of every model, and of this one
    return RunIdentity(
        key=key,
        model=name,
        kind="baseline",
        backbone=None,
        stage=stage_name("baseline", name),
        params=recorded | own,
    )


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    model: Annotated[Path, typer.Option()],
    run_folder: Annotated[Path, typer.Option("--run")],
    metrics: Annotated[Path, typer.Option()],
    history: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the baseline stage of one row."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    paths = RunPaths(model, run_folder, metrics, history)
    run(loaded, name, prepared=prepared, augmented=augmented, paths=paths, key=run_key_of("baseline", name))


if __name__ == "__main__":
    start(main)
