"""Every model that the params list, measured on the same images: the leaderboard, its figures and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from graft.params import Params, load_params
from graft.reporting import figures, leaderboard, text
from graft.reporting.page import read_data_report, render_page
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_file, new_folder, write_json, write_table


@dataclass(frozen=True)
class Outputs:
    """Where the comparison writes; figures is a folder, the others are files."""

    leaderboard_json: Path
    leaderboard_csv: Path
    leaderboard_markdown: Path
    test_metrics: Path
    confusion: Path
    figures: Path
    page: Path


def run(
    params: Params,
    *,
    runs: Path,
    history: Path,
    data_report: Path,
    augmentation_preview: Path | None,
    out: Outputs,
) -> pd.DataFrame:
    """Measure the models on validation and, here alone, on test; write the comparison and return the leaderboard.

    Raises:
        ArtifactError: a model's run is missing or damaged, or the models were not measured on the same images.
    """
    data = read_data_report(data_report, augmentation_preview)
    measured = leaderboard.read_runs(params, runs, history)
    frame = leaderboard.build_leaderboard(measured, params.compare, params.seed)
    drawings = figures.draw(frame, measured)
    write_json(out.leaderboard_json, leaderboard.as_records(frame))
    write_table(out.leaderboard_csv, frame)
    with new_folder(out.test_metrics) as folder:
        for name, metrics in leaderboard.metrics_by_model(frame).items():
            write_json(folder / f"{name}.json", metrics)
    write_table(out.confusion, leaderboard.champion_predictions(frame, measured))
    _write_text(out.leaderboard_markdown, text.to_markdown(frame, params.compare.confidence))
    _write_text(out.page, render_page(params, frame, drawings, data))
    with new_folder(out.figures) as folder:
        for name, svg in drawings.items():
            _write_text(folder / name, svg)
    print(text.to_text(frame))
    print(f"compare: {text.summary(frame)}; {out.page}")
    return frame


def _write_text(path: Path, content: str) -> None:
    with new_file(path) as partial:
        partial.write_text(content, encoding="utf-8", newline="\n")


def main(
    runs: Annotated[Path, typer.Option()],
    history: Annotated[Path, typer.Option()],
    data_report: Annotated[Path, typer.Option()],
    leaderboard_json: Annotated[Path, typer.Option()],
    leaderboard_csv: Annotated[Path, typer.Option()],
    leaderboard_markdown: Annotated[Path, typer.Option()],
    test_metrics: Annotated[Path, typer.Option()],
    confusion: Annotated[Path, typer.Option()],
    figures_folder: Annotated[Path, typer.Option("--figures")],
    page: Annotated[Path, typer.Option()],
    augmentation_preview: Annotated[Path | None, typer.Option()] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the compare stage."""
    out = Outputs(
        leaderboard_json, leaderboard_csv, leaderboard_markdown, test_metrics, confusion, figures_folder, page
    )
    run(
        load_params(params),
        runs=runs,
        history=history,
        data_report=data_report,
        augmentation_preview=augmentation_preview,
        out=out,
    )


if __name__ == "__main__":
    start(main)
