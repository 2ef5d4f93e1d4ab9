"""One training or several of a model, and what every trained model writes: itself, its predictions, its journal."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions, write_predictions
from graft.calibration import Calibration, apply_temperature, fit_calibration, write_calibration
from graft.checkpoints import Checkpoints, Saved
from graft.metrics import classification_metrics
from graft.run_identity import RunIdentity, RunPaths, is_written
from graft.storage import new_folder, write_json, write_table

if TYPE_CHECKING:
    from graft.journal import Journal
    from graft.params import Params
    from graft.trials import Publish

__all__ = [
    *("SEED_STRIDE", "Fit", "RunIdentity", "RunPaths", "Training", "calibrated", "held_out_predictions"),
    *("held_out_rows", "train_and_write"),
]

SEED_STRIDE = 1000  # between the seeds of repeated trainings; a training draws from seeds right after its own, too


@dataclass(frozen=True)
class Training:
    """What a training came to, beside the model itself.

    Attributes:
        probabilities: of the held-out images as the model gives them, (n, classes), in the order of held_out_rows.
        parameters: how many numbers a prediction uses.
        seconds: wall time by phase.
        history: one record per epoch; None for models that are not trained by epochs.
        candidates: of its grids, as Journal.candidate takes them.
        tables: what else is kept of the run, by file name.
    """

    probabilities: np.ndarray
    parameters: int
    seconds: Mapping[str, float]
    history: Sequence[Mapping[str, Any]] | None = None
    candidates: Sequence[Mapping[str, Any]] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


class Fit(Protocol):
    """Trains a model from a seed, in a way that depends on nothing but what its own checkpoints kept."""

    def __call__(
        self, seed: int, publish: Publish, checkpoints: Checkpoints
    ) -> tuple[Training, Callable[[Path], None]]:
        """What came of it, and how to save the model into a folder.

        Args:
            seed: of the training.
            publish: called after each epoch, again for those that a checkpoint gives back.
            checkpoints: of this training; where it was interrupted, it goes on from them and ends as if it had not
                been.
        """


def held_out_predictions(manifest: Manifest, probabilities: np.ndarray) -> Predictions:
    """Predictions of the validation and test images, not calibrated.

    Args:
        manifest: lists the images.
        probabilities: of shape (held-out images, classes), in the order of held_out_rows.
    """
    rows = manifest.rows.iloc[held_out_rows(manifest)]
    doubles = probabilities.astype(np.float64)  # float32 rows miss one by up to 1e-6
    probabilities = doubles / doubles.sum(axis=1, keepdims=True)
    return Predictions(rows, probabilities, manifest.classes, manifest=manifest.digest)


def held_out_rows(manifest: Manifest) -> np.ndarray:
    """Row numbers of the validation and test images, in manifest order."""
    return np.flatnonzero((manifest.rows["split"] != "train").to_numpy())


def calibrated(predictions: Predictions, accuracy: float) -> tuple[Predictions, Calibration]:
    """Predictions at the temperature that their validation images ask for.

    Args:
        predictions: as the model gives them.
        accuracy: of answers, as of calibration.abstain_threshold.
    """
    calibration = fit_calibration(*predictions.split("validation"), accuracy)
    probabilities = apply_temperature(predictions.probabilities, calibration.temperature)
    return replace(predictions, probabilities=probabilities, temperature=calibration.temperature), calibration


def train_and_write(
    fit: Fit, paths: RunPaths, identity: RunIdentity, *, manifest: Manifest, params: Params, machine: Mapping[str, str]
) -> None:
    """Train a model `train.repeats` times, keep the first and write all there is to know.

    Training r has the seed `seed + r * SEED_STRIDE` (below 2**32), and the first is what it would be alone. That seed
    alone differs: first weights, order of the batches and dropout of a network, folds of an SVM. The images, their
    split, their views and a base's source weights are the same.

    Whenever it is interrupted, another call goes on from what the work folder keeps, and ends as if it had not been:
    only timings and dates differ. The outputs appear together at the end, and the work folder goes after them.

    Args:
        fit: called once for each training.
        paths: where to write.
        identity: of the run.
        manifest: of the images.
        params: the seed, `train`, and how an image becomes the model's input.
        machine: what, beside code and inputs, the numbers depend on; on another one nothing is gone on with.
    """
    from graft.resources import named_memory_errors

    row = identity.backbone or identity.model
    with named_memory_errors(params, identity.kind, row), identity.recorded(machine) as journal:
        if not is_written(paths, identity):
            with identity.followed(journal, params.tracking):
                kept = Checkpoints(journal.folder / "checkpoints", machine)
                _train_and_write(fit, journal, kept, paths, identity, manifest, params)
        journal.remove()


def _train_and_write(
    fit: Fit,
    journal: Journal,
    kept: Checkpoints,
    paths: RunPaths,
    identity: RunIdentity,
    manifest: Manifest,
    params: Params,
) -> None:
    from graft.system_metrics import sampled

    with new_folder(paths.model) as model:
        with sampled(journal):
            training, predictions, calibration = _train_first(fit, journal, kept, model, manifest, params)
            repeats, seconds = _repeats(fit, journal, kept, manifest, params)
            timings = _timings(training, seconds if repeats else None)
        metrics = _validation_metrics(predictions) | {"temperature": calibration.temperature}
        if training.history is not None and paths.history is not None:
            write_table(paths.history, pd.DataFrame(training.history))
        write_json(paths.metrics, metrics)
        facts = {name: getattr(identity, name) for name in ("model", "kind", "backbone", "stage")}
        facts |= {"parameters": training.parameters, "abstain_below": calibration.abstain_below}
        with new_folder(paths.run) as folder:
            write_json(folder / "summary.json", facts)
            write_json(folder / "timings.json", timings)
            _write_tables(folder, predictions, repeats, training.tables)
            journal.finish(metrics, timings)
            journal.write_to(folder / "journal.jsonl")
    epochs = "" if training.history is None else f"{len(training.history)} epochs, "
    print(f"{identity.kind} {identity.model}: {epochs}validation accuracy {metrics['val_accuracy']:.1%}")


def _validation_metrics(predictions: Predictions) -> dict[str, float]:
    return {f"val_{name}": value for name, value in classification_metrics(*predictions.split("validation")).items()}


def _write_tables(
    folder: Path, predictions: Predictions, repeats: Sequence[Predictions], tables: Mapping[str, pd.DataFrame]
) -> None:
    write_predictions(folder / "predictions.parquet", predictions)
    for number, repeat in enumerate(repeats, start=1):
        write_predictions(folder / "repeats" / f"{number:02d}.parquet", repeat)
    for name, table in tables.items():
        write_table(folder / name, table)


def _train_first(
    fit: Fit, journal: Journal, kept: Checkpoints, model: Path, manifest: Manifest, params: Params
) -> tuple[Training, Predictions, Calibration]:
    """The training whose model is kept; when this returns, only the folder holds it."""
    training, save = fit(params.seed, journal.epoch, kept.at("training-1", {"seed": params.seed}))
    for candidate in training.candidates:
        journal.candidate(candidate)
    raw = held_out_predictions(manifest, training.probabilities)
    predictions, calibration = calibrated(raw, params.train.abstain_accuracy)
    save(model)
    write_calibration(model, calibration)
    write_json(model / "classes.json", list(manifest.classes))
    write_json(model / "input.json", {"image_size": params.data.image_size, "resize": params.data.resize})
    return training, predictions, calibration


def _repeats(
    fit: Fit, journal: Journal, kept: Checkpoints, manifest: Manifest, params: Params
) -> tuple[list[Predictions], float]:
    """The predictions of the further trainings, each at its own temperature, and what they took together in seconds."""
    found, seconds = [], 0.0
    for number in range(2, params.train.repeats + 1):
        seed = (params.seed + (number - 1) * SEED_STRIDE) % 2**32
        saved = _repeat(fit, kept, number, seed)
        seconds += saved.facts["seconds"]
        raw = held_out_predictions(manifest, saved.arrays[0])
        found.append(calibrated(raw, params.train.abstain_accuracy)[0])
        metrics = _validation_metrics(found[-1])
        name = f"repeat-{number:02d}"
        journal.repeat({"name": name, "seed": seed, "history": saved.facts["history"], "metrics": metrics})
        accuracy = metrics["val_accuracy"]
        print(f"training {number} of {params.train.repeats}: seed {seed}, validation accuracy {accuracy:.1%}")
    return found, seconds


def _repeat(fit: Fit, kept: Checkpoints, number: int, seed: int) -> Saved:
    """The held-out probabilities of a further training with its history and seconds; its own checkpoints go then."""
    content = {"seed": seed}
    place, unfinished = kept.at(f"repeat-{number}", content), kept.at(f"training-{number}", content)
    saved = place.load()
    if saved is None:
        gc.collect()  # the model before is a cycle of references
        training = fit(seed, _tell_nobody, unfinished)[0]  # how to save it would keep the model
        facts = {"history": list(training.history or ()), "seconds": sum(training.seconds.values())}
        saved = Saved([training.probabilities], facts)
        place.save(saved)
    unfinished.clear()
    return saved


def _tell_nobody(epoch: int, phase: str, metrics: dict[str, float]) -> None:
    """The curves of the run are those of the training whose model is kept."""


def _timings(training: Training, repeats: float | None) -> dict[str, float]:
    """Of the first training by phase and together, and apart from that of all further ones.

    They are written apart from results, so that equal runs have equal results.
    """
    phases = {f"{name}_seconds": value for name, value in training.seconds.items()}
    timings = {"train_seconds": sum(training.seconds.values()), **phases}
    return timings if repeats is None else timings | {"repeats_seconds": repeats}
