"""Commands about a trained model."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from graft.params import load_params
from graft.stages import PARAMS_FILE


def predict(
    files: Annotated[list[str], typer.Argument(help="Image files, folders and quoted patterns, with ** for folders.")],
    model: Annotated[str | None, typer.Option(help="Of models/; the champion of the leaderboard if not given.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability, in place of the one that validation chose.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="table, csv or json; table if --out does not say it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv, .json or .txt file in place of the terminal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Say what is on images, or that it is not sure enough; 1 is returned where a file is no picture."""
    from graft import answer_files, image_paths, predicting

    chosen = answer_files.choose_format("json" if as_json else form, out)
    paths = image_paths.find_files(files, without=out)
    name = model or predicting.champion(Path("reports/leaderboard.json"))
    limits = load_params(PARAMS_FILE).serve
    classifier = predicting.load_model(name, Path("models"))
    if abstain_below is not None:
        classifier = replace(classifier, abstain_below=abstain_below)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no part of a file stays behind
    answers = predicting.predict(classifier, paths, limits)
    written = answer_files.write_answers(answers, len(paths), classifier.classes, chosen, out)
    typer.echo(predicting.rule(name, classifier), err=True)
    typer.echo(written.summary(), err=True)
    if written.unread:
        raise typer.Exit(1)


def serve(
    model: Annotated[
        str | None, typer.Option(help="URI of a logged model; the registered champion if not given.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="In place of serve.port; 0: any free one.")] = None,
) -> None:
    """Start MLflow's scoring server with the registered champion, on this machine alone."""
    from graft import scoring

    scoring.run(load_params(PARAMS_FILE), model, port)
