"""Whether a run fits on this machine, asked before it starts and by each stage; it refuses and shapes no output."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from graft import footprints, resources, runtime, sources
from graft.artifacts import read_manifest
from graft.counting import Counts, count_images
from graft.dvc_storage import dvc_storage
from graft.footprints import Folders, RowFootprint
from graft.journal import project_root
from graft.params import Params
from graft.resources import Need, gigabytes
from graft.storage import read_json, write_json

DATA, MODELS, LOCK = Path("data"), Path("models"), Path("dvc.lock")
CODE = (  # by which an estimate is remembered
    *("footprints", "batch_sizes", "planning", "vector_plans", "svm_layers"),
    *("training_memory", "finetuning_memory", "pretraining_memory", "baselines"),
)


def check_resources(params: Params) -> None:
    """Refuse a run that would fill a disk, and stages whose memory is not there.

    Disk is asked for all that is not written yet; memory for the stage that DVC runs now, else for every one. Of an
    archive nothing is known before it is unpacked, so that only what is prepared is judged.

    Raises:
        ResourceError: says what is needed, what is free, where, and which keys lower it.
    """
    counts = known_counts(params)
    if counts is None:
        return
    rows = estimate(params, counts)
    resources.check_disk(disk_needs(params, counts, rows))
    stage = os.environ.get("DVC_STAGE")
    resources.check_memory(footprints.memory_needs(params, rows, stage), resources.memory())


def check_svm(params: Params, name: str, rows: int, features: int) -> None:
    """Refuse a backbone's SVM whose memory is not there; its stage knows its size without building a network.

    Args:
        params: of the run.
        name: of the backbone.
        rows: that it is fitted on: views of the training images.
        features: of each.

    Raises:
        ResourceError: as check_resources.
    """
    peak = footprints.svm_peak(rows, features, params.backbones[name].svm)
    resources.check_memory([Need(f"svm {name}", peak, resources.reductions(params, "svm", name))], resources.memory())


def check_disk(params: Params) -> None:
    """Refuse a run that would fill a disk, by what is known without building a network.

    Raises:
        ResourceError: as check_resources.
    """
    if (counts := known_counts(params)) is not None:
        resources.check_disk(disk_needs(params, counts, _remembered(params, counts) or {}))


def known_counts(params: Params) -> Counts | None:
    """The images of the run to come; None for an archive that is not unpacked yet."""
    prepared = DATA / "prepared"
    if params.data.source == "archive" and not (prepared / "manifest.parquet").exists():
        return None
    return count_images(params, prepared, LOCK)


def disk_needs(params: Params, counts: Counts, rows: dict[str, RowFootprint]) -> list[Need]:
    """What is still to be written, in the folders of the working directory and the project's stores."""
    root = project_root()
    storage = dvc_storage(root)
    cache = storage.folder if storage and storage.copies else None  # links take nothing
    folders = Folders(DATA, MODELS, root / ".store" / "features", root / ".work", cache)
    return footprints.disk_needs(params, counts, rows, folders)


def estimate(params: Params, counts: Counts) -> dict[str, RowFootprint]:
    """What each backbone and baseline takes; builds them unless it is remembered of the same values and counts."""
    if (known := _remembered(params, counts)) is not None:
        return known
    from graft import planning
    from graft.backbones import build_base
    from graft.costs import segments

    runtime.configure(params.seed)
    classes = _classes(params, counts)
    rows = {name: footprints.baseline_footprint(params, name, counts, classes) for name in params.baselines}
    images = {"train": counts.train, "validation": counts.validation, "test": counts.test}
    for name, row in params.backbones.items():
        base = build_base(row.base)
        measured = segments(base, row.features.cuts, row.features.pooling)
        plan = planning.make_plan(params.features, row, measured, **images, views=params.augment.views)
        rows[name] = footprints.backbone_footprint(params, name, plan, base, classes)
    write_json(_path(params, counts), {name: asdict(row) for name, row in rows.items()})
    return rows


def _remembered(params: Params, counts: Counts) -> dict[str, RowFootprint] | None:
    path = _path(params, counts)
    return {name: RowFootprint(**row) for name, row in read_json(path).items()} if path.exists() else None


def _path(params: Params, counts: Counts) -> Path:
    sections = {"data", "augment", "pretrain", "train", "features", "backbones", "baselines", "curve"}
    code = [Path(__file__).with_name(f"{module}.py").read_bytes() for module in CODE]
    known = (
        params.model_dump_json(include=sections),
        counts.train,
        counts.validation,
        counts.test,
        os.cpu_count(),
        code,
    )
    return project_root() / ".work" / "checked" / f"{hashlib.sha256(repr(known).encode()).hexdigest()}.json"


def _classes(params: Params, counts: Counts) -> int:
    if counts.prepared:
        return len(read_manifest(DATA / "prepared").classes)
    with TemporaryDirectory() as scratch:
        return len({label for _, label in sources.tally(params.data, Path(scratch))})


def describe(params: Params, counts: Counts) -> str:
    """What is still to be written and what the largest training takes, beside what is there."""
    rows = estimate(params, counts)
    machine, writes = resources.memory(), disk_needs(params, counts, rows)
    free = shutil.disk_usage(resources.nearest_folder(DATA)).free
    lines = [f"Disk: {gigabytes(sum(need.bytes for need in writes))} still to be written, {gigabytes(free)} free."]
    largest = sorted(writes, key=lambda need: -need.bytes)[:3]
    lines += [f"  {gigabytes(need.bytes)} {need.what}" for need in largest]
    most = footprints.memory_needs(params, rows, None)[:1]
    lines += [
        f"Memory: at most {gigabytes(need.bytes)} by estimate, in {need.what}; {gigabytes(machine.available)} free of "
        f"{gigabytes(machine.total)} ({machine.origin})."
        for need in most
    ]
    return "\n".join(lines)
