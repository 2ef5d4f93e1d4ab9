"""What is known of an image beside its label, by which its slice is found: attributes.parquet of the data report."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from graft.artifacts import Manifest
from graft.storage import ArtifactError, read_table, write_table

FILE = "attributes.parquet"
TABLE = "table:"  # prefix of the columns that come from a table source
MOST_VALUES = 1000  # different texts of a column; one with more holds numbers, or says nothing of kinds of images
NO_NUMBER = {"", "na", "n/a", "none", "null"}  # words for it in columns of numbers, in any case


class AttributeColumns:
    """The attributes of many images, column by column: a twentieth of the memory of a mapping per image."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._rows = 0

    def add(self, attributes: Mapping[str, str | None] | None) -> None:
        """Append an image's; all images of a source have the same names, or none has any."""
        if not self._rows and attributes:
            self._columns = {name: _Column() for name in attributes}
        self._rows += 1
        for name, column in self._columns.items():
            column.add((attributes or {}).get(name))

    def frame(self) -> pd.DataFrame:
        """One row per image, in the order of their coming: text, or numbers where more than MOST_VALUES differ.

        Columns with more than MOST_VALUES different texts that are not all numbers (names, captions) are left out.
        """
        kept = {name: column.values() for name, column in self._columns.items() if not column.dropped}
        return pd.DataFrame(kept, index=pd.RangeIndex(self._rows))


class _Column:
    """One column: codes of the texts that were seen, or numbers as soon as these are too many."""

    def __init__(self) -> None:
        self.dropped = False
        self._texts: dict[str, int] = {}
        self._codes = array("i")
        self._numbers: array[float] | None = None

    def add(self, text: str | None) -> None:
        if self.dropped:
            return
        if self._numbers is None and text is not None and text not in self._texts and len(self._texts) == MOST_VALUES:
            self._become_numbers()
        if self._numbers is None:
            self._codes.append(-1 if text is None else self._texts.setdefault(text, len(self._texts)))
        else:
            self._append_number(text)

    def values(self) -> pd.Series:
        """The column: categories of text, or float64."""
        if self._numbers is None:
            return pd.Series(
                pd.Categorical.from_codes(np.array(self._codes, np.int64), pd.Index(list(self._texts), dtype="str"))
            )
        return pd.Series(np.array(self._numbers, np.float64))

    def _become_numbers(self) -> None:
        texts, codes = [*self._texts, None], self._codes
        self._numbers, self._codes, self._texts = array("d"), array("i"), {}
        for code in codes:
            self._append_number(texts[code])  # the code -1 is the last: None

    def _append_number(self, text: str | None) -> None:
        number = as_number(text or "")
        if number is None:
            self.dropped, self._numbers = True, None
        elif self._numbers is not None:
            self._numbers.append(number)


def as_number(text: str) -> float | None:
    """The finite number that a text says, NaN for a word that says there is none, None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return math.nan if text.strip().lower() in NO_NUMBER else None
    return number if math.isfinite(number) else math.nan


def write_attributes(folder: Path, image_ids: pd.Series, brightness: pd.Series, further: pd.DataFrame) -> None:
    """Write attributes.parquet into a folder.

    Args:
        folder: where it goes.
        image_ids: of the images, in manifest order.
        brightness: mean of all channels of each whole picture, before it was resized, 0..255.
        further: what a table says of the same images, as AttributeColumns.frame; no columns where there is none.
    """
    columns: dict[str, pd.Series | np.ndarray] = {"image_id": image_ids.to_numpy(), "brightness": brightness.to_numpy()}
    for name, values in further.items():
        # As plain text, for the categories' order is the source's and a renamed file must change nothing.
        plain = values.astype("str") if isinstance(values.dtype, pd.CategoricalDtype) else values
        columns[f"{TABLE}{name}"] = plain.reset_index(drop=True)
    write_table(folder / FILE, pd.DataFrame(columns))


def read_attributes(folder: Path, manifest: Manifest) -> pd.DataFrame:
    """The attributes of the manifest's images: image_id, brightness (0..255) and, prefixed TABLE, a table's columns.

    Raises:
        ArtifactError: the file is missing or damaged, or row i is not of the manifest's image i.
    """
    path = folder / FILE
    frame = read_table(path, ("image_id", "brightness"))
    if not np.array_equal(frame["image_id"].to_numpy(object), manifest.rows["image_id"].to_numpy(object)):
        raise ArtifactError(f"{path} is not of the images of this manifest; rerun prepare")
    return frame
