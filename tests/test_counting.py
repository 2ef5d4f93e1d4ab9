from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from networks_on_trial import tiny_params
from ruamel.yaml import YAML

from graft.artifacts import Manifest, write_manifest
from graft.counting import Counts, count_images, made_as_asked

ORIGIN = "counted from the source; copies and what is quarantined may lower it"


def counted(folder: Path, **changes: object) -> Counts:
    return count_images(tiny_params(**changes), folder / "prepared", folder / "dvc.lock")


def prepare(folder: Path, **splits: int) -> None:
    names = [split for split, count in splits.items() for _ in range(count)]
    ids = [str(number) for number in range(len(names))]
    rows = pd.DataFrame({"image_id": ids, "label": "a", "split": names, "group": ids, "source": ids})
    (folder / "prepared").mkdir()
    write_manifest(folder / "prepared", Manifest(rows.assign(width=8, height=8), ("a",)))


def write_lock(path: Path, stage: str, values: dict[str, object]) -> None:
    YAML(typ="safe").dump({"stages": {stage: {"params": {"params.yaml": values}}}}, path)


def test_digits_are_counted_as_prepare_would_split_them(tmp_path: Path) -> None:
    assert counted(tmp_path) == Counts(60, 359, 359, False, ORIGIN)
    assert counted(tmp_path, data__test="none").test == 0


def test_folders_are_counted_by_every_strategy(tmp_path: Path, image_folder: Path) -> None:
    def counts(**changes: object) -> tuple[int, int, int]:
        found = counted(tmp_path, data__source="folder", data__path=str(image_folder), **changes)
        return found.train, found.validation, found.test

    # 8 images of each of 3 classes, of which 0.2 are 1.6
    assert counts(data__train_per_class=None) == (12, 6, 6)
    assert counts(data__train_per_class=3) == (9, 6, 6)
    assert counts(data__split="hash", data__train_per_class=None) == (12, 6, 6)
    assert counts(data__split="hash", data__test="none", data__train_per_class=5) == (15, 6, 0)
    assert counts(data__split="kfold", data__folds=3, data__train_per_class=None)[2] == 6


def test_prepared_images_are_counted_where_they_are_of_these_params(tmp_path: Path) -> None:
    prepare(tmp_path, train=5, validation=2, test=1)
    where = f"counted in {tmp_path}/prepared"
    assert counted(tmp_path) == Counts(5, 2, 1, True, where)
    values = tiny_params().model_dump(mode="json")
    write_lock(tmp_path / "dvc.lock", "prepare", {"data": values["data"], "seed": values["seed"]})
    assert counted(tmp_path) == Counts(5, 2, 1, True, where)
    changed = counted(tmp_path, data__train_per_class=7)
    assert (changed.train, changed.prepared) == (70, False)
    assert "prepared was made with other values of data or seed" in changed.origin


def test_images_that_an_older_version_prepared_are_counted_from_the_source(tmp_path: Path) -> None:
    """They are refused by whoever reads them, and `dvc repro`, which this must not stop, prepares them anew."""
    prepare(tmp_path, train=5, validation=3, test=2)
    table = tmp_path / "prepared" / "manifest.parquet"
    pd.read_parquet(table).to_parquet(table)  # says no schema
    found = counted(tmp_path)
    assert (found.train, found.prepared) == (60, False)
    assert "or by an older version" in found.origin


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        ({"backbones.vgg16.base": {"width": 0.1}}, False),
        ({"backbones.vgg16.finetune.weight_decay": 0.0001, "seed": 1}, True),
        ({"seed": 2}, False),
        ({"a.key.that.went": 1}, False),
    ],
)
def test_a_stage_is_as_asked_where_dvc_recorded_these_values(
    tmp_path: Path, recorded: dict[str, object], same: bool
) -> None:
    lock = tmp_path / "dvc.lock"
    assert made_as_asked(tiny_params(), lock, "stage")
    write_lock(lock, "stage", recorded)
    assert made_as_asked(tiny_params(), lock, "stage") == same
    assert made_as_asked(tiny_params(), lock, "another")
