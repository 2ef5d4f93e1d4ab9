"""A look inside a backbone's two models, and their costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graft import runtime
from graft.inside import read_sample, write_inside
from graft.params import Params, load_params, row
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_folder


def run(params: Params, name: str, *, prepared: Path, models: Path, out: Path) -> None:
    """Look inside the fine-tuned network and time it and the SVM; a folder each."""
    row(params.backbones, name, "backbones")
    runtime.configure(params.seed)
    sample = read_sample(prepared)
    with new_folder(out) as folder:
        write_inside(folder / name, models / name, None, sample, params.inspect)
        write_inside(folder / f"{name}-svm", models / f"{name}-svm", models / "source" / name, sample, params.inspect)


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    models: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the inspect stage of one backbone."""
    run(load_params(params), name, prepared=prepared, models=models, out=out)


if __name__ == "__main__":
    start(main)
