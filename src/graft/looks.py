"""The figures of the look inside a model, as files: looks.json with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graft.reporting.comparison import Look, Tile
from graft.storage import ArtifactError, read_json, write_json

LOOKS = "looks.json"


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
