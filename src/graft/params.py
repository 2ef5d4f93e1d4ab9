"""The types and ranges of params.yaml: one frozen model per section; the values live in the file alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from graft.errors import GraftError

NAME = re.compile(r"[a-z][a-z0-9_]*")
KEYWORD_WEIGHTS = ("imagenet", "random", "source")
NUMERAL = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")  # PyYAML reads 1e-4 as text, DVC as a number

FromText = BeforeValidator(lambda value: float(value) if isinstance(value, str) and NUMERAL.fullmatch(value) else value)
Number = Annotated[float, FromText]
FilePath = Annotated[Path, Field(strict=False)]  # text becomes a path
LearningRate = Annotated[Number, Field(gt=0, le=10)]
Positive = Annotated[int, Field(ge=1)]


class ParamsError(GraftError):
    """params.yaml holds something that no stage could work with."""


class Section(BaseModel):
    """Unknown keys and other types are refused, so that no typo silently means something (there are no defaults)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    """Where the images come from, the shape they get and how they are split."""

    source: Literal["digits", "folder"]
    path: FilePath
    image_size: int = Field(ge=8, le=1024)  # px per side
    resize: Literal["stretch", "crop", "pad"]
    train_per_class: Positive | None
    validation: Number = Field(gt=0, lt=1)
    test: Annotated[Annotated[float, Field(gt=0, lt=1)] | Literal["none"], FromText]

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Data:
        held_out = self.validation + (0.0 if self.test == "none" else self.test)
        if held_out >= 1:
            raise ValueError(f"validation + test must be below 1 to leave training images, received {held_out:g}")
        return self


class Augment(Section):
    """Ranges of the random views; 0 (or false) switches a transformation off."""

    views: Positive
    horizontal_flip: bool
    rotation: Number = Field(ge=0, le=0.5)  # of a full turn, to either side, as in keras.layers.RandomRotation
    zoom: Number = Field(ge=0, lt=1)  # of the size, in or out
    translation: Number = Field(ge=0, lt=1)  # of the size, along either axis
    contrast: Number = Field(ge=0, lt=1)  # factor 1 - c to 1 + c around the mean
    fill: Literal["nearest", "reflect", "constant"]


class Optimisation(Section):
    """What every network's training needs, whatever its architecture."""

    epochs: Positive
    learning_rate: LearningRate
    batch_size: Positive
    patience: Positive  # epochs without a lower validation loss before a phase stops
    optimizer: Literal["sgd", "adam", "adamw"]
    weight_decay: Number = Field(ge=0, le=1)
    schedule: Literal["constant", "cosine"]
    label_smoothing: Number = Field(ge=0, lt=1)


class Pretrain(Section):
    """The labelled source data set on which a base with `weights: source` is trained."""

    source: Literal["glyphs", "folder"]
    path: FilePath
    image_size: int = Field(ge=8, le=1024)
    images_per_class: Positive  # rendered per class by glyphs; a cap for folder
    validation: Number = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _validates_on_every_class(self) -> Pretrain:
        if self.images_per_class * min(self.validation, 1 - self.validation) < 1:
            raise ValueError(
                "images_per_class x validation must leave each class an image to train and one to validate on, "
                f"received {self.images_per_class} x {self.validation:g}"
            )
        return self


class Base(Section):
    """A keras.applications model without its top, and where its weights come from."""

    application: str
    input_size: int = Field(ge=8, le=1024)
    width: Number = Field(gt=0, le=2)
    weights: str  # imagenet, random, source, or a path to a weights file
    depends_on: FilePath  # what DVC watches: the weights file, or the placeholder where there is none

    @model_validator(mode="after")
    def _watches_its_weights_file(self) -> Base:
        if self.weights not in KEYWORD_WEIGHTS and Path(self.weights) != self.depends_on:
            raise ValueError(
                f"depends_on must name the weights file {self.weights} so that DVC sees it change, "
                f"received {self.depends_on}"
            )
        return self


class Features(Section):
    """Where the base is cut for phase 2 and how its last map becomes a vector."""

    pooling: Literal["flatten", "avg", "max"]
    frozen_until: str  # a layer's name, or none: the whole base is trained on the images
    batch_size: Positive


class Finetune(Optimisation):
    """Phase 1 (frozen) is the inherited optimisation; phase 2 (unfrozen) has its own length and rate."""

    unfrozen_epochs: int = Field(ge=0)
    unfrozen_learning_rate: LearningRate
    dropout: Number = Field(ge=0, lt=1)
    train_batch_normalization: bool


class Svm(Section):
    """The grid of the cross-validated search, and the size above which the kernel is approximated."""

    kernels: Annotated[list[Literal["rbf", "linear", "poly"]], Field(min_length=1)]
    c: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=1)]
    folds: int = Field(ge=2)
    max_rows: Positive
    approximation: Literal["linear", "nystroem"]
    components: Positive  # of the Nystroem map


class Backbone(Section):
    """One row: a base, its training on the source data set, and what is trained on top of it."""

    base: Base
    pretrain: Optimisation
    features: Features
    finetune: Finetune
    svm: Svm


class Baseline(Section):
    """A network trained from scratch, its layers as `keras.layers` names with their arguments."""

    input_size: int = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    layers: Annotated[list[dict[str, dict[str, Any]]], Field(min_length=1)]
    train: Optimisation

    @model_validator(mode="after")
    def _one_layer_per_item(self) -> Baseline:
        for index, item in enumerate(self.layers):
            if len(item) != 1:
                raise ValueError(f"layers[{index}] must be one `Layer: {{arguments}}`, received {sorted(item)}")
        return self


class Compare(Section):
    """How the leaderboard's intervals are computed."""

    confidence: Number = Field(gt=0.5, lt=1)
    resamples: int = Field(ge=100)


class Tracking(Section):
    """Names under which MLflow files the runs."""

    experiment: str = Field(min_length=1)
    registered_model: str = Field(min_length=1)


class Params(Section):
    """The whole of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)
    data: Data
    augment: Augment
    pretrain: Pretrain
    backbones: dict[str, Backbone]
    baselines: dict[str, Baseline]
    compare: Compare
    tracking: Tracking

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
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
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
