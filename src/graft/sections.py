"""The types and ranges of each section of params.yaml, one frozen model per section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

KEYWORD_WEIGHTS = ("imagenet", "random", "source")
NUMERAL = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")  # PyYAML reads 1e-4 as text, DVC as a number

FromText = BeforeValidator(lambda value: float(value) if isinstance(value, str) and NUMERAL.fullmatch(value) else value)
Number = Annotated[float, FromText]
FilePath = Annotated[Path, Field(strict=False)]  # text becomes a path
LearningRate = Annotated[Number, Field(gt=0, le=10)]
Positive = Annotated[int, Field(ge=1)]
Dropout = Annotated[Number, Field(ge=0, lt=1)]
MOST_CUTS = 12  # each doubles the ways of keeping activations that are weighed
HiddenUnits = Annotated[int, Field(ge=0)]  # of a hidden ReLU layer between features and classes; 0: none


class Section(BaseModel):
    """Unknown keys and other types are refused, so that no typo silently means something (there are no defaults)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Table(Section):
    """Where a table stands and which of its columns say what; used by `source: table` alone."""

    file: str | None  # below data.path; null where data.path is itself the table
    image: str  # column of paths below data.path, or of the bytes of image files
    label: str
    split: str | None
    group: str | None


class NearDuplicates(Section):
    """When two images count as the same picture: the hash proposes, the pixels confirm."""

    distance: int = Field(ge=0, le=15)  # Hamming, of 64-bit perceptual hashes
    correlation: Number = Field(gt=0.5, le=1)  # Pearson's, of the pixels; 1 leaves identical pixels alone


class Data(Section):
    """Where the images come from, what is refused, the shape they get and how they are split."""

    source: Literal["digits", "folder", "table", "archive"]
    path: FilePath
    table: Table
    image_size: int = Field(ge=8, le=1024)  # px per side
    resize: Literal["stretch", "crop", "pad"]
    min_side: Positive  # px
    max_pixels: Positive
    max_invalid_fraction: Number = Field(ge=0, le=1)
    near_duplicates: NearDuplicates
    split: Literal["stratified", "group", "hash", "predefined", "kfold"]
    validation: Number = Field(gt=0, lt=1)
    test: Annotated[Annotated[float, Field(gt=0, lt=1)] | Literal["none"], FromText]
    folds: int = Field(ge=2)
    fold: int = Field(ge=0)
    train_per_class: Positive | None

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Data:
        held_out = self.validation + (0.0 if self.test == "none" else self.test)
        if held_out >= 1:
            raise ValueError(f"validation + test must be below 1 to leave training images, received {held_out:g}")
        return self

    @model_validator(mode="after")
    def _says_where_groups_are_named(self) -> Data:
        if self.split == "group" and (self.source != "table" or self.table.group is None):
            raise ValueError(
                "split is group, but only a table says which images belong together: name its column in table.group, "
                f"received source {self.source} with table.group {self.table.group}"
            )
        return self

    @model_validator(mode="after")
    def _has_the_fold(self) -> Data:
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), counted from 0, received {self.fold}")
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
    batch_size: Positive | Literal["auto"]  # auto: by the training images, halved until it fits into train.memory_gb
    patience: Positive  # epochs without a lower validation loss before a phase stops
    optimizer: Literal["sgd", "adam", "adamw"]
    weight_decay: Number = Field(ge=0, le=1)
    schedule: Literal["constant", "cosine"]
    label_smoothing: Number = Field(ge=0, lt=1)

    @property
    def rows_per_step(self) -> int:
        """The batch size as a number, which `auto` must have become before anything is trained."""
        if self.batch_size == "auto":
            raise ValueError("batch_size: auto must be settled before training, received it unsettled")
        return self.batch_size


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


class FeatureStorage(Section):
    """How much of the disk activations may take, and as what they are kept."""

    max_gb: Number = Field(ge=0)  # of one backbone's activations, every copy counted; within it the cheapest plan
    store_gb: Number = Field(ge=0)  # of the store that outlives the stage's outputs, all backbones together
    storage: Literal["float32", "float16"]


Pooling = Literal["flatten", "avg", "max", "min"]  # of maps to a vector; all but flatten are global


class Features(Section):
    """Where the base is cut for phase 2, and how maps become the vectors that heads and SVMs stand on."""

    pooling: Pooling
    # A layer's name; several, of which phase 2 tries each; or none: the whole base is trained on the images.
    frozen_until: str | Annotated[list[str], Field(min_length=1, max_length=MOST_CUTS)]
    svm_layers: Annotated[list[str], Field(min_length=1)]  # that the SVM stands on, concatenated; top: as the heads
    svm_pooling: Pooling  # of the others of svm_layers
    batch_size: Positive

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers at which the base is cut, as listed; empty where it is trained whole."""
        listed = [self.frozen_until] if isinstance(self.frozen_until, str) else self.frozen_until
        return () if listed == ["none"] else tuple(listed)

    @model_validator(mode="after")
    def _lists_distinct_svm_layers(self) -> Features:
        if len(set(self.svm_layers)) < len(self.svm_layers):
            raise ValueError(f"svm_layers must list top or different layers, received {self.svm_layers}")
        return self

    @model_validator(mode="after")
    def _lists_distinct_layers(self) -> Features:
        if len(set(self.cuts)) < len(self.cuts) or "none" in self.cuts:
            raise ValueError(
                f"frozen_until must be a layer, none, or a list of different layers, received {self.frozen_until}"
            )
        return self


class Grid(Section):
    """Lists of values, of which every combination is trained once."""

    @model_validator(mode="after")
    def _lists_distinct_values(self) -> Grid:
        for name, values in self:
            if isinstance(values, list) and len(set(values)) < len(values):
                raise ValueError(f"{name} must list different values, received {values}")
        return self


class Heads(Grid):
    """A grid of heads: every combination is trained in phase 1, all of them in one pass."""

    learning_rate: Annotated[list[LearningRate], Field(min_length=1)]
    dropout: Annotated[list[Dropout], Field(min_length=1)]
    hidden_units: Annotated[list[HiddenUnits], Field(min_length=1)]


class Tails(Grid):
    """A grid of second phases: every combination, with every layer of frozen_until, starts from phase 1's head."""

    unfrozen_learning_rate: Annotated[list[LearningRate], Field(min_length=1)]
    batch_size: Annotated[list[Positive], Field(min_length=1)]
    halving: int = Field(ge=1)  # 1: all train in full; h: of each round only the best 1/h go on


class Finetune(Optimisation):
    """Phase 1 (frozen) is the inherited optimisation; phase 2 (unfrozen) has its own length and rate."""

    unfrozen_epochs: int = Field(ge=0)
    unfrozen_learning_rate: LearningRate
    dropout: Dropout
    hidden_units: HiddenUnits
    train_batch_normalization: bool
    heads: Heads | None  # in place of learning_rate, dropout and hidden_units
    tails: Tails | None  # in place of unfrozen_learning_rate, and of batch_size in phase 2


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

    engine: Literal["keras", "numpy"]  # numpy: the package's own layers, from convolution to backpropagation
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


class Train(Section):
    """What holds for the training of every model."""

    class_weights: Literal["none", "balanced"]  # balanced: an image counts inversely to its class's share
    repeats: int = Field(ge=1, le=100)  # trainings of every model, each from a seed of its own; the first is kept
    memory_gb: Number = Field(gt=0)  # that a training with `batch_size: auto` may be estimated to take
    abstain_accuracy: Number = Field(gt=0, le=1)  # of what is answered: below it, a prediction abstains
