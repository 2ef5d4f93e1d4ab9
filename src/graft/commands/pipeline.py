"""Commands about the pipeline and its params."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from graft.params import load_params
from graft.stages import PARAMS_FILE, ParamsFile, feature_store


def check(params: ParamsFile = PARAMS_FILE) -> None:
    """Refuse params.yaml where it would fail later; mend what a killed `dvc` left torn, without which none starts."""
    from graft.dvc_repair import repair
    from graft.preflight import check_before_training

    if Path(".dvc").is_dir():
        for done in repair(Path.cwd()):
            typer.echo(f"check: {done}")
    loaded = load_params(params)
    check_before_training(loaded)
    typer.echo(f"check: {params} describes {len(loaded.models())} models and can be run")


def plan(params: ParamsFile = PARAMS_FILE) -> None:
    """Say what a run will compute, reuse and keep for each backbone, and how long that takes, before it starts."""
    from graft.explain import explain
    from graft.reuse import Places

    data = Path("data")
    places = Places(data / "prepared", data / "augmented", Path("models/source"), Path("dvc.lock"), feature_store())
    for text in explain(load_params(params), places):
        typer.echo(text)


def check_lock() -> None:
    """Fail where dvc.lock is not what a `dvc repro` of this checkout would leave, without data or training."""
    from graft.lockfile import stale_stages

    stale = stale_stages(Path.cwd())
    if stale:
        typer.echo(f"check-lock: dvc.lock is stale; dvc repro would run {', '.join(stale)}", err=True)
        raise typer.Exit(1)
    typer.echo("check-lock: dvc.lock is current")


def init(
    data: Annotated[Path, typer.Argument(help="Folder with one folder of images per class, a table or an archive.")],
    weights: Annotated[str, typer.Option(help="Of every base: imagenet, source or random.")] = "imagenet",
    force: Annotated[bool, typer.Option(help="Replace a params.yaml with uncommitted changes.")] = False,
) -> None:
    """Look at a person's images and write a params.yaml for them."""
    from graft.starting import write_params

    typer.echo(write_params(data, PARAMS_FILE, weights=weights, force=force))


def cv(params: ParamsFile = PARAMS_FILE) -> None:
    """Run the pipeline once for each fold of `data.split: kfold`, and say what the folds say together."""
    from graft.crossvalidation import cross_validate, to_markdown

    loaded = load_params(params)
    table = cross_validate(loaded, Path.cwd(), Path("reports"))
    typer.echo(to_markdown(table, loaded.compare.confidence))
    typer.echo(
        "cv: written to reports/cv.csv and reports/cv.md; `dvc exp show` lists the folds, MLflow holds their runs"
    )


def curve() -> None:
    """Measure accuracy against labelled images for every row of params.yaml, and run the pipeline."""
    from graft.curve_rows import name_every_row

    added = [name for names in name_every_row(PARAMS_FILE).values() for name in names]
    named = f"named {', '.join(added)} in" if added else "every row is named in"
    typer.echo(f"curve: {named} the section curve of {PARAMS_FILE}; running dvc repro")
    raise typer.Exit(subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode)


def report(base: Annotated[str, typer.Option(help="A revision of Git.")] = "main") -> None:
    """Say as Markdown, for a pull request, what changed in metrics and params against another revision."""
    from graft.reporting.changes import describe_changes

    typer.echo(describe_changes(base, Path.cwd(), "reports/leaderboard.json"), nl=False)
