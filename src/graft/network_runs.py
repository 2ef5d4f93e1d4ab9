"""A network's training as a run takes it, and the file of the network."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graft import runtime
from graft.artifacts import Manifest
from graft.checkpoints import Checkpoints
from graft.inference import apply_model
from graft.runs import Training, held_out_rows
from graft.shards import Shards
from graft.storage import write_zip
from graft.training import Candidate, Publish, Trained

if TYPE_CHECKING:
    import keras

    from graft.runs import Fit


def save_keras_model(path: Path, model: keras.Model) -> None:
    """Save as .keras, without the times and memory addresses that would make equal models differ."""
    raw = path.with_suffix(".raw.keras")
    model.save(raw)
    with zipfile.ZipFile(raw) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    raw.unlink()
    entries["metadata.json"] = json.dumps(json.loads(entries["metadata.json"]) | {"date_saved": "1980-01-01"}).encode()
    entries["config.json"] = _numbered_objects(entries["config.json"].decode()).encode()
    write_zip(path, entries)


def _numbered_objects(config: str) -> str:
    """The config with shared objects numbered as they occur, where Keras writes addresses."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'("shared_object_id": )(\d+)', lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers))}", config
    )


def network_fit(
    train: Callable[[int, Publish, Checkpoints], Trained], *, manifest: Manifest, images: Shards, batch_size: int
) -> Fit:
    """A network's training for runs.train_and_write, each from TensorFlow as a new process would have it.

    Args:
        train: from a seed, what each epoch is told to and the training's checkpoints; builds or loads everything that
            it trains.
        manifest: of the images.
        images: row i being image i of the manifest.
        batch_size: of predictions.
    """

    def fit(seed: int, publish: Publish, checkpoints: Checkpoints) -> tuple[Training, Callable[[Path], None]]:
        runtime.configure(seed)
        trained = train(seed, publish, checkpoints)
        model, inputs = trained.shortcut or (trained.model, images)
        batches = apply_model(model, inputs, held_out_rows(manifest), batch_size)
        training = Training(
            np.concatenate([probabilities for (probabilities,) in batches]),
            trained.model.count_params(),
            trained.seconds,
            trained.history,
            [asdict(candidate) for candidate in trained.candidates],
            {"candidates.csv": candidate_table(trained.candidates)} if trained.candidates else {},
        )
        return training, lambda folder: save_keras_model(folder / "model.keras", trained.model)

    return fit


def candidate_table(candidates: list[Candidate]) -> pd.DataFrame:
    """One line per candidate of a grid: name, phase, values, epochs, the best of them, whether it was chosen."""
    lines = []
    for candidate in candidates:
        best = min(candidate.history, key=lambda record: record["val_loss"], default={})
        measured = {name: best.get(name) for name in ("val_loss", "val_accuracy")}
        described = {"name": candidate.name, "phase": candidate.phase, **candidate.params}
        lines.append(described | {"epochs": len(candidate.history), **measured, "chosen": candidate.chosen})
    last = ["epochs", "val_loss", "val_accuracy", "chosen"]
    table = pd.DataFrame(lines, dtype=object)  # else a whole number beside a blank becomes a fraction
    return table[[*(column for column in table.columns if column not in last), *last]]
