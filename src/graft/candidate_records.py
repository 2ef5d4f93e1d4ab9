"""One candidate of a grid as the journal records it, checked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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


class _Candidate(_Record):
    name: str = Field(min_length=1)
    phase: str
    params: dict[str, Any]
    history: list[_Epoch]
    chosen: bool

    @model_validator(mode="after")
    def _epochs_ascend(self) -> _Candidate:
        for before, after in itertools.pairwise(self.history):
            if after.epoch <= before.epoch:
                raise ValueError(f"epochs must ascend, received {after.epoch} after {before.epoch}")
        return self


def checked_candidate(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record, where it is one of a candidate.

    Args:
        record: name, phase, params, history (a record for each epoch it was trained, as in training.Outcome; it may
            have been stopped early) and chosen.
        where: the record stands; begins the message.

    Raises:
        ArtifactError: a key is missing or unknown, or a value of a wrong type or not finite; the message names it.
    """
    if not isinstance(record, Mapping):
        raise ArtifactError(f"{where}: expected {', '.join(_Candidate.model_fields)}, received {str(record)[:80]!r}")
    try:
        return _Candidate.model_validate(dict(record)).model_dump()
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    received = "" if fault["type"] in ("missing", "value_error") else f", received {str(fault['input'])[:80]!r}"
    raise ArtifactError(f"{where}: {key and key + ': '}{fault['msg'].removeprefix('Value error, ')}{received}")


def best_epoch(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the lowest validation loss, the first of equals; empty for no epochs."""
    return min(history, key=lambda record: record["val_loss"], default={})
