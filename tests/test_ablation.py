from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml
from networks_on_trial import ROOT, tiny_params
from test_ablation_tables import outcome, table
from tiny_project import TinyProject, commit, every_kind_of_stage, new_project
from typer.testing import CliRunner

from graft import ablation
from graft.ablation import AblationError, Variant, ablate, plan_variants, variant_params
from graft.artifacts import read_predictions
from graft.commands.ablation import ablation as command
from graft.params import Params, ParamsError, load_params
from graft.storage import read_json
from graft.store import FeatureStore

SHAPES = {32: (1, 1, 8), 64: (2, 2, 8), 96: (3, 3, 8), 128: (4, 4, 8)}


@pytest.fixture
def no_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.map_sizes, "map_shape", lambda base, size: SHAPES[size])
    monkeypatch.setattr(ablation.map_sizes, "input_for_map", lambda base, side: 96)


def planned(**changes: Any) -> list[Variant]:
    asked = {"backbones": ["vgg16"], "poolings": ["flatten", "avg"], "hidden_units": [0], "input_size": None}
    return list(plan_variants(tiny_params(), **asked | changes))


@pytest.mark.usefixtures("no_bases")
def test_every_combination_is_trained_once_and_one_svm_for_each_pooling() -> None:
    variants = planned(backbones=["vgg16", "mobilenet", "vgg16"], hidden_units=[0, 8])
    assert [(each.backbone, each.pooling, each.hidden_units) for each in variants] == [
        (name, pooling, units) for name in ("vgg16", "mobilenet") for pooling in ("flatten", "avg") for units in (0, 8)
    ]
    assert [each.targets for each in variants[:2]] == [["finetune@vgg16", "svm@vgg16"], ["finetune@vgg16"]]
    assert str(variants[1]) == "vgg16 at 96 px, flatten of 3x3x8, 8 hidden units"


@pytest.mark.usefixtures("no_bases")
def test_an_input_size_holds_for_every_base() -> None:
    assert {each.map_shape for each in planned(backbones=["vgg16", "mobilenet"], input_size=128)} == {(4, 4, 8)}


@pytest.mark.usefixtures("no_bases")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"backbones": ["vgg61"]}, ParamsError, "backbones has no row 'vgg61'; it has: mobilenet, vgg16"),
        ({"poolings": ["flatten", "mean"]}, AblationError, "among flatten, avg, max, min, received mean"),
        ({"hidden_units": [-1]}, AblationError, "must be 0 .* or more, received -1"),
        ({"backbones": []}, AblationError, "there must be a backbone, a pooling and a head"),
        (
            {"input_size": 64},
            AblationError,
            "last map of vgg16 must be at least 3x3 .* received 2x2 at input size 64; .* large enough from 96 px on",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        planned(**changes)


def test_a_variant_changes_its_row_and_nothing_else() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    before = yaml.safe_dump(values)
    changed = variant_params(values, Variant("resnet50", 96, (3, 3, 8), "max", 128, with_svm=True))
    assert yaml.safe_dump(values) == before
    (row,) = changed["backbones"].values()
    was = values["backbones"]["resnet50"]
    assert row["base"] == was["base"] | {"input_size": 96}
    assert row["features"] == was["features"] | {"pooling": "max", "svm_layers": ["top"]}
    assert row["finetune"] == was["finetune"] | {"hidden_units": 128}
    assert row["svm"] == was["svm"]
    for section in ("seed", "data", "augment", "pretrain", "train", "features", "compare"):
        assert changed[section] == values[section]
    Params.model_validate(changed)


def test_a_grid_of_heads_is_of_the_variants_hidden_units() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    grid = {"learning_rate": [1e-3, 1e-2], "dropout": [0], "hidden_units": [0, 64, 128]}
    values["backbones"]["vgg16"]["finetune"]["heads"] = grid
    changed = variant_params(values, Variant("vgg16", 96, (3, 3, 8), "avg", 32, with_svm=False))
    assert changed["backbones"]["vgg16"]["finetune"]["heads"] == grid | {"hidden_units": [32]}


def test_the_command_asks_for_every_row_and_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def fake(params_file: Path, root: Path, reports: Path, **chosen: Any) -> pd.DataFrame:
        asked.append(chosen)
        return table(outcome("avg", {4})).assign(commit="abc", dirty=False)

    monkeypatch.setattr(ablation, "ablate", fake)
    monkeypatch.chdir(ROOT)
    app = typer.Typer()
    app.command()(command)
    assert "| vgg16 | no hidden layer | avg |" in CliRunner().invoke(app, [], catch_exceptions=False).output
    arguments = ["--backbone", "vgg16", "--pooling", "avg", "--pooling", "min", "--hidden", "64", "--input-size", "128"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    rows = list(load_params(ROOT / "params.yaml").backbones)
    everything = {"poolings": ("flatten", "avg", "max", "min"), "hidden_units": (0, 128), "input_size": None}
    assert asked == [
        {"backbones": rows} | everything,
        {"backbones": ["vgg16"], "poolings": ["avg", "min"], "hidden_units": [64], "input_size": 128},
    ]


def narrow(values: dict[str, Any]) -> dict[str, Any]:
    """A VGG16 a tenth as wide that is trained for two epochs, and fewer images."""
    values = every_kind_of_stage(values)
    values["data"] |= {"validation": 0.1, "test": 0.1}
    row = values["backbones"]["vgg16"]
    row["base"]["width"] = 0.1
    row["pretrain"]["epochs"] = 1
    row["features"]["frozen_until"] = "block5_conv2"
    row["finetune"] |= {"epochs": 2, "unfrozen_epochs": 1, "heads": None, "tails": None}
    return values


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a project but those of the ablation, Git's and what DVC remembers for itself."""
    apart = (".git", ".work", ".dvc", "reports/ablation.csv", "reports/ablation.md")
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): (root / path).read_bytes() for path in files if not str(path).startswith(apart)}


