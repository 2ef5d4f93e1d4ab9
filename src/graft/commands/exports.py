"""Commands that give a trained model away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    out_format: Annotated[str, typer.Argument(metavar="FORMAT", help="savedmodel, onnx or tflite.")],
    model: Annotated[str | None, typer.Option(help="Of models/; the champion of the leaderboard if not given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the file.")] = Path("exports"),
) -> None:
    """Write a model for other runtimes, preprocessing and calibration included, and check it on the test images."""
    from graft import exporting

    typer.echo(exporting.export(out_format, model, out))
