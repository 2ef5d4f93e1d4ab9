"""A base's weights: where they come from, saved with a card that says so, and loaded again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import backbones
from graft.model_files import load_architecture
from graft.sections import Base
from graft.storage import ArtifactError, read_json, write_json

if TYPE_CHECKING:
    import keras

ARCHITECTURE, WEIGHTS, CARD = "base.json", "base.weights.h5", "card.json"
HASHED = {"architecture": ARCHITECTURE, "weights": WEIGHTS}


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
    """Write architecture, weights and a card with their hashes; equal weights give equal bytes."""
    (folder / ARCHITECTURE).write_text(model.to_json(indent=1), encoding="utf-8")
    model.save_weights(folder / WEIGHTS)
    hashes = {f"{name}_sha256": file_sha256(folder / file) for name, file in HASHED.items()}
    write_json(folder / CARD, {**card, "parameters": model.count_params(), **hashes})


def load_base(folder: Path, expected_sha256: str | None = None) -> keras.Model:
    """The base of a models/source folder.

    Raises:
        ArtifactError: a file is missing, unsafe or not that of the card, or the weights are not the expected ones.
    """
    card = read_card(folder)
    found = {name: file_sha256(folder / name) for name in HASHED.values()}
    for name, wanted in (
        (WEIGHTS, card["weights_sha256"]),
        (WEIGHTS, expected_sha256),
        (ARCHITECTURE, card.get("architecture_sha256")),  # None: the base of a model that was registered without
    ):
        if wanted is not None and found[name] != wanted:
            raise ArtifactError(f"{folder / name} must have sha256 {wanted}, received {found[name]}; rerun pretrain")
    return load_architecture(folder / ARCHITECTURE, folder / WEIGHTS)


def read_card(folder: Path) -> dict[str, Any]:
    """What a models/source folder says of its base: where it comes from and the hashes of its files, among them.

    Raises:
        ArtifactError: the card is missing or damaged.
    """
    card = read_json(folder / CARD)
    if not isinstance(card, dict) or not isinstance(card.get("weights_sha256"), str):
        raise ArtifactError(f"{folder / CARD} must give weights_sha256 as text, received {card!r}; rerun pretrain")
    return card


def file_sha256(path: Path) -> str:
    """Hex digest of a file.

    Raises:
        ArtifactError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except OSError as error:
        raise ArtifactError(f"{path} must be a readable file: {error.strerror}") from None
