"""k-fold cross-validation: one DVC experiment per fold, and what the folds say together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from graft.artifacts import Predictions, read_predictions
from graft.comparison_sections import Compare
from graft.errors import GraftError
from graft.evaluation import evaluate
from graft.metrics import classification_metrics
from graft.params import Params
from graft.storage import new_file, read_table, write_table

COLUMNS = (
    *("model", "kind", "folds", "accuracy", "accuracy_low", "accuracy_high", "n", "macro_f1", "log_loss"),
    *("fold_accuracy_mean", "fold_accuracy_sd", "test_accuracy_mean", "test_accuracy_sd", "n_test"),
)


def cross_validate(params: Params, root: Path, reports: Path) -> pd.DataFrame:
    """Run the pipeline once for each fold and write reports/cv.csv and cv.md; returns the table of aggregate.

    Each fold is a DVC experiment in a copy of the repository, named cv-0, cv-1 and so on. What a fold does not touch
    comes from DVC's cache, and so does a fold that was run before, so that an interrupted call goes on where it was.

    Raises:
        GraftError: the params do not ask for folds, or a fold's run failed.
    """
    if params.data.split != "kfold":
        raise GraftError(f"data.split must be kfold to cross-validate, received {params.data.split!r} (params.yaml)")
    names = [f"cv-{fold}" for fold in range(params.data.folds)]
    for fold, name in enumerate(names):
        print(f"cv: fold {fold}, experiment {name}, {fold + 1} of {len(names)}", flush=True)
        _run_fold(root, name, fold)
    folds = [_read_fold(root, name, params.models()) for name in names]
    table = aggregate(folds, params.models(), params.compare, params.seed, _read_groups(root, names))
    write_table(reports / "cv.csv", table)
    with new_file(reports / "cv.md") as partial:
        partial.write_text(to_markdown(table, params.compare.confidence), encoding="utf-8")
    return table


def _run_fold(root: Path, name: str, fold: int) -> None:
    arguments = ["exp", "run", "--temp", "--force", "--name", name, "--set-param", f"data.fold={fold}"]
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=False)
    if result.returncode:
        raise GraftError(f"fold {fold} failed: `dvc {' '.join(arguments)}` ended with {result.returncode}, see above")


def _read_fold(root: Path, experiment: str, models: Iterable[str]) -> dict[str, Predictions]:
    """The predictions of an experiment by model, from DVC's cache."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=experiment)
    predictions = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            local = Path(folder) / f"{model}.parquet"
            files.get_file(f"reports/runs/{model}/predictions.parquet", str(local))
            predictions[model] = read_predictions(local)
    return predictions


def _read_groups(root: Path, experiments: Iterable[str]) -> dict[str, str]:
    """The group of each image by its id; no fold lists every image where training takes some of each class."""
    from dvc.api import DVCFileSystem

    groups: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for experiment in experiments:
            local = Path(folder) / f"{experiment}.parquet"
            DVCFileSystem(str(root), rev=experiment).get_file("data/prepared/manifest.parquet", str(local))
            rows = read_table(local, ("image_id", "group"))
            groups |= dict(zip(rows["image_id"], rows["group"], strict=True))
    return groups


def aggregate(
    folds: Sequence[Mapping[str, Predictions]],
    kinds: Mapping[str, str],
    compare: Compare,
    seed: int,
    groups: Mapping[str, str],
) -> pd.DataFrame:
    """One row per model with COLUMNS, the best pooled accuracy first.

    Every image outside the test split is validated in exactly one fold, so the folds' validation predictions together
    are one prediction for each of n images, by a model that was not fitted on it: accuracy, its interval, macro-F1 and
    log loss are of these. A network's epoch (and phase), and every model's temperature, on which log loss depends, were
    still chosen on the fold that is measured. The mean and standard deviation over the folds describe the spread; the
    folds' training sets overlap, so they make no interval (Bengio and Grandvalet 2004). Test figures are means over the
    folds' models on the same test images.

    Args:
        folds: predictions by model, one mapping per fold.
        kinds: kind by model.
        compare: how the interval is made.
        seed: of the resampling.
        groups: of each image by its id; images of one group are resampled together.

    Raises:
        GraftError: an image is validated twice or the folds differ in their test images, so that they are not of one
            data set.
    """
    rows = [_measure(name, kind, [fold[name] for fold in folds], compare, seed, groups) for name, kind in kinds.items()]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["accuracy", "log_loss", "model"], ascending=[False, True, True], ignore_index=True)


def _measure(
    name: str, kind: str, folds: Sequence[Predictions], compare: Compare, seed: int, groups: Mapping[str, str]
) -> dict[str, object]:
    _check_folds(name, folds)
    parts = [fold.split("validation") for fold in folds]
    labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    validated = pd.concat([fold.rows.loc[fold.rows["split"] == "validation", "image_id"] for fold in folds])
    own = validated.map(groups).to_numpy(object)
    measured = evaluate(
        labels, probabilities, own if len(set(own)) < len(own) else None, compare, seed, metrics=("accuracy",)
    )
    low, high = measured.loc["accuracy", ["low", "high"]]
    spread = [_accuracy(*part) for part in parts]
    tested = [_accuracy(*fold.split("test")) for fold in folds]
    return {
        **classification_metrics(labels, probabilities),
        **{"model": name, "kind": kind, "folds": len(folds), "n": len(labels)},
        **{"accuracy_low": low, "accuracy_high": high},
        **{"fold_accuracy_mean": np.mean(spread), "fold_accuracy_sd": np.std(spread, ddof=1)},
        **{"test_accuracy_mean": np.mean(tested), "test_accuracy_sd": np.std(tested, ddof=1)},
        "n_test": len(folds[0].split("test")[0]),
    }


def _accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean()) if len(labels) else float("nan")


def _check_folds(name: str, folds: Sequence[Predictions]) -> None:
    splits = [fold.rows.groupby("split")["image_id"].agg(set).to_dict() for fold in folds]
    validated = [image for split in splits for image in split.get("validation", ())]
    if len(validated) != len(set(validated)):
        raise GraftError(f"cv: {name} validated an image in two folds; the data changed meanwhile, run it again")
    if any(split.get("test", set()) != splits[0].get("test", set()) for split in splits):
        raise GraftError(
            f"cv: the folds of {name} have different test images; the data changed meanwhile, run it again"
        )


def to_markdown(table: pd.DataFrame, confidence: float) -> str:
    """The table for people, under lines that say how to read it."""
    first = table.iloc[0]
    lines = [
        f"{first['folds']} folds, {first['n']:,} images each validated once; pooled accuracy with its "
        f"{100 * confidence:g} % interval, and mean ± standard deviation over the folds.",
        *([f"Test: the folds' models on the same {first['n_test']:,} images."] if first["n_test"] else []),
        "",
        "| model | kind | accuracy | over the folds | macro-F1 | log loss | test, over the folds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.itertuples(index=False):
        tested = f"{row.test_accuracy_mean:.1%} ± {row.test_accuracy_sd:.1%}" if row.n_test else "-"
        lines.append(
            f"| {row.model} | {row.kind} | {row.accuracy:.1%} ({row.accuracy_low:.1%}-{row.accuracy_high:.1%}) "
            f"| {row.fold_accuracy_mean:.1%} ± {row.fold_accuracy_sd:.1%} | {row.macro_f1:.3f} | {row.log_loss:.3f} "
            f"| {tested} |"
        )
    return "\n".join(lines) + "\n"
