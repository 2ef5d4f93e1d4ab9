from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo

from graft.workspace_differences import (
    EXCLUDED,
    Excluded,
    differences,
    excluded_fields,
    output_differences,
    pipeline_outputs,
)

STAGES = {
    "prepare": {"cmd": "true", "outs": ["data/prepared"]},
    "svm": {"foreach": ["a", "b"], "do": {"cmd": "true", "deps": ["data/prepared"], "outs": ["reports/runs/${item}"]}},
}


def workspace(root: Path, probability: float = 0.25) -> Path:
    """A pipeline of three stages with an output each."""
    for name in ("a", "b"):
        run = root / "reports/runs" / name
        run.mkdir(parents=True)
        pd.DataFrame({"image_id": ["x", "y"], "p:ants": [0.5, probability]}).to_parquet(run / "predictions.parquet")
        (run / "timings.json").write_text(json.dumps({"train_seconds": probability}))
        (run / "journal.jsonl").write_text(
            json.dumps({"record": "start", "key": "k", "started": probability}) + "\n"
            + json.dumps({"record": "system", "metrics": {"cpu": probability}}) + "\n"
            + json.dumps({"record": "epoch", "metrics": {"loss": 0.5}, "time": probability}) + "\n"
        )  # fmt: skip
    (root / "data/prepared").mkdir(parents=True)
    (root / "data/prepared/classes.json").write_text("[]")
    Repo.init(str(root), no_scm=True).close()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    return root


def test_equal_workspaces_differ_in_nothing(tmp_path: Path) -> None:
    one, other = workspace(tmp_path / "one"), workspace(tmp_path / "other")
    assert list(differences(one, other)) == []


def test_a_probability_is_named_by_file_row_and_column_and_timings_are_no_results(tmp_path: Path) -> None:
    one, other = workspace(tmp_path / "one"), workspace(tmp_path / "other", probability=0.75)
    assert list(differences(one, other)) == [
        f"reports/runs/{name}/predictions.parquet: row 1, column p:ants: 0.25 against 0.75" for name in ("a", "b")
    ]
    assert len(list(differences(one, other, stages=["svm@b"]))) == 1


def test_a_file_that_one_lacks_is_a_difference(tmp_path: Path) -> None:
    one, other = workspace(tmp_path / "one"), workspace(tmp_path / "other")
    (one / "reports/runs/a/search.csv").write_text("c\n1\n")
    (other / "data/prepared/classes.json").unlink()
    assert list(differences(one, other)) == [
        f"data/prepared/classes.json: only in {one}",
        f"reports/runs/a/search.csv: only in {one}",
    ]


def test_an_output_that_both_lack_is_a_difference(tmp_path: Path) -> None:
    assert list(output_differences(tmp_path, tmp_path, ["models/cnn"])) == ["models/cnn: in neither workspace"]


def test_what_is_no_output_any_more_is_not_compared(tmp_path: Path) -> None:
    one, other = workspace(tmp_path / "one"), workspace(tmp_path / "other")
    (one / "reports/runs/removed").mkdir()
    (one / "reports/runs/removed/summary.json").write_text("{}")
    assert list(differences(one, other)) == []


def test_outputs_are_those_of_the_pipeline_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(tmp_path / "one")
    expected = {"prepare": ["data/prepared"], "svm@a": ["reports/runs/a"], "svm@b": ["reports/runs/b"]}
    assert pipeline_outputs(root) == expected
    monkeypatch.chdir(root)
    assert pipeline_outputs(Path()) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("reports/runs/cnn/predictions.parquet", ()),
        ("reports/metrics/test/cnn.json", ()),
        ("models/cnn/model.keras", ()),
        ("reports/runs/cnn/timings.json", ("*",)),
        ("reports/rows/cnn/inspect/cnn/timings.json", ("*",)),
        ("reports/tables/curve.csv", ("latency_ms*", "throughput", "*seconds", "pareto")),
    ],
)
def test_what_is_left_out_of_a_file_stands_in_one_list(path: str, expected: tuple[str, ...]) -> None:
    assert excluded_fields(path) == expected


def test_every_exclusion_has_a_reason_and_stands_once() -> None:
    assert all(isinstance(one, Excluded) and one.reason for one in EXCLUDED)
    assert len({(one.files, field) for one in EXCLUDED for field in one.fields}) == sum(
        len(one.fields) for one in EXCLUDED
    )
