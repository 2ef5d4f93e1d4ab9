"""A frozen base's activations for every image and view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.artifacts import read_images, read_manifest, read_views
from graft.features import build_extractor, write_features
from graft.params import Params, load_params, row
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder
from graft.weights import load_base


def run(params: Params, name: str, *, prepared: Path, augmented: Path, source: Path, out: Path) -> None:
    """Apply the frozen base once to every image and view and write data/features/<name>."""
    backbone = row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    manifest = read_manifest(prepared)
    images = read_images(prepared, len(manifest.rows))
    views = read_views(augmented, manifest)
    extractor = build_extractor(
        load_base(source),
        application=backbone.base.application,
        input_size=backbone.base.input_size,
        image_size=images.row_shape[0],
        pooling=backbone.features.pooling,
        frozen_until=backbone.features.frozen_until,
    )
    with new_folder(out) as folder:
        rows = write_features(
            folder,
            extractor,
            manifest,
            images,
            views,
            read_images(augmented, len(views)),
            backbone.features.batch_size,
        )
    widths = ", ".join(str(tuple(output.shape[1:])) for output in extractor.outputs)
    print(f"features {name}: {rows:,} rows of {widths}")


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    augmented: Annotated[Path, typer.Option()],
    source: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the features stage of one backbone."""
    run(load_params(params), name, prepared=prepared, augmented=augmented, source=source, out=out)


if __name__ == "__main__":
    start(main)
