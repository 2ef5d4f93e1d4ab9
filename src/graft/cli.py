"""The `graft` command: what stands behind the make targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from graft.errors import GraftError
from graft.params import load_params
from graft.stages import PARAMS_FILE, ParamsFile, feature_store

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def graft() -> None:
    """A folder of labelled images in, a transfer-learned classifier one can trust out."""


@app.command()
def check(params: ParamsFile = PARAMS_FILE) -> None:
    """Refuse params.yaml where it would fail later: types, ranges, bases, cuts, layers, weights, class folders."""
    from graft.preflight import check_before_training

    loaded = load_params(params)
    check_before_training(loaded)
    typer.echo(f"check: {params} describes {len(loaded.models())} models and can be run")


@app.command()
def plan(params: ParamsFile = PARAMS_FILE) -> None:
    """Say what a run will compute, reuse and keep for each backbone, and how long that takes, before it starts."""
    from graft.explain import explain
    from graft.reuse import Places

    data = Path("data")
    places = Places(data / "prepared", data / "augmented", Path("models/source"), Path("dvc.lock"), feature_store())
    for text in explain(load_params(params), places):
        typer.echo(text)


@app.command("check-lock")
def check_lock() -> None:
    """Fail where dvc.lock is not what a `dvc repro` of this checkout would leave, without data or training."""
    from graft.lockfile import stale_stages

    stale = stale_stages(Path.cwd())
    if stale:
        typer.echo(f"check-lock: dvc.lock is stale; dvc repro would run {', '.join(stale)}", err=True)
        raise typer.Exit(1)
    typer.echo("check-lock: dvc.lock is current")


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Folder with one folder of images per class, a table or an archive.")],
    weights: Annotated[str, typer.Option(help="Of every base: imagenet, source or random.")] = "imagenet",
    force: Annotated[bool, typer.Option(help="Replace a params.yaml with uncommitted changes.")] = False,
) -> None:
    """Look at a person's images and write a params.yaml for them."""
    from graft.starting import write_params

    typer.echo(write_params(data, PARAMS_FILE, weights=weights, force=force))


@app.command()
def cv(params: ParamsFile = PARAMS_FILE) -> None:
    """Run the pipeline once for each fold of `data.split: kfold`, and say what the folds say together."""
    from graft.crossvalidation import cross_validate, to_markdown

    loaded = load_params(params)
    table = cross_validate(loaded, Path.cwd(), Path("reports"))
    typer.echo(to_markdown(table, loaded.compare.confidence))
    typer.echo(
        "cv: written to reports/cv.csv and reports/cv.md; `dvc exp show` lists the folds, MLflow holds their runs"
    )


@app.command()
def curve() -> None:
    """Measure accuracy against labelled images for every row of params.yaml, and run the pipeline."""
    from graft.curve_rows import name_every_row

    added = [name for names in name_every_row(PARAMS_FILE).values() for name in names]
    named = f"named {', '.join(added)} in" if added else "every row is named in"
    typer.echo(f"curve: {named} the section curve of {PARAMS_FILE}; running dvc repro")
    raise typer.Exit(subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode)


@app.command()
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


@app.command()
def report(base: Annotated[str, typer.Option(help="A revision of Git.")] = "main") -> None:
    """Say as Markdown, for a pull request, what changed in metrics and params against another revision."""
    from graft.reporting.changes import describe_changes

    typer.echo(describe_changes(base, Path.cwd(), "reports/leaderboard.json"), nl=False)


@app.command()
def track() -> None:
    """Tell MLflow what it does not know yet, for instance after its server was down."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "track"]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def ui(port: Annotated[int, typer.Option(help="On the loopback interface.")] = 5000) -> None:
    """Open MLflow's UI on the pipeline's runs."""
    from graft.journal import project_root
    from graft.tracking import default_tracking_uri

    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(project_root())
    typer.echo(f"MLflow shows {uri} at http://127.0.0.1:{port} (Ctrl-C ends it)")
    arguments = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])


def main() -> None:
    """Run the command; errors of the library are one message, not a stack trace."""
    try:
        app()
    except GraftError as error:
        raise SystemExit(f"graft: {error}") from None


if __name__ == "__main__":
    main()
