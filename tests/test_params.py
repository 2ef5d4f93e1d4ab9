from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from graft.params import Params, ParamsError, load_params, row

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """The committed params.yaml with one key set (or, without a value, deleted)."""

    def edit(key: str, *value: Any) -> Path:
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        if value:
            node[last] = value[0]
        else:
            del node[last]
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return edit


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "backbones.vgg16.finetune.learning_rate",
            -0.1,
            r"finetune\.learning_rate: .*greater than 0, received -0\.1",
        ),
        ("backbones.vgg16.finetune.epochs", 2.5, r"finetune\.epochs: .*integer.*, received 2\.5"),
        ("backbones.vgg16.features.pooling", "mean", r"features\.pooling: .*'max' or 'min', received 'mean'"),
        ("backbones.vgg16.base.widht", 1, r"backbones\.vgg16\.base\.widht is not a known key"),
        ("data.validation", "many", r"data\.validation: .*number.*, received 'many'"),
        ("data.test", 0.9, r"data: validation \+ test must be below 1 to leave training images, received 1\.1"),
        ("augment.rotation", 0.6, r"augment\.rotation: .*less than or equal to 0\.5, received 0\.6"),
        ("seed", -1, r"seed: .*greater than or equal to 0, received -1"),
        ("backbones.vgg16.svm.c", [], r"svm\.c: .*at least 1 item.*, received \[\]"),
        ("backbones.vgg16.base.weights", "mine.h5", r"base: depends_on must name the weights file mine\.h5"),
        ("seed", True, r"seed: .*integer, received True"),
        ("seed", "1", r"seed: .*integer, received '1'"),
        ("augment.views", True, r"augment\.views: .*integer, received True"),
        ("augment.horizontal_flip", "off", r"horizontal_flip: .*boolean, received 'off'"),
        ("augment.zoom", False, r"augment\.zoom: .*number, received False"),
        ("data.test", True, r"data\.test.*: .*number, received True"),
        ("backbones.vgg16.svm.folds", "5", r"svm\.folds: .*integer, received '5'"),
        ("backbones.vgg16.svm.folds", 5.0, r"svm\.folds: .*integer, received 5\.0"),
        ("backbones.vgg16.svm.c", [1, float("inf")], r"svm\.c\.1: .*finite number, received inf"),
        ("backbones.vgg16.svm.c", [True], r"svm\.c\.0: .*number, received True"),
        ("augment.rotation", float("nan"), r"augment\.rotation: .*finite number, received nan"),
        ("backbones.vgg16.finetune.learning_rate", "-1e-4", r"learning_rate: .*greater than 0, received '-1e-4'"),
        ("data.path", 3, r"data\.path: .*path.*, received 3"),
        ("backbones.vgg16.base.weights", 1, r"base\.weights: .*string, received 1"),
        ("baselines.cnn.layers", [{"Flatten": {}, "Dense": {}}], r"layers\[0\] must be one `Layer: \{arguments\}`"),
    ],
)
def test_a_wrong_value_is_named_with_key_and_file(
    edited: Callable[..., Path], key: str, value: Any, message: str
) -> None:
    path = edited(key, value)
    with pytest.raises(ParamsError, match=message) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_a_missing_key_is_named(edited: Callable[..., Path]) -> None:
    with pytest.raises(ParamsError, match=r"data\.image_size is missing"):
        load_params(edited("data.image_size"))


def test_every_fault_is_reported_at_once(edited: Callable[..., Path]) -> None:
    path = edited("seed", "x")
    values = yaml.safe_load(path.read_text())
    del values["compare"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=r"(?s)2 fault\(s\).*seed:.*compare is missing"):
        load_params(path)


@pytest.mark.parametrize("name", ["vgg-svm", "VGG", "1st", "a b"])
def test_a_model_needs_a_plain_name(edited: Callable[..., Path], name: str) -> None:
    """A hyphen would let a row collide with the SVM of another."""
    path = edited("backbones.vgg16")
    values = yaml.safe_load(path.read_text())
    values["backbones"][name] = values["backbones"]["resnet50"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match="a model is named with a-z"):
        load_params(path)


@pytest.mark.parametrize("section", ["backbones", "baselines"])
def test_no_model_may_take_the_folder_of_the_bases(edited: Callable[..., Path], section: str) -> None:
    path = edited("seed", 1)
    values = yaml.safe_load(path.read_text())
    values[section]["source"] = next(iter(values[section].values()))
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=r"models/source holds the trained bases: .*, received 'source'"):
        load_params(path)


def test_one_name_for_a_backbone_and_a_baseline_is_refused(edited: Callable[..., Path]) -> None:
    path = edited("seed", 1)
    values = yaml.safe_load(path.read_text())
    values["baselines"]["vgg16"] = values["baselines"]["cnn"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match="received in both: vgg16"):
        load_params(path)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+.1e-3", "10.e-5"])
def test_yaml_1_1_floats_are_understood(edited: Callable[..., Path], text: str) -> None:
    """PyYAML reads 1e-4 as text, DVC as a number; both must mean the same."""
    path = edited("backbones.vgg16.finetune.learning_rate", 0.123)
    path.write_text(path.read_text().replace("0.123", text))
    assert load_params(path).backbones["vgg16"].finetune.learning_rate == pytest.approx(1e-4, rel=1e-12)
    path = edited("data.test", 0.123)
    path.write_text(path.read_text().replace("0.123", text))
    assert load_params(path).data.test == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.parametrize("mode", ["python", "json"])
def test_dumped_params_are_read_again(mode: str) -> None:
    params = load_params(ROOT / "params.yaml")
    assert Params.model_validate(params.model_dump(mode=mode)) == params


def test_a_missing_file_or_a_folder_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="is a folder; name the file in it"):
        load_params(tmp_path)


@pytest.mark.parametrize("content", [b"seed: [1", b"seed: 1 # \xe9t\xe9", b"seed: \x00"])
def test_a_broken_file_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=r"params.yaml is not valid YAML: "):
        load_params(tmp_path / "params.yaml")


def test_models_lists_baselines_backbones_and_their_svms() -> None:
    params = load_params(ROOT / "params.yaml")
    models = params.models()
    assert models["cnn"] == "baseline"
    assert models["vgg16"] == "finetune"
    assert models["vgg16-svm"] == "svm"


def test_an_unknown_row_lists_the_known_ones() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ParamsError, match=r"backbones has no row 'vgg'; it has: .*resnet50"):
        row(params.backbones, "vgg", "backbones")
