"""The types and ranges of the sections of params.yaml by which models are compared; all others: sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from graft.sections import Number, Positive, Section


class Transferability(Section):
    """How a base is judged by its frozen features alone, before it is trained."""

    folds: int = Field(ge=2)  # of the linear probe
    max_points: int = Field(ge=50)  # images in the map of the features


class Inspect(Section):
    """What is looked at inside the trained networks, and how their speed is measured."""

    images: Positive  # whose feature maps and explanations are drawn
    occlusion_stride: Positive  # px, of the patch that is moved across an image; it is twice as wide
    repeats: int = Field(ge=5)  # timings of a prediction, of which the median counts


class Curve(Section):
    """Accuracy against the number of labelled images; rows without a name here are left out."""

    backbones: list[str]
    baselines: list[str]
    per_class: Annotated[list[Positive | Literal["all"]], Field(min_length=1)]  # labelled images to learn from
    seeds: Positive

    @model_validator(mode="after")
    def _lists_distinct_sizes(self) -> Curve:
        for name in ("backbones", "baselines", "per_class"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must list different values, received {values}")
        return self


class Compare(Section):
    """How the models are measured, and how sure that is."""

    confidence: Number = Field(gt=0.5, lt=1)
    resamples: int = Field(ge=100)
    top_k: int = Field(ge=2)  # right where the class is among the k most probable
    calibration_bins: int = Field(ge=2, le=100)  # of confidence, for the expected calibration error
