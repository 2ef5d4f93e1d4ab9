"""Made-up runs of models that never existed, in the files that the training stages write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from graft.artifacts import Predictions, write_predictions
from graft.params import Params, load_params
from graft.storage import write_json, write_table

DEFAULT = load_params(Path(__file__).parents[1] / "params.yaml")
DIGITS = tuple("0123456789")


def fake_params(backbones: int = 4, *, baseline: bool = True, test: float | str = 0.2) -> Params:
    """The default parameters with the first so many backbones."""
    content = DEFAULT.model_dump()
    content["backbones"] = dict(list(content["backbones"].items())[:backbones])
    content["baselines"] = {"cnn": content["baselines"]["cnn"]} if baseline else {}
    content["data"]["test"] = test
    content["compare"]["resamples"] = 200
    return Params.model_validate(content)


def fake_predictions(
    classes: Sequence[str], per_class: int, accuracy: float, *, seed: int, test: bool = True
) -> Predictions:
    """Predictions right with about this probability; as many validation as test images, in an order by seedless id."""
    splits = ("validation", "test") if test else ("validation",)
    rows = pd.DataFrame(
        [(f"{split}-{k}-{label}", split, label) for split in splits for k in range(per_class) for label in classes],
        columns=["image_id", "split", "label"],
    )
    generator = np.random.default_rng(seed)
    actual = np.tile(np.arange(len(classes)), per_class * len(splits))
    neighbour = (actual + generator.integers(1, max(2, len(classes) // 2), len(actual))) % len(classes)
    predicted = np.where(generator.random(len(actual)) < accuracy, actual, neighbour)
    logits = generator.normal(0, 1, (len(actual), len(classes)))
    logits[np.arange(len(actual)), predicted] += 5
    probabilities = np.exp(logits)
    return Predictions(rows, probabilities / probabilities.sum(axis=1, keepdims=True), tuple(classes))


def fake_history(phases: dict[str, int], seed: int) -> pd.DataFrame:
    """Falling losses over the phases' epochs, with noise."""
    generator = np.random.default_rng(seed)
    epochs = np.arange(1, sum(phases.values()) + 1)
    loss = 2 * np.exp(-epochs / 6) + 0.1 + generator.normal(0, 0.02, len(epochs)).clip(-0.05)
    val_loss = 1.7 * np.exp(-epochs / 5) + 0.25 + generator.normal(0, 0.03, len(epochs))
    return pd.DataFrame(
        {
            "epoch": epochs,
            "phase": np.repeat(list(phases), list(phases.values())),
            "loss": loss,
            "accuracy": 1 - loss / 3,
            "val_loss": val_loss,
            "val_accuracy": 0.97 - val_loss / 4,
            "learning_rate": 1e-3,
        }
    )


def write_run(
    reports: Path,
    model: str,
    kind: str,
    predictions: Predictions,
    *,
    parameters: int = 1000,
    seconds: float = 12.5,
    seed: int = 0,
    abstain_below: float | None = None,
    repeats: Sequence[Predictions] = (),
) -> None:
    """Everything that compare reads of one model."""
    folder = reports / "runs" / model
    write_predictions(folder / "predictions.parquet", predictions)
    for number, repeat in enumerate(repeats, start=1):
        write_predictions(folder / "repeats" / f"{number:02d}.parquet", repeat)
    facts = {"model": model, "kind": kind, "parameters": parameters, "abstain_below": abstain_below}
    write_json(folder / "summary.json", facts)
    write_json(folder / "timings.json", {"train_seconds": seconds, "fit_seconds": seconds})
    if kind != "svm":
        phases = {"train": 24} if kind == "baseline" else {"frozen": 14, "unfrozen": 9}
        write_table(reports / "history" / f"{model}.csv", fake_history(phases, seed))


def write_data_report(reports: Path, classes: Sequence[str], reasons: Sequence[str] = ()) -> None:
    """What prepare reports of the images."""
    counts = pd.DataFrame({"label": list(classes), "train": 20, "validation": 36, "test": 36, "unused": 88})
    write_table(reports / "data" / "counts.csv", counts.assign(quarantined=0))
    rows = [(f"photos/{number}.jpg", classes[0], reason, "") for number, reason in enumerate(reasons)]
    write_table(
        reports / "data" / "quarantine.csv", pd.DataFrame(rows, columns=["source", "label", "reason", "detail"])
    )
