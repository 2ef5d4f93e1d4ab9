"""The figures of the look inside a model, and their files: looks.json with the pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graft.storage import ArtifactError, read_json, write_json

LOOKS = "looks.json"


@dataclass(frozen=True)
class Tile:
    """A small picture with what stands under it.

    Attributes:
        png: the picture.
        caption: a few words; may be empty.
        title: what a pointer shows, such as the file's name; may be empty.
        true: the actual class where the caption names a prediction; else empty.
        predicted: the predicted class, likewise.
    """

    png: bytes
    caption: str
    title: str = ""
    true: str = ""
    predicted: str = ""


@dataclass(frozen=True)
class Look:
    """One figure of the look inside a model.

    Attributes:
        name: filters, feature_maps, grad_cam or occlusion.
        title: heading.
        text: what is to be seen, and what it cannot tell.
        tiles: in rows of one length where `columns` is given.
        columns: tiles in a row; 0 where they flow.
    """

    name: str
    title: str
    text: str
    tiles: Sequence[Tile]
    columns: int = 0


def write_looks(folder: Path, looks: Sequence[Look]) -> None:
    """Write looks into an existing folder; the pictures are named by look and place."""
    records = []
    for look in looks:
        tiles = []
        for number, tile in enumerate(look.tiles):
            file = f"{look.name}-{number:02d}.png"
            (folder / file).write_bytes(tile.png)
            tiles.append({"file": file} | {key: value for key, value in asdict(tile).items() if key != "png"})
        described = {"name": look.name, "title": look.title, "text": look.text, "columns": look.columns}
        records.append(described | {"tiles": tiles})
    write_json(folder / LOOKS, records)


def read_looks(folder: Path) -> list[Look]:
    """Read what write_looks wrote, in its order.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    path = folder / LOOKS
    try:
        return [_look(folder, record) for record in read_json(path)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} must hold looks as the inspect stages write them: {error!r}") from None
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing; `dvc repro` makes it") from None


def _look(folder: Path, record: dict[str, Any]) -> Look:
    tiles = []
    for tile in record["tiles"]:
        file = folder / Path(tile["file"]).name
        tiles.append(Tile(file.read_bytes(), tile["caption"], tile["title"], tile["true"], tile["predicted"]))
    return Look(record["name"], record["title"], record["text"], tiles, record["columns"])
