"""Does a base pretrained on the source help where labels are few? From source, from random, and whole from random.

The split stays as params.yaml draws it; each seed draws its own labelled training images, renders its own source
images and trains everything anew. Every row is written as it is measured, and a table that is there is continued.

    python benchmarks/transfer.py --seeds 3 --out transfer.csv
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from scipy import stats

from graft.artifacts import Manifest, read_images, read_manifest, read_predictions, write_manifest
from graft.metrics import classification_metrics
from graft.params import Params, load_params
from graft.runs import RunPaths
from graft.shards import ShardWriter
from graft.stages import augment, baseline, features, finetune, prepare, pretrain, svm

# How a base starts and what is trained of it. In `random` BatchNormalization stays as it started, as the rows say,
# which handicaps bases that have it; trained whole it learns too, and patience covers the epochs its averages take.
STARTS: dict[str, dict[str, dict[str, Any]]] = {
    "source": {"base": {"weights": "source"}},
    "random": {"base": {"weights": "random"}},
    "random, whole": {
        "base": {"weights": "random"},
        "features": {"frozen_until": "none"},
        "finetune": {"train_batch_normalization": True, "unfrozen_learning_rate": 1e-3, "patience": 60},
    },
}


def with_start(params: Params, name: str, start: str, seed: int) -> Params:
    """The params with one backbone's row changed to a start."""
    values = params.model_dump(mode="json") | {"seed": seed}
    row = values["backbones"][name]
    for section, changes in STARTS[start].items():
        row[section] |= changes
    values["backbones"] = {name: row}
    return Params.model_validate(values)


def draw_labels(everything: Path, out: Path, per_class: int, seed: int) -> None:
    """A prepared folder with so many training images per class, drawn by the seed, and the same held-out images."""
    manifest = read_manifest(everything)
    order = np.random.default_rng(seed).permutation(len(manifest.rows))
    train = manifest.rows.iloc[order][lambda rows: rows["split"] == "train"]
    kept = set(train.groupby("label").head(per_class)["image_id"])
    chosen = np.flatnonzero((manifest.rows["split"] != "train") | manifest.rows["image_id"].isin(kept))
    images = read_images(everything, manifest.rows)
    with ShardWriter(out, "images", images.row_shape, images.dtype, manifest.rows.iloc[chosen]) as writer:
        writer.append(images[chosen])
    write_manifest(out, Manifest(manifest.rows.iloc[chosen].reset_index(drop=True), manifest.classes))


def accuracies(paths: RunPaths) -> dict[str, float]:
    """Validation and test accuracy of a finished run."""
    predictions = read_predictions(paths.run / "predictions.parquet")
    return {split: classification_metrics(*predictions.split(split))["accuracy"] for split in ("validation", "test")}


class Table:
    """The measurements so far, on the disk after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = pd.read_csv(path).to_dict("records") if path.exists() else []

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, **row: Any) -> None:
        """Append a row and write the table."""
        self.rows.append(row)
        pd.DataFrame(self.rows).to_csv(self.path, index=False)
        print("  ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))


def measure_seed(params: Params, everything: Path, starts: list[str], seed: int, table: Table, work: Path) -> None:
    """All backbones from all starts, their SVMs, and the baselines, on this seed's labels."""
    prepared, augmented = work / "prepared", work / "augmented"
    draw_labels(everything, prepared, params.data.train_per_class or 20, seed)
    augment.run(params.augment, seed, prepared, augmented, work / "preview.png")

    def paths(name: str) -> RunPaths:
        return RunPaths(work / "models" / name, work / "runs" / name, work / f"{name}.json", work / f"{name}.csv")

    for name in params.baselines:
        key = {"seed": seed, "model": name, "start": "scratch", "kind": "baseline"}
        if not table.has(**key):
            seeded = params.model_copy(update={"seed": seed})
            baseline.run(seeded, name, prepared=prepared, augmented=augmented, paths=paths(name), key=f"b{name}")
            table.add(**key, **accuracies(paths(name)))
    for name in params.backbones:
        for start in starts:
            key = {"seed": seed, "model": name, "start": start, "kind": "finetune"}
            if table.has(**key):
                continue
            changed = with_start(params, name, start, seed)
            source, extracted = work / "source", work / "features"
            pretrain.run(changed, name, source)
            features.run(changed, name, prepared=prepared, augmented=augmented, source=source, out=extracted)
            common: dict[str, Any] = {"prepared": prepared, "features": extracted, "source": source}
            finetune.run(changed, name, **common, augmented=augmented, paths=paths(name), key=f"f{name}")
            table.add(**key, **accuracies(paths(name)))
            if start != "random, whole":  # whose frozen features are those of random
                svm.run(changed, name, **common, paths=paths(f"{name}-svm"), key=f"s{name}")
                table.add(**key | {"kind": "svm"}, **accuracies(paths(f"{name}-svm")))


def summary(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Mean accuracy of each start, and the mean difference source - other with its 95 % t interval, over seeds."""
    lines = []
    wide = rows.pivot_table(index=["model", "kind", "seed"], columns="start", values=split)
    for (model, kind), group in wide.groupby(level=["model", "kind"]):
        line: dict[str, Any] = {"model": model, "kind": kind} | group.mean().round(4).to_dict()
        for other in ("random", "random, whole"):
            if "source" not in group or other not in group:
                continue
            difference = (group["source"] - group[other]).dropna()
            if len(difference) > 1:
                half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
                line[f"source - {other}"] = f"{difference.mean():+.3f} ± {half:.3f} (n={len(difference)})"
        lines.append(line)
    return pd.DataFrame(lines)


def main(
    out: Annotated[Path, typer.Option(help="CSV of all measurements; continued where it is there.")],
    seeds: Annotated[int, typer.Option(help="How many seeds, from 1 on.")] = 3,
    start: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(STARTS)}; several times; all.")] = None,
    params_file: Annotated[Path, typer.Option("--params")] = Path("params.yaml"),
) -> None:
    params = load_params(params_file)
    table = Table(out)
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "everything"
        data = params.data.model_copy(update={"train_per_class": None})
        prepare.run(data, params.seed, everything, Path(folder) / "report")
        for seed in range(1, seeds + 1):
            measure_seed(params, everything, start or list(STARTS), seed, table, Path(folder) / str(seed))
            shutil.rmtree(Path(folder) / str(seed))
    for split in ("validation", "test"):
        print(f"\n{split} accuracy, mean over seeds; differences with their 95 % t interval")
        print(summary(pd.DataFrame(table.rows), split).to_string(index=False, na_rep=""))


if __name__ == "__main__":
    typer.run(main)
