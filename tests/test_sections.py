from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from networks_on_trial import tiny_params
from pydantic import ValidationError

from graft.operation_sections import Tracking
from graft.params import ParamsError, load_params
from graft.sections import Data, Train

DIGITS = tiny_params().data.model_dump()


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as error:
        Data(**DIGITS | changes)
    return str(error.value)


def test_a_fold_is_one_of_the_folds() -> None:
    assert Data(**DIGITS | {"folds": 3, "fold": 2}).fold == 2
    assert "fold must be below folds (3), counted from 0, received 3" in refused(folds=3, fold=3)


def test_something_is_left_to_train_on() -> None:
    assert "validation + test must be below 1 to leave training images, received 1.1" in refused(
        validation=0.6, test=0.5
    )
    assert Data(**DIGITS | {"validation": 0.6, "test": "none"}).test == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "random"}, "'stratified', 'group', 'hash', 'predefined' or 'kfold'"),
        ({"source": "s3"}, "'digits', 'folder', 'table' or 'archive'"),
        ({"near_duplicates": {"distance": 16, "correlation": 0.99}}, "less than or equal to 15"),
        ({"near_duplicates": {"distance": 8, "correlation": 1.01}}, "less than or equal to 1"),
        ({"max_invalid_fraction": -0.1}, "greater than or equal to 0"),
        ({"min_side": 0}, "greater than or equal to 1"),
        ({"table": {"file": None, "image": "path", "label": "label", "split": None}}, "table.group"),
        ({"max_pixel": 5}, "Extra inputs are not permitted"),
    ],
)
def test_what_no_stage_could_work_with_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(**changes)


def test_only_a_table_with_a_group_column_can_be_split_by_group() -> None:
    message = "split is group, but only a table says which images belong together: name its column in table.group"
    assert message in refused(split="group")
    assert message in refused(split="group", source="table")
    table = DIGITS["table"] | {"group": "patient"}
    assert Data(**DIGITS | {"split": "group", "source": "table", "table": table}).split == "group"


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "it's", "a" * 257])
def test_a_registered_model_has_a_name_that_mlflow_takes(name: str) -> None:
    with pytest.raises(ValidationError, match="registered_model"):
        Tracking(experiment="graft", registered_model=name, live=False)
    assert Tracking(experiment="graft", registered_model="Ants & bees", live=False).registered_model == "Ants & bees"


def test_class_weights_are_none_or_balanced() -> None:
    assert Train(class_weights="balanced", repeats=1, memory_gb=8, abstain_accuracy=0.99).class_weights == "balanced"
    with pytest.raises(ValidationError, match="'none' or 'balanced'"):
        Train(class_weights="auto", repeats=1, memory_gb=8, abstain_accuracy=0.99)


def test_a_mistake_is_named_by_its_key_and_the_file(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("  fold: 0 ", "  fold: 7 ").replace("min_side: 8", "min_side: 0")
    )
    with pytest.raises(ParamsError, match=r"(?s)params.yaml has . fault.*data.min_side: input should be greater"):
        load_params(tmp_path / "params.yaml")
