"""The filters of a network's first layer with what they make of an image, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft.storage import ArtifactError, read_json, write_json

FILE = "first_layer.json"


@dataclass(frozen=True)
class LearnedFilter:
    """One filter.

    Attributes:
        number: among all of its layer, from 0.
        weights: of shape (h, w, 3), by the colours of the image, or (h, w, 1), for grey.
        png: its map of the image, as of tiles.signed_png.
    """

    number: int
    weights: np.ndarray
    png: bytes


@dataclass(frozen=True)
class FirstLayer:
    """The first convolution of a network.

    Attributes:
        layer: its name.
        count: of all its filters.
        size: height and width of its maps, px.
        summed: whether the weights for the three colours were added up, since the image is grey.
        filters: all or some, in falling order of how much their maps vary from place to place.
    """

    layer: str
    count: int
    size: tuple[int, int]
    summed: bool
    filters: Sequence[LearnedFilter]


def write_first_layer(folder: Path, found: FirstLayer | None) -> None:
    """Write into an existing folder; None, of a network without a convolution, is written too."""
    if found is None:
        write_json(folder / FILE, None)
        return
    records = []
    for place, one in enumerate(found.filters):
        file = f"first_layer-{place:02d}.png"
        (folder / file).write_bytes(one.png)
        records.append({"number": one.number, "weights": one.weights.tolist(), "file": file})
    described = {"layer": found.layer, "count": found.count, "size": list(found.size), "summed": found.summed}
    write_json(folder / FILE, described | {"filters": records})


def read_first_layer(folder: Path) -> FirstLayer | None:
    """Read what write_first_layer wrote.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    path = folder / FILE
    try:
        record = read_json(path)
        if record is None:
            return None
        filters = [
            LearnedFilter(one["number"], _weights(one["weights"]), (folder / Path(one["file"]).name).read_bytes())
            for one in record["filters"]
        ]
        height, width = record["size"]
        return FirstLayer(record["layer"], record["count"], (height, width), record["summed"], filters)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} must hold filters as the inspect stages write them: {error!r}") from None
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing; `dvc repro` makes it") from None


def _weights(values: object) -> np.ndarray:
    weights = np.asarray(values, float)
    if weights.ndim != 3 or weights.shape[-1] not in (1, 3):
        raise ValueError(f"weights of shape {weights.shape}, not (h, w, 1 or 3)")
    return weights
