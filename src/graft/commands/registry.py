"""Commands about the registered model."""

from __future__ import annotations

from typing import Annotated

import typer


def promote(
    version: Annotated[int, typer.Argument(min=1, help="Of the registered model.")],
) -> None:
    """Make a version the champion by hand, whatever the gate said of it."""
    from graft import registry
    from graft.params import load_params
    from graft.stages import PARAMS_FILE

    typer.echo(registry.promote(version, load_params(PARAMS_FILE).tracking))
