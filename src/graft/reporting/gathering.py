"""Everything that the comparison tells, gathered from what the stages left and measured on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft import learning_curve, reliability
from graft.artifacts import Manifest, Predictions, read_images, read_manifest, read_predictions
from graft.attributes import read_attributes
from graft.evaluation import evaluate_classes
from graft.params import Params
from graft.provenance import read_provenance
from graft.rank_correlation import rank_correlations
from graft.reporting import galleries
from graft.reporting.comparison import Comparison, Run
from graft.reporting.filters import first_picture
from graft.reporting.leaderboard import Groups, build_leaderboard, final_split
from graft.reporting.run_files import read_number, read_optional_number, read_runs
from graft.slices import evaluate_slices, slice_table
from graft.storage import read_table
from graft.suspects import find_suspects

TRANSFER = ("logme", "linear_probe", "linear_probe_low", "linear_probe_high")
MAP_COLUMNS = ("image_id", "split", "label", "pca_x", "pca_y", "tsne_x", "tsne_y")


@dataclass(frozen=True)
class Inputs:
    """Where the comparison reads.

    Attributes:
        prepared: data/prepared.
        data_report: what prepare reports of the images.
        runs: a folder for each model.
        history: a CSV file for each model that is trained by epochs.
        rows: a folder for each row of the params: inspect, of a backbone also features and transferability, and curve
            where the params ask for it.
    """

    prepared: Path
    data_report: Path
    runs: Path
    history: Path
    rows: Path


def gather(params: Params, inputs: Inputs) -> Comparison:
    """Measure the models on validation and, here alone, on test, and all that goes with it.

    Raises:
        ArtifactError: something is missing or damaged, or does not belong to the same images.
    """
    manifest = read_manifest(inputs.prepared)
    runs = {run.model: run for run in read_runs(params, inputs.runs, inputs.history, inputs.rows, manifest)}
    groups: Groups = {split: _groups(manifest, split) for split in ("validation", "test")}
    transfer = _read_transfer(inputs.rows, list(params.backbones))
    seconds = {name: _feature_seconds(inputs.rows / name) for name in params.backbones}
    frame = build_leaderboard(
        list(runs.values()), params.compare, params.seed, groups=groups, transfer=transfer, feature_seconds=seconds
    )
    runs = {model: runs[model] for model in frame["model"]}
    split, prefix = final_split(frame)
    champion, images = next(iter(runs.values())), read_images(inputs.prepared, manifest.rows)
    suspects = find_suspects(manifest.rows, _judgements(inputs.rows, transfer, champion, manifest))
    mistakes, doubts = galleries.mistakes_and_doubts(champion.predictions, split, manifest, images)
    final = frame[["backbone", "kind"]].assign(accuracy=frame[f"{prefix}_accuracy"])
    return Comparison(
        frame=frame,
        runs=runs,
        classes=_measure_classes(runs, split, groups, params),
        slices=_measure_slices(champion, split, manifest, inputs.data_report, groups, params),
        suspects=suspects,
        reliability={name: _reliability(run, split, params.compare.calibration_bins) for name, run in runs.items()},
        coverage={name: _coverage(run, split, groups, params.compare.confidence) for name, run in runs.items()},
        curve=_read_curve(inputs.rows, params, split),
        transfer=transfer,
        correlations=rank_correlations(transfer, final) if len(transfer) else [],
        maps={name: _read_map(inputs.rows / name) for name in params.backbones},
        mistakes=mistakes,
        doubts=doubts,
        suspect_tiles=galleries.suspect_tiles(suspects, manifest, images),
        provenance=read_provenance(params, Path.cwd(), Path("dvc.lock")),
        picture=first_picture(manifest, images, "validation"),
    )


def _groups(manifest: Manifest, split: str) -> np.ndarray | None:
    """The groups of a split's images; None where each image is on its own."""
    names = manifest.rows["group"].to_numpy(object)[manifest.positions(split)]
    return names if len(set(names)) < len(names) else None


def _read_transfer(folder: Path, backbones: Sequence[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name in backbones:
        scores = {key: read_number(folder / name / "transferability/scores.json", key) for key in TRANSFER}
        seconds = read_number(folder / name / "transferability/timings.json", "seconds")
        rows.append({"backbone": name} | scores | {"seconds": seconds})
    return pd.DataFrame(rows, columns=["backbone", *TRANSFER, "seconds"])


def _read_map(folder: Path) -> pd.DataFrame:
    return read_table(folder / "transferability" / "map.parquet", MAP_COLUMNS)


def _feature_seconds(folder: Path) -> float | None:
    return read_optional_number(folder / "features/timings.json", "feature_seconds")


def _judgements(
    folder: Path, transfer: pd.DataFrame, champion: Run, manifest: Manifest
) -> list[tuple[str, Predictions]]:
    """Probabilities by models that had not seen the image: of the training images by the best linear probe."""
    judges = [(champion.model, champion.predictions)]
    if len(transfer):
        best = str(transfer.loc[int(transfer["linear_probe"].to_numpy().argmax()), "backbone"])
        unseen = read_predictions(folder / best / "transferability" / "out_of_fold.parquet", manifest=manifest)
        judges.append((f"linear probe on {best}", unseen))
    return judges


def _measure_classes(runs: Mapping[str, Run], split: str, groups: Groups, params: Params) -> pd.DataFrame:
    parts = []
    for name, run in runs.items():
        labels, probabilities = run.predictions.split(split)
        measured = evaluate_classes(labels, probabilities, groups[split], params.compare, params.seed)
        measured.insert(0, "label", list(run.predictions.classes))
        parts.append(measured.assign(model=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *(column for column in table.columns if column != "model")]]


def _measure_slices(
    champion: Run, split: str, manifest: Manifest, data_report: Path, groups: Groups, params: Params
) -> pd.DataFrame:
    rows = manifest.positions(split)
    attributes = read_attributes(data_report, manifest)
    memberships = slice_table(manifest.rows.iloc[rows], attributes.iloc[rows])
    labels, probabilities = champion.predictions.split(split)
    classes = champion.predictions.classes
    return evaluate_slices(labels, probabilities, classes, memberships, groups[split], params.compare, params.seed)


def _reliability(run: Run, split: str, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    labels, probabilities = run.predictions.split(split)
    before = run.predictions.uncalibrated()[(run.predictions.rows["split"] == split).to_numpy()]
    return reliability.bins(labels, before, count), reliability.bins(labels, probabilities, count)


def _coverage(run: Run, split: str, groups: Groups, confidence: float) -> pd.DataFrame:
    return reliability.coverage_curve(*run.predictions.split(split), confidence, groups[split])


def _read_curve(folder: Path, params: Params, split: str) -> pd.DataFrame | None:
    names = [*params.curve.baselines, *params.curve.backbones]
    if not names:
        return None
    return learning_curve.read_summary(folder, names, split, params.compare.confidence)
