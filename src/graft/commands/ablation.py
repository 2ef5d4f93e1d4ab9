"""The command that sets Flatten against global pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from graft.params import load_params
from graft.sections import Pooling
from graft.stages import PARAMS_FILE, ParamsFile

HIDDEN_UNITS = (0, 128)  # the lectures' heads: the classes alone, and a hidden layer before them


def ablation(
    backbone: Annotated[
        list[str] | None, typer.Option(help="A row of params.yaml; may be repeated. Without it: all of them.")
    ] = None,
    pooling: Annotated[
        list[str] | None,
        typer.Option(help="flatten, avg, max or min; may be repeated. Without it: all of them."),
    ] = None,
    hidden: Annotated[
        list[int] | None,
        typer.Option(help="Units of the head's hidden layer, 0: none; may be repeated. Without it: 0 and 128."),
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            min=8, max=1024, help="Pixels. Without it each row's own, or the smallest that leaves 3x3 maps at the top."
        ),
    ] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Train each base with Flatten, average, max and min pooling, everything else equal, and compare them.

    In a second workspace below .work; params.yaml, outputs and MLflow's runs stay as they are. A row with
    `weights: source` is trained on its source task anew where its input size changes. Goes on after an interruption.
    """
    from graft.ablation import ablate
    from graft.ablation_text import to_markdown

    loaded = load_params(params)
    table = ablate(
        params,
        Path.cwd(),
        Path("reports"),
        backbones=backbone or list(loaded.backbones),
        poolings=pooling or get_args(Pooling),
        hidden_units=hidden or HIDDEN_UNITS,
        input_size=input_size,
    )
    typer.echo(to_markdown(table, loaded.compare.confidence))
    typer.echo("ablation: written to reports/ablation.csv and reports/ablation.md")
