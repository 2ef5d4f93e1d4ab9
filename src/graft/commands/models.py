"""Commands about a trained model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def predict(
    files: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str | None, typer.Option(help="Of models/; the champion of the leaderboard if not given.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability, in place of the one that validation chose.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every class's probability, as JSON.")] = False,
) -> None:
    """Say what is on images, or that it is not sure enough; 1 is returned where a file is no picture."""
    from graft import predicting

    name = model or predicting.champion(Path("reports/leaderboard.json"))
    classifier = predicting.load_model(name, Path("models"))
    if abstain_below is not None:
        classifier = replace(classifier, abstain_below=abstain_below)
    answers = list(predicting.predict(classifier, files))
    if as_json:
        typer.echo(json.dumps([answer.as_record() for answer in answers], indent=2, ensure_ascii=False))
    else:
        typer.echo(predicting.to_table(answers))
        typer.echo(predicting.rule(name, classifier), err=True)
    if any(answer.reason for answer in answers):
        raise typer.Exit(1)


def serve(
    model: Annotated[
        str | None, typer.Option(help="URI of a logged model; the registered champion if not given.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="In place of serve.port.")] = None,
) -> None:
    """Start MLflow's scoring server with the registered champion, on this machine alone."""
    from graft import scoring
    from graft.params import load_params
    from graft.stages import PARAMS_FILE

    scoring.run(load_params(PARAMS_FILE), model, port)
