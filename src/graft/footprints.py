"""What a run will write and hold in memory, estimated from params and counts before it starts.

Nothing here shapes an output. Estimates that need networks are remembered, so that each stage may ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graft.batch_sizes import AUTO, settle
from graft.counting import Counts
from graft.params import Params
from graft.planning import Plan
from graft.resources import Need, folder_bytes, reductions
from graft.sections import Optimisation, Svm
from graft.training_memory import FLOAT_BYTES, SAFETY, SLOTS, TrainingMemory

if TYPE_CHECKING:
    import keras

ROW_BYTES = 600  # of an image beside its pixels: manifest, views, checksums, predictions
SVM_PROCESS_BYTES = 400 * 2**20  # measured: pandas, scikit-learn and what a search keeps
SVM_COPIES = 5  # of its rows in double precision: the scaled ones, those of a fold, the support vectors
FOLD_COPIES = 2  # in single precision, of all but a fold's rows: as they are and scaled, for each fold that is fitted


@dataclass(frozen=True)
class RowFootprint:
    """Of one backbone or baseline.

    Attributes:
        weights: numbers in the model.
        features: bytes of its activations, once; 0 for a baseline.
        machine: bytes of its support vector machine; 0 for a baseline.
        optimizer: of its longest checkpoint.
        memory: bytes at the peak of each of its stages, by verb.
        vectors: bytes of what its support vector machine stands on where that is not the top alone, once; else 0.
    """

    weights: int
    features: int
    machine: int
    optimizer: str
    memory: dict[str, int]
    vectors: int = 0


@dataclass(frozen=True)
class Folders:
    """Where a run writes, relative to the working directory but for the stores.

    Attributes:
        data: prepared, augmented and features.
        models: one folder per model.
        store: of activations.
        work: of unfinished stages.
        cache: DVC's; None where its files are links, or there is none.
    """

    data: Path
    models: Path
    store: Path
    work: Path
    cache: Path | None


def backbone_footprint(params: Params, name: str, plan: Plan, base: keras.Model, classes: int) -> RowFootprint:
    """Of a backbone's stages.

    Args:
        params: of the run.
        name: of the backbone.
        plan: of its features stage.
        base: as its row describes it.
        classes: number of classes.
    """
    from graft.training_memory import applied
    from graft.vector_plans import with_vectors

    row = params.backbones[name]
    vectors = with_vectors(plan, base, row).vectors
    frozen = applied(base)
    if vectors:
        frozen += TrainingMemory(0, FLOAT_BYTES * vectors.map_elements)
    memory = {"features": frozen.bytes(row.features.batch_size)}
    memory["finetune"] = _finetune_peak(params, name, plan, base, classes)
    if row.base.weights == "source":
        memory["pretrain"] = _pretrain_peak(params, name, base)
    train, length = plan.workload.train * plan.workload.views, plan.segments.elements[-1]
    if vectors:
        length = vectors.elements
    memory["svm"] = svm_peak(train, length, row.svm)
    if vectors and not vectors.kept:
        memory["svm"] += memory["features"]
    if name in params.curve.backbones:
        memory["curve"] = max(memory["finetune"], memory["svm"])
    machine = 8 * length * (train if train <= row.svm.max_rows else row.svm.components)
    kept = vectors.output_bytes if vectors else 0
    return RowFootprint(base.count_params(), plan.output_bytes, machine, row.finetune.optimizer, memory, kept)


def _finetune_peak(params: Params, name: str, plan: Plan, base: keras.Model, classes: int) -> int:
    """Bytes of the phase and the batch that take most."""
    from graft.finetuning_memory import finetuning_memory

    row = params.backbones[name]
    phases = finetuning_memory(
        base,
        row,
        image_size=params.data.image_size,
        classes=classes,
        rows=plan.workload.rows,
        stored=plan.stored,
        itemsize=plan.itemsize,
    )
    size = _batch_size(params, f"backbones.{name}.finetune", row.finetune, plan.workload.train, phases)
    largest = max([size, *(row.finetune.tails.batch_size if row.finetune.tails else [])])
    return max(phase.bytes(largest) for phase in phases)


def _pretrain_peak(params: Params, name: str, base: keras.Model) -> int:
    """Bytes of the training on the source task."""
    from graft.pretraining_memory import pretraining_memory, source_counts

    row = params.backbones[name]
    source = pretraining_memory(base, row, params.pretrain)
    images = round(source_counts(params.pretrain)[0] * (1 - params.pretrain.validation))
    size = _batch_size(params, f"backbones.{name}.pretrain", row.pretrain, images, [source])
    return source.bytes(size)


def svm_peak(rows: int, features: int, settings: Svm) -> int:
    """Bytes that a process which fits a support vector machine takes."""
    return round(SAFETY * (SVM_PROCESS_BYTES + svm_bytes(rows, features, settings)))


def svm_bytes(rows: int, features: int, settings: Svm) -> int:
    """What a support vector machine's search and fit hold of their rows at the peak.

    An exact machine holds the kernel between all rows; above svm.max_rows the folds are fitted at once, one for each
    processor, in single precision.
    """
    if rows <= settings.max_rows:
        return 8 * rows * (SVM_COPIES * features + rows)
    mapped = settings.components if settings.approximation == "nystroem" else 0
    at_once = min(settings.folds, os.cpu_count() or 1)
    return FLOAT_BYTES * rows * (features * (1 + FOLD_COPIES * at_once) + mapped * at_once)


def baseline_footprint(params: Params, name: str, counts: Counts, classes: int) -> RowFootprint:
    """Of a baseline's stage."""
    from graft.baselines import baseline_memory, build_cnn

    row = params.baselines[name]
    model = build_cnn(row, params.data.image_size, classes)
    estimate = baseline_memory(row, params.data.image_size, classes, counts.train * params.augment.views)
    size = _batch_size(params, f"baselines.{name}.train", row.train, counts.train, [estimate])
    verbs = ["baseline", *(["curve_baseline"] if name in params.curve.baselines else [])]
    return RowFootprint(model.count_params(), 0, 0, row.train.optimizer, dict.fromkeys(verbs, estimate.bytes(size)))


