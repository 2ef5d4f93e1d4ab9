from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import tiny_params

from graft import crossvalidation
from graft.artifacts import Predictions
from graft.crossvalidation import aggregate, cross_validate, to_markdown
from graft.errors import GraftError
from graft.evaluation import evaluate

CLASSES = ("a", "b")


def fold(validated: dict[str, tuple[int, float]], tested: dict[str, tuple[int, float]]) -> dict[str, Predictions]:
    """One model's predictions: label and probability of class b by image."""
    split = [("validation", *item) for item in validated.items()] + [("test", *item) for item in tested.items()]
    rows = pd.DataFrame([(image, name, CLASSES[label]) for name, image, (label, _) in split])
    rows.columns = ["image_id", "split", "label"]
    chances = np.array([chance for _, _, (_, chance) in split])
    return {"cnn": Predictions(rows, np.column_stack([1 - chances, chances]), CLASSES)}


def table(*folds: Any, groups: dict[str, str] | None = None) -> pd.DataFrame:
    alone = {image: image for one in folds for image in one["cnn"].rows["image_id"]}
    return aggregate(folds, {"cnn": "baseline"}, tiny_params().compare, seed=1, groups=groups or alone)


TESTED = [{"t": (0, 0.2), "u": (1, 0.4)}, {"t": (0, 0.1), "u": (1, 0.9)}]
FOLDS = [
    fold({"v": (0, 0.25), "w": (1, 0.5 + 1e-9), "x": (1, 0.2)}, TESTED[0]),
    fold({"y": (0, 0.2), "z": (1, 0.8)}, TESTED[1]),
]


def test_folds_are_pooled_by_hand() -> None:
    """Right: v and w of three, y and z of two; of the test images one, then both."""
    row = table(*FOLDS).iloc[0]
    assert (row["folds"], row["n"], row["n_test"]) == (2, 5, 2)
    assert row["accuracy"] == pytest.approx(4 / 5)
    assert row["fold_accuracy_mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["fold_accuracy_sd"] == pytest.approx(np.std([2 / 3, 1], ddof=1))
    assert row["test_accuracy_mean"] == pytest.approx(0.75)
    assert row["log_loss"] == pytest.approx(-np.log([0.75, 0.5, 0.2, 0.8, 0.8]).mean(), rel=1e-6)
    chances = np.array([0.25, 0.5 + 1e-9, 0.2, 0.2, 0.8])
    pooled = evaluate(
        np.array([0, 1, 1, 0, 1]), np.column_stack([1 - chances, chances]), None, tiny_params().compare, 1
    )
    assert [row["accuracy"], row["accuracy_low"], row["accuracy_high"]] == pooled.loc["accuracy"].tolist()


def test_images_of_one_group_are_resampled_together() -> None:
    row = table(*FOLDS, groups={"v": "one", "w": "one", "x": "one", "y": "two", "z": "two"}).iloc[0]
    chances = np.array([0.25, 0.5 + 1e-9, 0.2, 0.2, 0.8])
    groups = np.array(["one", "one", "one", "two", "two"], object)
    pooled = evaluate(
        np.array([0, 1, 1, 0, 1]), np.column_stack([1 - chances, chances]), groups, tiny_params().compare, 1
    )
    assert [row["accuracy"], row["accuracy_low"], row["accuracy_high"]] == pooled.loc["accuracy"].tolist()
    assert row["accuracy_low"] < table(*FOLDS).iloc[0]["accuracy_low"]


def test_the_table_in_words() -> None:
    text = to_markdown(table(*FOLDS), 0.95)
    assert "2 folds, 5 images each validated once" in text
    assert "| cnn | baseline | 80.0% (" in text
    assert "75.0% ± 35.4%" in text
    assert "| - |" in to_markdown(table(fold({"v": (0, 0.2)}, {}), fold({"w": (1, 0.7)}, {})), 0.95)


def test_folds_of_different_data_are_not_pooled() -> None:
    with pytest.raises(GraftError, match="cnn validated an image in two folds"):
        table(FOLDS[0], FOLDS[0])
    with pytest.raises(GraftError, match="different test images"):
        table(FOLDS[0], fold({"y": (0, 0.2)}, {"t": (0, 0.1)}))


def test_without_folds_in_the_params_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"data.split must be kfold to cross-validate, received 'stratified'"):
        cross_validate(tiny_params(), tmp_path, tmp_path)


def test_a_failed_fold_stops_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def fail(command: list[str], **options: Any) -> Any:
        calls.append(command)
        return subprocess.CompletedProcess(command, len(calls) - 1)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(GraftError, match=r"fold 1 failed: `dvc exp run --temp .* data.fold=1` ended with 1"):
        cross_validate(tiny_params(data__split="kfold"), tmp_path, tmp_path)
    assert [command[-1] for command in calls] == ["data.fold=0", "data.fold=1"]


def test_both_reports_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny_params(data__split="kfold", data__folds=2, backbones={})
    monkeypatch.setattr(crossvalidation, "_run_fold", lambda root, name, number: None)
    monkeypatch.setattr(crossvalidation, "_read_fold", lambda root, name, models: FOLDS[int(name[-1])])
    monkeypatch.setattr(crossvalidation, "_read_groups", lambda root, names: {image: image for image in "vwxyz"})
    frame = cross_validate(params, tmp_path, tmp_path / "reports")
    assert pd.read_csv(tmp_path / "reports/cv.csv")["n"].tolist() == frame["n"].tolist() == [5]
    assert (tmp_path / "reports/cv.md").read_text() == to_markdown(frame, params.compare.confidence)
