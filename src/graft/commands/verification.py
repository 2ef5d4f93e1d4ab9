"""Commands that check what the pipeline has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    into: Annotated[
        Path | None, typer.Option(help="Folder for the second workspace; without it a temporary one.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Such as svm@vgg16, with all that it needs; may be repeated.")
    ] = None,
) -> None:
    """Run the pipeline once more in a second workspace and say where its results differ from those that are here."""
    from graft import verification

    verified = verification.verify(Path.cwd(), into, stage or ())
    typer.echo(f"verify: {verified.described()}")
    if verified.differences:
        raise typer.Exit(1)
