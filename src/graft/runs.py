"""One training or several of a model, and what every trained model writes: itself, its predictions, its journal."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions, write_predictions
from graft.calibration import Calibration, apply_temperature, fit_calibration, write_calibration
from graft.metrics import classification_metrics
from graft.storage import new_folder, write_json, write_table

if TYPE_CHECKING:
    from graft.journal import Journal
    from graft.operation_sections import Tracking
    from graft.params import Params
    from graft.trials import Publish

SEED_STRIDE = 1000  # between the seeds of repeated trainings; a training draws from seeds right after its own, too


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is.

    Attributes:
        key: hash of the stage's command, parameters and inputs.
        model: name in the leaderboard.
        kind: baseline, finetune or svm.
        backbone: the row of `backbones`; None for a baseline.
        stage: name in dvc.yaml.
        params: the sections of params.yaml that shaped it.
    """

    key: str
    model: str
    kind: str
    backbone: str | None
    stage: str
    params: dict[str, Any]

    @contextmanager
    def recorded(self, tracking: Tracking) -> Iterator[Journal]:
        """The run's journal, begun in its work folder; where asked for, MLflow follows a network's meanwhile."""
        from graft.journal import Journal, work_folder
        from graft.publisher_process import published_live

        journal = Journal.start(work_folder(self.key), asdict(self))
        followed = tracking.live and self.kind != "svm"  # which has no epochs
        with published_live(journal.folder, tracking.experiment) if followed else nullcontext():
            yield journal


@dataclass(frozen=True)
class RunPaths:
    """Where a training stage writes; history is None for models that are not trained by epochs."""

    model: Path
    run: Path
    metrics: Path
    history: Path | None


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
    """Trains a model from a seed, in a way that depends on nothing that an earlier training left behind."""

    def __call__(self, seed: int, publish: Publish) -> tuple[Training, Callable[[Path], None]]:
        """What came of it, and how to save the model into a folder; publish is called after each epoch."""


def held_out_predictions(manifest: Manifest, probabilities: np.ndarray) -> Predictions:
    """Predictions of the validation and test images, not calibrated.

    Args:
        manifest: lists the images.
        probabilities: of shape (held-out images, classes), in the order of held_out_rows.
    """
    rows = manifest.rows.iloc[held_out_rows(manifest)]
    doubles = probabilities.astype(np.float64)  # float32 rows miss one by up to 1e-6
    return Predictions(rows, doubles / doubles.sum(axis=1, keepdims=True), manifest.classes)


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
    rows, classes = predictions.rows, predictions.classes
    return Predictions(rows, probabilities, classes, calibration.temperature), calibration


def train_and_write(fit: Fit, paths: RunPaths, identity: RunIdentity, *, manifest: Manifest, params: Params) -> None:
    """Train a model `train.repeats` times, keep the first and write all there is to know.

    Training r has the seed `seed + r * SEED_STRIDE` (below 2**32), and the first is what it would be alone. That seed
    alone differs: first weights, order of the batches and dropout of a network, folds of an SVM. The images, their
    split, their views and a base's source weights are the same.

    Args:
        fit: called once for each training.
        paths: where to write.
        identity: of the run.
        manifest: of the images.
        params: the seed, `train`, and how an image becomes the model's input.
    """
    with identity.recorded(params.tracking) as journal:
        _train_and_write(fit, journal, paths, identity, manifest, params)


def _train_and_write(
    fit: Fit, journal: Journal, paths: RunPaths, identity: RunIdentity, manifest: Manifest, params: Params
) -> None:
    from graft.system_metrics import sampled

    with sampled(journal):
        training, predictions, calibration = _train_first(fit, journal, paths.model, manifest, params)
        started = time.perf_counter()
        repeats = _repeats(fit, journal, manifest, params)
        timings = _timings(training, time.perf_counter() - started if repeats else None)
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
        journal.move_to(folder / "journal.jsonl")
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
    fit: Fit, journal: Journal, model: Path, manifest: Manifest, params: Params
) -> tuple[Training, Predictions, Calibration]:
    """The training whose model is kept; when this returns, only the folder holds it."""
    training, save = fit(params.seed, journal.epoch)
    for candidate in training.candidates:
        journal.candidate(candidate)
    raw = held_out_predictions(manifest, training.probabilities)
    predictions, calibration = calibrated(raw, params.train.abstain_accuracy)
    with new_folder(model) as folder:
        save(folder)
        write_calibration(folder, calibration)
        write_json(folder / "classes.json", list(manifest.classes))
        write_json(folder / "input.json", {"image_size": params.data.image_size, "resize": params.data.resize})
    return training, predictions, calibration


def _repeats(fit: Fit, journal: Journal, manifest: Manifest, params: Params) -> list[Predictions]:
    """The predictions of the further trainings, each at its own temperature."""
    found = []
    for number in range(1, params.train.repeats):
        gc.collect()  # the model before is a cycle of references
        seed = (params.seed + number * SEED_STRIDE) % 2**32
        training = fit(seed, _tell_nobody)[0]  # how to save it would keep the model in memory
        raw = held_out_predictions(manifest, training.probabilities)
        found.append(calibrated(raw, params.train.abstain_accuracy)[0])
        metrics, history = _validation_metrics(found[-1]), list(training.history or ())
        journal.repeat({"name": f"repeat-{number + 1:02d}", "seed": seed, "history": history, "metrics": metrics})
        accuracy = metrics["val_accuracy"]
        print(f"training {number + 1} of {params.train.repeats}: seed {seed}, validation accuracy {accuracy:.1%}")
    return found


def _tell_nobody(epoch: int, phase: str, metrics: dict[str, float]) -> None:
    """The curves of the run are those of the training whose model is kept."""


def _timings(training: Training, repeats: float | None) -> dict[str, float]:
    """Of the first training by phase and together, and apart from that of all further ones.

    They are written apart from results, so that equal runs have equal results.
    """
    phases = {f"{name}_seconds": value for name, value in training.seconds.items()}
    timings = {"train_seconds": sum(training.seconds.values()), **phases}
    return timings if repeats is None else timings | {"repeats_seconds": repeats}
