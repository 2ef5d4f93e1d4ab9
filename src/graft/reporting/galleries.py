"""Small pictures of single images: what the champion got wrong, what it nearly got wrong, and suspected labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions
from graft.looks import Tile
from graft.shards import Shards
from graft.storage import ArtifactError
from graft.tiles import fitted, to_png

TILES, SUSPECTS = 12, 24
SIDE = 96  # px; larger images are shrunk to it, smaller ones enlarged to as many whole pixels as fit


def mistakes_and_doubts(
    predictions: Predictions, split: str, manifest: Manifest, images: Shards
) -> tuple[list[Tile], list[Tile]]:
    """The most confident mistakes, and the right answers of least confidence, up to TILES of each.

    Args:
        predictions: of one model.
        split: whose images are shown.
        manifest: of the images.
        images: row i is row i of the manifest.

    Raises:
        ArtifactError: a predicted image is not in the manifest.
    """
    labels, probabilities = predictions.split(split)
    identifiers = predictions.rows["image_id"].to_numpy(object)[(predictions.rows["split"] == split).to_numpy()]
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = predicted == labels
    # Ties go to the lower row, so that equal predictions give equal galleries.
    mistakes = np.flatnonzero(~right)[np.argsort(-confidence[~right], kind="stable")][:TILES]
    doubts = np.flatnonzero(right)[np.argsort(confidence[right], kind="stable")][:TILES]

    def tiles(chosen: np.ndarray) -> list[Tile]:
        rows = _positions(identifiers[chosen], manifest)
        sources = manifest.rows["source"].to_numpy(object)[rows]
        return [
            Tile(
                png=to_png(thumbnail(picture)),
                caption=f"{100 * confidence[place]:.0f} %",
                title=str(source),
                true=predictions.classes[labels[place]],
                predicted=predictions.classes[predicted[place]],
            )
            for place, source, picture in zip(chosen, sources, images[rows], strict=True)
        ]

    return tiles(mistakes), tiles(doubts)


def suspect_tiles(suspects: pd.DataFrame, manifest: Manifest, images: Shards) -> list[Tile]:
    """Pictures of the first suspects, up to SUSPECTS, in their order.

    Each tile has the given label as true and the suggested one as predicted.

    Args:
        suspects: as from suspects.find_suspects.
        manifest: of the images.
        images: row i is row i of the manifest.

    Raises:
        ArtifactError: a suspect is not in the manifest.
    """
    shown = suspects.head(SUSPECTS)
    rows = _positions(shown["image_id"].to_numpy(object), manifest)
    columns = [shown[name].tolist() for name in ("source", "label", "suggested", "probability_of_suggested", "split")]
    return [
        Tile(to_png(thumbnail(picture)), f"{100 * probability:.0f} %, {split}", str(source), label, suggested)
        for picture, source, label, suggested, probability, split in zip(images[rows], *columns, strict=True)
    ]


def _positions(identifiers: Sequence[str] | np.ndarray, manifest: Manifest) -> np.ndarray:
    rows = pd.Index(manifest.rows["image_id"]).get_indexer(pd.Index(identifiers, dtype=object))
    if (rows < 0).any():
        raise ArtifactError(f"image {np.asarray(identifiers)[rows < 0][0]!r} is not in the manifest; `dvc repro` helps")
    return rows


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """RGB 0..255 (height, width, 3) of at most SIDE px; small pictures are enlarged without blur."""
    largest = max(picture.shape[:2])
    return fitted(picture, SIDE if largest > SIDE else SIDE // largest * largest)
