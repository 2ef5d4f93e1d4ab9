"""A look inside a network trained from scratch, and its costs."""

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
    """Look inside one baseline and time it."""
    row(params.baselines, name, "baselines")
    runtime.configure(params.seed)
    with new_folder(out) as folder:
        write_inside(folder / name, models / name, None, read_sample(prepared), params.inspect)


def main(
    name: str,
    prepared: Annotated[Path, typer.Option()],
    models: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the inspect_baseline stage of one row."""
    run(load_params(params), name, prepared=prepared, models=models, out=out)


if __name__ == "__main__":
    start(main)
