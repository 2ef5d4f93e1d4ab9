"""A first look at a person's images, from names and file headers, without decoding any."""

from __future__ import annotations

import io
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
from PIL import Image

from graft import sources
from graft.errors import GraftError
from graft.images import FORMATS
from graft.sections import Data, Table

PER_CLASS = 20  # files of a class whose headers are read
GREY = ("1", "L", "LA", "I;16")
COLUMNS = {  # names that people give to the columns of a table, most usual first
    "image": ("image", "path", "image_path", "file", "filename", "file_name", "filepath", "file_path", "img"),
    "label": ("label", "class", "category", "target", "species", "y"),
    "split": ("split", "subset", "set", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id", "scene"),
}
NO_TABLE = Table(file=None, image="path", label="label", split=None, group=None)


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        counts: images by the source's own split (None where it has none) and class.
        rejects: files that are none of its images, by reason.
        widths: px, of up to PER_CLASS images of each class.
        heights: px, of the same images.
        grey: share of these images without colour.
        groups: by class, how many groups the source names; empty where it names none.
    """

    counts: Counter[tuple[str | None, str]]
    rejects: Counter[str]
    widths: list[int]
    heights: list[int]
    grey: float
    groups: Counter[str]

    @property
    def classes(self) -> Counter[str]:
        """Images by class, in the classes' order."""
        counter: Counter[str] = Counter()
        for (_, label), number in sorted(self.counts.items(), key=lambda item: item[0][1]):
            counter[label] += number
        return counter

    @property
    def splits(self) -> Counter[str]:
        """Images by the source's own split; empty where it has none."""
        counter: Counter[str] = Counter()
        for (split, _), number in self.counts.items():
            if split is not None:
                counter[split] += number
        return counter

    @property
    def images(self) -> int:
        """How many there are."""
        return self.counts.total()

    @property
    def imbalance(self) -> float:
        """Images of the largest class for each of the smallest."""
        return max(self.classes.values()) / max(1, min(self.classes.values()))

    @property
    def median_width(self) -> int:
        """Of the images that were looked at, px."""
        return int(np.median(self.widths))

    @property
    def median_height(self) -> int:
        """Of the images that were looked at, px."""
        return int(np.median(self.heights))


def recognise(path: Path) -> tuple[str, Path, Table]:
    """What kind of source a path is: `source`, `path` and `table` of the data section.

    Raises:
        GraftError: it is none, or a table whose columns no one can guess.
    """
    if not path.exists():
        raise GraftError(f"{path} does not exist; it must be a folder, a table or an archive of images")
    if path.is_dir():
        return "folder", path.resolve(), NO_TABLE
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        return "archive", path.resolve(), NO_TABLE  # which reads the content and refuses what it is not
    table = guess_columns(path, _column_names(path))
    if path.suffix.lower() == ".parquet" and _holds_images(path, table.image):
        return "table", path.resolve(), table
    return "table", path.resolve().parent, table.model_copy(update={"file": path.name})


def _column_names(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".parquet":
            return list(pyarrow.parquet.read_schema(path).names)
        return list(pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", nrows=0).columns)
    except (OSError, ValueError) as error:
        raise GraftError(f"{path} is not a readable table: {error}") from None


def _holds_images(path: Path, column: str) -> bool:
    kind = pyarrow.parquet.read_schema(path).field(column).type
    return not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def guess_columns(path: Path, names: list[str]) -> Table:
    """The columns of a table by their names.

    Raises:
        GraftError: none is called as the image's or label's column usually is.
    """
    lower = {name.lower(): name for name in names}
    guessed = {use: next((lower[name] for name in usual if name in lower), None) for use, usual in COLUMNS.items()}
    for use in ("image", "label"):
        if guessed[use] is None:
            raise GraftError(
                f"{path} has no column that looks like the {use} ({', '.join(COLUMNS[use])}); it has: "
                f"{', '.join(names)}; rename one, or name it in params.yaml as data.table.{use}"
            )
    return Table.model_validate({"file": None, **guessed})


def scan(data: Data) -> Found:
    """Look at every name and at the headers of a few images of each class.

    Raises:
        GraftError: the source cannot be used.
    """
    rejects: list[sources.Reject] = []
    looked: Counter[str] = Counter()
    sizes, groups = [], defaultdict(set)
    with tempfile.TemporaryDirectory() as scratch:
        counts = sources.tally(data, Path(scratch))
        for record in sources.records(data, 0, rejects, Path(scratch)):
            if record.group is not None:
                groups[record.label].add(record.group)
            if looked[record.label] < PER_CLASS and (size := _header(record)):
                looked[record.label] += 1
                sizes.append(size)
    if counts.total() and not sizes:
        raise GraftError(f"{data.path} has {counts.total():,} files with the names of images, and none that is one")
    return Found(
        counts,
        Counter(reject.reason for reject in rejects),
        [width for width, _, _ in sizes],
        [height for _, height, _ in sizes],
        float(np.mean([grey for _, _, grey in sizes])) if sizes else 0.0,
        Counter({label: len(names) for label, names in groups.items()}),
    )


def _header(record: sources.Record) -> tuple[int, int, bool] | None:
    """Width, height and whether the image is grey; None where the file says neither."""
    try:
        with Image.open(io.BytesIO(record.read()), formats=FORMATS) as image:
            return image.width, image.height, image.mode in GREY
    except Exception:  # prepare says what is wrong with it
        return None
