"""One candidate of a grid, and one repeated training, as the journal records them, checked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from graft.storage import ArtifactError


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Epoch(_Record):
    epoch: int = Field(ge=1)
    phase: str
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


def _ascending(history: list[_Epoch]) -> list[_Epoch]:
    for before, after in itertools.pairwise(history):
        if after.epoch <= before.epoch:
            raise ValueError(f"epochs must ascend, received {after.epoch} after {before.epoch}")
    return history


_History = Annotated[list[_Epoch], AfterValidator(_ascending)]


class _Candidate(_Record):
    name: str = Field(min_length=1)
    phase: str
    params: dict[str, Any]
    history: _History
    chosen: bool


class _Repeat(_Record):
    name: str = Field(min_length=1)
    seed: int = Field(ge=0)
    history: _History
    metrics: dict[str, float]


def checked_candidate(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record, where it is one of a candidate.

    Args:
        record: name, phase, params, history (a record for each epoch it was trained, as in training.Outcome; it may
            have been stopped early) and chosen.
        where: the record stands; begins the message.

    Raises:
        ArtifactError: a key is missing or unknown, or a value of a wrong type or not finite; the message names it.
    """
    return _checked(_Candidate, record, where)


def checked_repeat(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record, where it is one of a repeated training.

    Args:
        record: name, seed, history (as of a candidate; empty for models that are not trained by epochs) and metrics
            (numbers by name, of the finished training).
        where: the record stands; begins the message.

    Raises:
        ArtifactError: as of checked_candidate.
    """
    return _checked(_Repeat, record, where)


def _checked(kind: type[_Candidate | _Repeat], record: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise ArtifactError(f"{where}: expected {', '.join(kind.model_fields)}, received {str(record)[:80]!r}")
    try:
        return kind.model_validate(dict(record)).model_dump()
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    received = "" if fault["type"] in ("missing", "value_error") else f", received {str(fault['input'])[:80]!r}"
    raise ArtifactError(f"{where}: {key and key + ': '}{fault['msg'].removeprefix('Value error, ')}{received}")


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the lowest validation loss, the first of equals; empty for no epochs."""
    return min(history, key=lambda record: record["val_loss"], default={})
