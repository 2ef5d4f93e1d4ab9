"""How many images a run would train, validate and test on, known before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from graft import sources, splits
from graft.artifacts import SPLITS, read_manifest
from graft.params import Params
from graft.sections import Data
from graft.storage import FACTS


@dataclass(frozen=True)
class Counts:
    """Images of each split.

    Attributes:
        train: after the cap of data.train_per_class.
        validation: images.
        test: images.
        prepared: whether they are those of the prepared folder, not of a listing of the source.
        origin: where they were counted, for people.
    """

    train: int
    validation: int
    test: int
    prepared: bool
    origin: str


def count_images(params: Params, prepared: Path, lock: Path) -> Counts:
    """The images of the prepared folder, if it was made with these params, else those that the source lists.

    Args:
        params: of the run to come.
        prepared: the prepared folder, which need not be there.
        lock: dvc.lock, which knows the params that prepare was last run with and need not be there.

    Raises:
        SourceError: the source cannot be read.
        SplitError: a class would be absent from a split.
        ArtifactError: the prepared folder is damaged.
    """
    made = (prepared / "manifest.parquet").exists()
    if made and has_schema(prepared / "manifest.parquet") and made_as_asked(params, lock, "prepare"):
        counted = Counter(read_manifest(prepared).rows["split"])
        train, validation, test = (counted[split] for split in SPLITS)
        return Counts(train, validation, test, True, f"counted in {prepared}")
    with TemporaryDirectory() as scratch:
        tally = sources.tally(params.data, Path(scratch))
    why = f"{prepared} was made with other values of data or seed, or by an older version; " if made else ""
    origin = f"counted from the source; {why}copies and what is quarantined may lower it"
    train, validation, test = _split(tally, params.data, params.seed)
    return Counts(train, validation, test, False, origin)


def has_schema(table: Path) -> bool:
    """Whether a version of Graft wrote it that says schemas; of one before, `dvc repro` makes it anew."""
    try:
        return FACTS in (pq.read_schema(table).metadata or {})
    except (OSError, pa.ArrowException):
        return True  # damaged: whoever reads it says how


def made_as_asked(params: Params, lock: Path, stage: str) -> bool:
    """Whether a stage last ran with the values that it would get now; so assumed where DVC recorded no run of it."""
    if not lock.exists():
        return True
    stages = YAML(typ="safe").load(lock).get("stages", {})  # as DVC writes and reads it: YAML 1.2
    recorded: dict[str, Any] = stages.get(stage, {}).get("params", {}).get("params.yaml", {})
    values = params.model_dump(mode="json")
    try:
        return all(reduce(getitem, key.split("."), values) == value for key, value in recorded.items())
    except KeyError:  # another version's
        return False


def _split(tally: Counter[tuple[str | None, str]], data: Data, seed: int) -> tuple[int, int, int]:
    """Images of each split if every one that is listed were usable and no two alike."""
    if data.split in ("group", "hash"):  # of whose draws a listing says nothing
        return _expected(tally, data)
    from graft.duplicates import Duplicates

    given, labels = np.array(sorted(tally.elements(), key=str), object).reshape(-1, 2).T
    number = np.arange(len(labels))
    rows = pd.DataFrame({"label": labels, "split": given, "group": None, "pixel_id": number})
    drawn, order = splits.assign_splits(rows, Duplicates(number, np.empty((0, 2), int)), data, seed)
    counted = Counter(splits.cap_training(labels, drawn, order, data.train_per_class).tolist())
    return counted["train"], counted["validation"], counted["test"]


def _expected(tally: Counter[tuple[str | None, str]], data: Data) -> tuple[int, int, int]:
    """The fractions of each class, as they hold on average."""
    train = validation = test = 0
    for label in {label for _, label in tally}:
        images = sum(number for (_, name), number in tally.items() if name == label)
        held_out = round(data.validation * images), 0 if data.test == "none" else round(data.test * images)
        rest = images - sum(held_out)
        train += rest if data.train_per_class is None else min(rest, data.train_per_class)
        validation, test = validation + held_out[0], test + held_out[1]
    return train, validation, test
