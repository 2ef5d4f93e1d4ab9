"""Refusals of what does not fit on the machine: they say what is needed, what is free and which key lowers it.

Nothing here shapes an output.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError
from graft.machine_memory import Memory, memory

if TYPE_CHECKING:
    from graft.params import Params

SPARE_DISK = 2 * 10**8  # bytes that stay free: journals, reports, MLflow's database
ALLOCATION_FAILED = ("out of memory", "failed to allocate", "oom when allocating", "alloc_failed")


class ResourceError(GraftError):
    """The machine has not what the work needs."""


class OutOfMemoryError(ResourceError):
    """Memory ran out during the work; the message says what it was doing and what to reduce."""


@dataclass(frozen=True)
class Need:
    """Bytes that some work takes.

    Attributes:
        what: takes them.
        bytes: of the disk still to be written, or of memory at the peak.
        reduce: the keys of params.yaml that lower it, with their values now.
        path: of the folder that is written; None for memory.
    """

    what: str
    bytes: int
    reduce: str
    path: Path | None = None


def nearest_folder(path: Path) -> Path:
    """The path, or what is there of the folders above it."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def folder_bytes(path: Path) -> int:
    """What a file or folder takes; a file of several names in it counts once, links not at all, nothing as 0."""
    if not path.is_dir():
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                state = os.lstat(os.path.join(folder, name))
                if not os.path.islink(os.path.join(folder, name)):
                    sizes[state.st_dev, state.st_ino] = state.st_size
    return sum(sizes.values())


def check_disk(needs: Sequence[Need]) -> None:
    """Refuse work that would fill a disk; folders on the same one are added up.

    Raises:
        ResourceError: says for each such disk what is needed for what, what is free, where, and what lowers it.
    """
    disks: dict[int, list[Need]] = defaultdict(list)
    for need in needs:
        if need.bytes > 0 and need.path is not None:
            disks[nearest_folder(need.path).stat().st_dev].append(need)
    faults = []
    for wanted in disks.values():
        free = shutil.disk_usage(nearest_folder(_path(wanted[0]))).free
        total = sum(need.bytes for need in wanted) + SPARE_DISK
        if total > free:
            faults.append(_disk_fault(wanted, total, free))
    if faults:
        raise ResourceError("\n".join(faults))


def _path(need: Need) -> Path:
    assert need.path is not None
    return need.path


def _disk_fault(wanted: Sequence[Need], total: int, free: int) -> str:
    largest = sorted(wanted, key=lambda need: -need.bytes)
    lines = [
        f"the disk of {nearest_folder(_path(largest[0]))} must have {gigabytes(total)} free for what is still to be "
        f"written, received {gigabytes(free)} free; `graft gc` frees what is not needed any more. In order of size:"
    ]
    lines += [f"  {gigabytes(need.bytes)} {need.what} in {need.path}; less with {need.reduce}" for need in largest]
    return "\n".join([*lines, f"  {gigabytes(SPARE_DISK)} to spare"])


def check_memory(needs: Sequence[Need], machine: Memory) -> None:
    """Refuse work that, one piece after another, would run out of memory.

    Raises:
        ResourceError: says for each such piece what it is estimated to need, what there is, and what lowers it.
    """
    faults = []
    for need in needs:
        if need.bytes > machine.available:
            where = f"{gigabytes(machine.available)} free of {gigabytes(machine.total)} ({machine.origin})"
            faults.append(
                f"{need.what} needs about {gigabytes(need.bytes)} of memory, received {where}; less with {need.reduce}"
            )
    if faults:
        raise ResourceError("\n".join(faults))


def gigabytes(number: float) -> str:
    """Bytes as people read them: 0.02 GB, 1.5 GB, 120 GB."""
    giga = number / 10**9
    return f"{giga:.0f} GB" if giga >= 99.5 else f"{giga:.1f} GB" if giga >= 0.95 else f"{giga:.2f} GB"


@contextmanager
def named_memory_errors(params: Params, verb: str, row: str) -> Iterator[None]:
    """Errors for lack of memory, of Python, NumPy, the system or TensorFlow, become one that says what to reduce.

    Args:
        params: of the run.
        verb: the stage's: pretrain, features, baseline, finetune, svm, curve or curve_baseline.
        row: of params.backbones or params.baselines.

    Raises:
        OutOfMemoryError: in place of them.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        machine = memory()
        lines = str(error).strip().splitlines()
        raise OutOfMemoryError(
            f"{verb} {row} ran out of memory ({lines[0][:200] if lines else type(error).__name__}), where there are "
            f"{gigabytes(machine.total)} ({machine.origin}); it needs less with {reductions(params, verb, row)}. What "
            "was finished is kept for the same values of params.yaml"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    tensorflow = sys.modules.get("tensorflow")  # never imported for this
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return False
    told = str(error).lower()
    return isinstance(error, tensorflow.errors.ResourceExhaustedError) or any(w in told for w in ALLOCATION_FAILED)


def reductions(params: Params, verb: str, row: str) -> str:
    """The keys that lower the memory of a stage, each with its value now, the most effective first."""
    if row in params.baselines:
        values = params.baselines[row]
        found: Mapping[str, Any] = {
            f"baselines.{row}.train.batch_size": values.train.batch_size,
            f"baselines.{row}.input_size": values.input_size,
            "data.image_size": params.data.image_size,
        }
        return _listed(found) + ", or fewer or narrower layers"
    return _listed(_of_backbone(params, verb, row)) + _advice(verb)


def _of_backbone(params: Params, verb: str, row: str) -> dict[str, Any]:
    key, values = f"backbones.{row}", params.backbones[row]
    size = {f"{key}.base.input_size": values.base.input_size}
    images = {"data.image_size": params.data.image_size}
    if verb == "pretrain":
        images = {"pretrain.image_size": params.pretrain.image_size}
        return {f"{key}.pretrain.batch_size": values.pretrain.batch_size} | size | images
    if verb == "features":
        return {f"{key}.features.batch_size": values.features.batch_size} | size | images
    if verb == "svm":
        pooling: dict[str, Any] = (
            {f"{key}.features.pooling": values.features.pooling} if values.features.pooling == "flatten" else {}
        )
        if values.features.svm_layers != ["top"]:
            named = {f"{key}.features.svm_layers": values.features.svm_layers}
            pooling = {f"{key}.features.svm_pooling": values.features.svm_pooling} | named
        views = {"augment.views": params.augment.views}
        return pooling | views | size | {f"{key}.svm.max_rows": values.svm.max_rows}
    batch: dict[str, Any] = {f"{key}.finetune.batch_size": values.finetune.batch_size}
    if values.finetune.tails:
        batch[f"{key}.finetune.tails.batch_size"] = values.finetune.tails.batch_size
    frozen = {f"{key}.features.frozen_until": values.features.frozen_until}
    return batch | size | images | frozen | {"features.storage": params.features.storage}


def _advice(verb: str) -> str:
    if verb in ("finetune", "curve"):
        return ": smaller batches and images, fewer layers unfrozen (a later cut), rows kept as float16"
    return ": smaller values need less"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} (now {value})" for key, value in values.items())