def _batch_size(
    params: Params, key: str, settings: Optimisation, images: int, estimates: Sequence[TrainingMemory]
) -> int:
    """As the stage will settle it."""
    if settings.batch_size == AUTO:
        return settle(f"{key}.batch_size", images, estimates, params.train.memory_gb)
    return settings.batch_size


def memory_needs(params: Params, rows: dict[str, RowFootprint], stage: str | None) -> list[Need]:
    """Of the stages, or of one alone, such as finetune@vgg16, the largest first; none for a stage without networks."""
    needs = []
    for name, row in rows.items():
        for verb, peak in row.memory.items():
            if stage is None or stage == f"{verb}@{name}":
                needs.append(Need(f"{verb} {name}", peak, reductions(params, verb, name)))
    return sorted(needs, key=lambda need: -need.bytes)


def disk_needs(params: Params, counts: Counts, rows: dict[str, RowFootprint], folders: Folders) -> list[Need]:
    """Of all outputs that are not there yet, in the working folder and DVC's cache, of the store and of checkpoints."""
    needs, written = [], 0
    for need in _outputs(params, counts, rows, folders):
        assert need.path is not None
        there = folder_bytes(need.path)
        if there < need.bytes / 2:  # what is there of other params makes way, and stays in the cache
            written += need.bytes
            needs.append(Need(need.what, need.bytes - there, need.reduce, need.path))
            if need.what.startswith("activations"):
                needs.append(_stored(params, need, folders))
    if folders.cache is not None:
        needs.append(
            Need("of these outputs a second time, in DVC's cache", written, "cache.type in .dvc/config", folders.cache)
        )
    largest = max((row.weights * (2 + SLOTS[row.optimizer]) for row in rows.values()), default=0)
    needs.append(Need("checkpoints of a training", 2 * FLOAT_BYTES * largest, "a smaller base.width", folders.work))
    return [need for need in needs if need.bytes > 0]


def _stored(params: Params, need: Need, folders: Folders) -> Need:
    """A row passes the store before it is an output, also where the store may keep none of it afterwards."""
    reduce = f"features.storage (now {params.features.storage}) or features.max_gb"
    return Need(f"{need.what} in the store", need.bytes, reduce, folders.store)


def _outputs(params: Params, counts: Counts, rows: dict[str, RowFootprint], folders: Folders) -> Iterator[Need]:
    size, views = params.data.image_size, params.augment.views
    pixels = size * size * 3 + ROW_BYTES
    images = counts.train + counts.validation + counts.test
    yield Need("images", images * pixels, f"data.image_size (now {size})", folders.data / "prepared")
    reduce = f"augment.views (now {views}), data.image_size (now {size})"
    yield Need("views", counts.train * views * pixels, reduce, folders.data / "augmented")
    for name, row in rows.items():
        if row.features:
            kept = params.features
            reduce = f"features.max_gb (now {kept.max_gb:g}), features.storage (now {kept.storage}), augment.views"
            yield Need(f"activations of {name}", row.features, reduce, folders.data / "features" / name)
        if row.vectors:
            reduce = f"backbones.{name}.features.svm_layers, svm_pooling, augment.views"
            yield Need(f"activations of {name} for its SVM", row.vectors, reduce, folders.data / "vectors" / name)
        yield Need(f"weights of {name}", row.weights * FLOAT_BYTES, "a smaller network", folders.models / name)
        if name in params.backbones:
            source, machine = folders.models / "source" / name, folders.models / f"{name}-svm"
            yield Need(f"weights of {name}'s base", row.weights * FLOAT_BYTES, "a smaller base.width", source)
            yield Need(f"support vectors of {name}", row.machine, f"backbones.{name}.svm.max_rows", machine)