def interrupted_at(call: int) -> Callable[..., int]:
    """DVC's runs in the second workspace, of which one is interrupted before it does anything."""
    calls: list[str] = []
    real = ablation.reproduce

    def reproduce(workspace: Path, targets: list[str]) -> int:
        calls.append(targets[0])
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(workspace, targets)

    return reproduce


def by_hand(project: TinyProject, pooling: str) -> TinyProject:
    """The same project, its stages run with the variant in its own params.yaml."""
    project.change("backbones.vgg16.base.input_size", 96)
    project.change("backbones.vgg16.features.pooling", pooling)
    project.dvc("repro", "finetune@vgg16", "svm@vgg16")
    return project


@pytest.mark.slow
def test_the_table_holds_what_stages_run_by_hand_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    project = new_project(tmp_path / "project", narrow)
    root, before = project.root, contents(project.root)
    monkeypatch.chdir(root)
    asked: dict[str, Any] = {"backbones": ["vgg16"], "poolings": ["flatten", "avg"], "hidden_units": [0]}
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "reproduce", interrupted_at(2))
        with pytest.raises(KeyboardInterrupt):
            ablate(root / "params.yaml", root, root / "reports", **asked)
    assert contents(root) == before
    assert not (root / "reports/ablation.csv").exists()

    capfd.readouterr()
    ablate(root / "params.yaml", root, root / "reports", **asked)
    written = capfd.readouterr().out
    first, second = written.split("ablation: vgg16 at 96 px, avg")
    assert "Running stage" not in first  # nothing that was done is done again
    assert "Stage 'pretrain@vgg16' didn't change" in second
    (store,) = (root / ablation.FOLDER).rglob(".store/features")
    spaces = FeatureStore(store, 0).spaces()
    assert sorted(space.description["point"] for space in spaces) == ["block5_conv2", "top", "top"]
    assert len({space.rows for space in spaces}) == 1  # what the poolings share is computed once
    assert contents(root) == before

    found = pd.read_csv(root / "reports/ablation.csv").set_index(["pooling", "kind"])
    hand = new_project(tmp_path / "hand", narrow)
    for pooling in ("flatten", "avg"):
        by_hand(hand, pooling)
        of_base = read_json(hand.root / "models/source/vgg16/card.json")["parameters"]
        for kind, model in (("finetune", "vgg16"), ("svm", "vgg16-svm")):
            run, row = hand.root / "reports/runs" / model, found.loc[(pooling, kind)]
            labels, probabilities = read_predictions(run / "predictions.parquet").split("test")
            assert row["test_accuracy"] == (probabilities.argmax(axis=1) == labels).mean()
            assert row["n_test"] == len(labels)
            assert row["head_parameters"] == read_json(run / "summary.json")["parameters"] - of_base
            assert row["repeats"] == 2
    assert "the lecture's rule, Flatten" in (root / "reports/ablation.md").read_text()


@pytest.mark.slow
def test_a_stage_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = new_project(tmp_path / "project", narrow)
    stage = project.root / "src/graft/stages/prepare.py"
    stage.write_text("raise SystemExit('no')\n")
    commit(project)
    monkeypatch.chdir(project.root)
    asked: dict[str, Any] = {"backbones": ["vgg16"], "poolings": ["avg"], "hidden_units": [0]}
    with pytest.raises(AblationError, match=r"vgg16 at 96 px, avg .* failed: `dvc repro finetune@vgg16 svm@vgg16`"):
        ablate(project.root / "params.yaml", project.root, project.root / "reports", **asked)
    assert not (project.root / "reports/ablation.csv").exists()
