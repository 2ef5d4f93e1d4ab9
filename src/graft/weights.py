"""A base's weights: where they come from, saved with a card that says so, and loaded again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import backbones
from graft.sections import Base
from graft.storage import ArtifactError, read_json, write_json

if TYPE_CHECKING:
    import keras

ARCHITECTURE, WEIGHTS = "base.json", "base.weights.h5"


def obtain_base(base: Base) -> keras.Model:
    """The base with the weights its row asks for; `source` starts random, to be trained by the caller.

    Raises:
        BackboneError: the base cannot be built.
        WeightsError: the weights cannot be had; nothing else is put in their place.
    """
    if base.weights == "imagenet":
        return backbones.imagenet_base(base)
    if base.weights in ("random", "source"):
        return backbones.build_base(base)
    return backbones.file_base(base)


def save_base(folder: Path, model: keras.Model, card: dict[str, Any]) -> None:
    """Write architecture, weights and a card with their hash; equal weights give equal bytes."""
    (folder / ARCHITECTURE).write_text(model.to_json(indent=1), encoding="utf-8")
    model.save_weights(folder / WEIGHTS)
    write_json(
        folder / "card.json",
        {**card, "parameters": model.count_params(), "weights_sha256": file_sha256(folder / WEIGHTS)},
    )


def load_base(folder: Path, expected_sha256: str | None = None) -> keras.Model:
    """The base of a models/source folder.

    Raises:
        ArtifactError: a file is missing, or the weights are not those of the card (or of expected_sha256).
    """
    import keras

    card = read_json(folder / "card.json")
    for wanted in {card["weights_sha256"], expected_sha256 or card["weights_sha256"]}:
        found = file_sha256(folder / WEIGHTS)
        if found != wanted:
            raise ArtifactError(f"{folder / WEIGHTS} must have sha256 {wanted}, received {found}")
    model = keras.models.model_from_json((folder / ARCHITECTURE).read_text(encoding="utf-8"))
    model.load_weights(folder / WEIGHTS)
    return model


def file_sha256(path: Path) -> str:
    """Hex digest of a file.

    Raises:
        ArtifactError: the file is missing.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
