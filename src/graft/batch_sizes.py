"""`batch_size: auto` becomes a number before a training starts, the same on every machine.

It follows from params, counts and shapes alone, and so from what a run's key covers: an interrupted training goes on
with the batch size that it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from graft import runtime
from graft.errors import GraftError
from graft.sections import Optimisation
from graft.training_memory import TrainingMemory

if TYPE_CHECKING:
    from graft.params import Params

AUTO: Final = "auto"
FEW, MANY = 200, 20_000  # training images below which, and from which on, batches are smaller and larger than usual
SMALL, USUAL, LARGE = 16, 32, 64


class BatchSizeError(GraftError):
    """No batch fits into the memory that params.yaml allows."""


def wanted(images: int) -> int:
    """Rows of a batch that suit so many training images: enough steps in an epoch, few enough of them to be fast."""
    return SMALL if images < FEW else USUAL if images < MANY else LARGE


def settle(key: str, images: int, estimates: Sequence[TrainingMemory], memory_gb: float) -> int:
    """The wanted size, halved until each phase's estimate is within the bound.

    Args:
        key: of params.yaml, for messages.
        images: that are trained on.
        estimates: of the phases, which follow one another.
        memory_gb: bound in 10^9 bytes, train.memory_gb.

    Raises:
        BatchSizeError: not even one row fits.
    """
    size, bound = wanted(images), memory_gb * 10**9
    while size >= 1:
        if all(estimate.bytes(size) <= bound for estimate in estimates):
            return size
        size //= 2
    least = max(estimate.bytes(1) for estimate in estimates) / 10**9
    raise BatchSizeError(
        f"{key}: auto must find a batch whose training is estimated at no more than train.memory_gb, received "
        f"{memory_gb:g} where one row takes {least:.2f} GB; raise it if the machine has more, or lower the input size"
    )


def settled(
    params: Params,
    section: Literal["pretrain", "finetune", "train"],
    row: str,
    *,
    images: int,
    estimates: Callable[[], Sequence[TrainingMemory]],
) -> Params:
    """The params with a number in place of a row's `batch_size: auto`; the same params where a number is there.

    Args:
        params: of the run.
        section: of the row: a backbone's pretrain or finetune, a baseline's train.
        row: its name.
        images: that are trained on.
        estimates: build what is trained, and are asked for `auto` alone; what they leave behind in Keras is cleared.

    Raises:
        BatchSizeError: not even one row fits into train.memory_gb.
    """
    rows, kind = (params.baselines, "baselines") if section == "train" else (params.backbones, "backbones")
    values: Optimisation = getattr(rows[row], section)
    if values.batch_size != AUTO:
        return params
    runtime.configure(params.seed)
    key = f"{kind}.{row}.{section}.batch_size"
    size = settle(key, images, estimates(), params.train.memory_gb)
    runtime.configure(params.seed)  # names and seeds start anew: the training is that of the number itself
    print(f"{key}: auto is {size}, for {images:,} images and train.memory_gb {params.train.memory_gb:g}", flush=True)
    changed = rows[row].model_copy(update={section: values.model_copy(update={"batch_size": size})})
    return params.model_copy(update={kind: {**rows, row: changed}})
