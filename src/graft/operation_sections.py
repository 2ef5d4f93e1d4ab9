"""The types and ranges of the sections of params.yaml by which runs are published and models answer requests.

They shape no output of a stage: a change trains nothing anew.
"""

from __future__ import annotations

from pydantic import Field

from graft.sections import Number, Positive, Section


class Tracking(Section):
    """How MLflow learns of the runs."""

    experiment: str = Field(min_length=1, max_length=500, pattern=r"\S")
    registered_model: str = Field(min_length=1, max_length=256, pattern=r"^[^/:'\"]*[^/:'\"\s][^/:'\"]*$")
    live: bool  # epochs are published while a training runs; else all at the end, by track


class Serve(Section):
    """What the model's server and `graft predict` accept."""

    port: int = Field(ge=1, le=65535)  # of the model's server, on the loopback interface
    max_request_mb: Number = Field(gt=0)
    max_images: Positive  # in a request
    max_image_mb: Number = Field(gt=0)  # of one file
    max_pixels: Positive  # of one image, before it is decoded
