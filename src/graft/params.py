"""params.yaml as a whole, read and checked; the values live in the file alone, their types in sections.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from graft.comparison_sections import Compare, Curve, Inspect, Transferability
from graft.errors import GraftError
from graft.operation_sections import Serve, Tracking
from graft.sections import (
    Augment,
    Backbone,
    Baseline,
    Data,
    FeatureStorage,
    Pretrain,
    Section,
    Train,
)

NAME = re.compile(r"[a-z][a-z0-9_]*")


class ParamsError(GraftError):
    """params.yaml holds something that no stage could work with."""


class Params(Section):
    """The whole of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)
    data: Data
    augment: Augment
    pretrain: Pretrain
    train: Train
    features: FeatureStorage
    backbones: dict[str, Backbone]
    baselines: dict[str, Baseline]
    transferability: Transferability
    inspect: Inspect
    curve: Curve
    compare: Compare
    tracking: Tracking
    serve: Serve

    @model_validator(mode="after")
    def _names_are_distinct_and_plain(self) -> Params:
        names = [*self.backbones, *self.baselines]
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"a model is named with a-z, 0-9 and _, starting with a letter, received {name!r}")
        if "source" in names:
            raise ValueError("models/source holds the trained bases: a model has another name, received 'source'")
        if not names:
            raise ValueError("backbones and baselines are both empty: there is nothing to train")
        if both := sorted(set(self.backbones) & set(self.baselines)):
            raise ValueError(f"a name may stand in backbones or in baselines, received in both: {', '.join(both)}")
        return self

    @model_validator(mode="after")
    def _curve_names_rows(self) -> Params:
        for section, rows in (("backbones", self.backbones), ("baselines", self.baselines)):
            if unknown := sorted(set(getattr(self.curve, section)) - set(rows)):
                raise ValueError(f"curve.{section} must name rows of {section}, received {', '.join(unknown)}")
        return self

    def models(self) -> dict[str, str]:
        """Every trained model's name and its kind (baseline, finetune or svm), in leaderboard-independent order."""
        return (
            dict.fromkeys(self.baselines, "baseline")
            | dict.fromkeys(self.backbones, "finetune")
            | {f"{name}-svm": "svm" for name in self.backbones}
        )


Row = TypeVar("Row")


def row(rows: dict[str, Row], name: str, section: str) -> Row:
    """The row called name.

    Raises:
        ParamsError: there is none; the message lists those there are.
    """
    if name not in rows:
        raise ParamsError(f"{section} has no row {name!r}; it has: {', '.join(sorted(rows)) or 'none'}")
    return rows[name]


def load_params(path: Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        ParamsError: the file cannot be read as YAML, or a key is unknown, missing, of a wrong type or out of range.
            Every fault is named with its key, what was expected, what was received, and the file.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run from the project's top folder or name the file") from None
    except IsADirectoryError:
        raise ParamsError(f"{path} is a folder; name the file in it") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(detail)}" for detail in error.errors())
        raise ParamsError(f"{path} has {error.error_count()} fault(s):\n{faults}") from None


def _fault(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "(top level)"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":  # our own messages already say what was received
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, received {detail['input']!r}"
