"""Every model that the params list, measured on the same images: leaderboard, figures, page and model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from graft.params import Params, load_params
from graft.reporting import dvc_plots, figures, leaderboard, model_card, text
from graft.reporting.comparison import Comparison
from graft.reporting.gathering import Inputs, gather
from graft.reporting.page import read_data_report, render_page
from graft.stages import PARAMS_FILE, ParamsFile, start
from graft.storage import new_file, new_folder, write_json, write_table
from graft.suspects import to_relabel


@dataclass(frozen=True)
class Outputs:
    """Where the comparison writes.

    Attributes:
        leaderboard: files of this name with .json, .csv and .md.
        test_metrics: a folder with a file for each model.
        tables: a folder of CSV files: classes, slices, suspects, curve.
        figures: a folder with a folder for each model.
        plots: a folder of pictures for `dvc plots`.
        model_card: files of this name with .json and .md.
        page: a file.
    """

    leaderboard: Path
    test_metrics: Path
    tables: Path
    figures: Path
    plots: Path
    model_card: Path
    page: Path


def run(params: Params, inputs: Inputs, *, augmentation_preview: Path | None, out: Outputs) -> Comparison:
    """Measure the models on validation and, here alone, on test; write the comparison and return it.

    Raises:
        ArtifactError: a model's run is missing or damaged, or the models were not measured on the same images.
    """
    data = read_data_report(inputs.data_report, augmentation_preview)
    comparison = gather(params, inputs)
    drawings = figures.draw(comparison)
    pictures = dvc_plots.draw_dvc_plots(comparison)
    page = render_page(params, comparison, drawings, data)
    card = model_card.build_card(params, comparison, data)
    _write_tables(comparison, out, params.compare.confidence)
    write_json(out.model_card.with_suffix(".json"), card)
    _write_text(out.model_card.with_suffix(".md"), model_card.card_markdown(card))
    _write_text(out.page, page)
    with new_folder(out.figures) as folder:
        for name, svg in drawings.items():
            _write_text(folder / name, svg)
    with new_folder(out.plots) as folder:
        for name, picture in pictures.items():
            (folder / name).write_bytes(picture)
    print(text.to_text(comparison.frame))
    print(f"compare: {text.summary(comparison.frame)}; {out.page}")
    return comparison


def _write_tables(comparison: Comparison, out: Outputs, confidence: float) -> None:
    frame = comparison.frame
    write_json(out.leaderboard.with_suffix(".json"), leaderboard.as_records(frame))
    write_table(out.leaderboard.with_suffix(".csv"), frame)
    _write_text(out.leaderboard.with_suffix(".md"), text.to_markdown(frame, confidence))
    with new_folder(out.test_metrics) as folder:
        for name, metrics in leaderboard.metrics_by_model(frame).items():
            write_json(folder / f"{name}.json", metrics)
    with new_folder(out.tables) as folder:
        write_table(folder / "classes.csv", comparison.classes)
        write_table(folder / "slices.csv", comparison.slices)
        write_table(folder / "suspects.csv", to_relabel(comparison.suspects))
        if comparison.curve is not None:
            write_table(folder / "curve.csv", comparison.curve.drop(columns="by_seed"))


def _write_text(path: Path, content: str) -> None:
    with new_file(path) as partial:
        partial.write_text(content, encoding="utf-8", newline="\n")


def main(
    prepared: Annotated[Path, typer.Option()],
    runs: Annotated[Path, typer.Option()],
    history: Annotated[Path, typer.Option()],
    rows: Annotated[Path, typer.Option()],
    data_report: Annotated[Path, typer.Option()],
    leaderboard_files: Annotated[Path, typer.Option("--leaderboard")],
    test_metrics: Annotated[Path, typer.Option()],
    tables: Annotated[Path, typer.Option()],
    figures_folder: Annotated[Path, typer.Option("--figures")],
    plots: Annotated[Path, typer.Option()],
    card: Annotated[Path, typer.Option("--model-card")],
    page: Annotated[Path, typer.Option()],
    augmentation_preview: Annotated[Path | None, typer.Option()] = None,
    params: ParamsFile = PARAMS_FILE,
) -> None:
    """Run as the compare stage."""
    run(
        load_params(params),
        Inputs(prepared, data_report, runs, history, rows),
        augmentation_preview=augmentation_preview,
        out=Outputs(leaderboard_files, test_metrics, tables, figures_folder, plots, card, page),
    )


if __name__ == "__main__":
    start(main)
