"""What a finished network writes: itself, its predictions and its run."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graft.artifacts import Manifest
from graft.inference import apply_model
from graft.runs import (
    RunIdentity,
    RunPaths,
    held_out_predictions,
    held_out_rows,
    write_classifier_facts,
    write_run,
)
from graft.shards import Shards
from graft.storage import new_folder, write_table, write_zip
from graft.training import Candidate, Trained

if TYPE_CHECKING:
    import keras

    from graft.journal import Journal


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


def write_network_run(
    paths: RunPaths,
    identity: RunIdentity,
    journal: Journal,
    trained: Trained,
    *,
    manifest: Manifest,
    images: Shards,
    batch_size: int,
    resize: str,
) -> None:
    """Predict the held-out images with the finished network, and write it and its run."""
    model, inputs = trained.shortcut or (trained.model, images)
    batches = apply_model(model, inputs, held_out_rows(manifest), batch_size)
    predictions = held_out_predictions(manifest, np.concatenate([probabilities for (probabilities,) in batches]))
    with new_folder(paths.model) as folder:
        save_keras_model(folder / "model.keras", trained.model)
        write_classifier_facts(folder, manifest.classes, images.row_shape[0], resize)
    for candidate in trained.candidates:
        journal.candidate(asdict(candidate))
    metrics = write_run(
        paths,
        identity,
        journal,
        parameters=trained.model.count_params(),
        predictions=predictions,
        seconds=trained.seconds,
        history=trained.history,
    )
    if trained.candidates:
        write_table(paths.run / "candidates.csv", candidate_table(trained.candidates))
    epochs = len(trained.history)
    print(f"{identity.kind} {identity.model}: {epochs} epochs, validation accuracy {metrics['val_accuracy']:.1%}")


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
