"""Every trained model told to MLflow; always the last stage, and a short one where there is nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graft.params import Params, load_params
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.trained import read_project, read_trained_models

if TYPE_CHECKING:
    from graft.tracking import Published


def run(
    params: Params,
    *,
    runs: Path,
    models: Path,
    leaderboard: Path,
    figures: Path,
    report: Path,
    prepared: Path,
    data_report: Path,
    lock: Path,
) -> None:
    """Publish the runs and the champion; where the server is down, say so and leave it to the next call."""
    from graft.tracking import UnreachableError, publish

    trained = read_trained_models(
        params, runs=runs, models=models, leaderboard=leaderboard, figures=figures, report=report, lock=lock
    )
    try:
        done = publish(trained, params, read_project(params, prepared, data_report))
    except UnreachableError as error:
        print(f"track: {error}; nothing is lost, run `graft track` when it is back")
        return
    champion = next((model.name for model in trained if model.champion), "none")
    print(
        f"track: {len(trained)} runs ({done.new} new) in experiment {params.tracking.experiment} at {done.uri}, "
        f"champion {champion} {_standing(done)}"
    )


def _standing(done: Published) -> str:
    if done.version is None:
        return "not registered from an experiment"
    if done.alias == "champion":
        return f"is version {done.version} (champion)"
    return f"is version {done.version}, a challenger: {done.reason}"


def main(
    runs: Annotated[Path, typer.Option()],
    models: Annotated[Path, typer.Option()],
    leaderboard: Annotated[Path, typer.Option()],
    figures: Annotated[Path, typer.Option()],
    report: Annotated[Path, typer.Option()],
    prepared: Annotated[Path, typer.Option()],
    data_report: Annotated[Path, typer.Option()],
    lock: Annotated[Path, typer.Option()],
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the track stage."""
    run(
        load_params(params),
        runs=runs,
        models=models,
        leaderboard=leaderboard,
        figures=figures,
        report=report,
        prepared=prepared,
        data_report=data_report,
        lock=lock,
    )


if __name__ == "__main__":
    start(main)
