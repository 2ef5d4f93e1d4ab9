"""Each mistake is one clear error before any training starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from networks_on_trial import tiny_params

from graft import preflight
from graft.params import ParamsError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbones__vgg16__base__application": "VGG6"},
            r"backbones\.vgg16\.base\.application: .*must be one of .*received 'VGG6'; did you mean VGG16\?",
        ),
        (
            {"backbones__vgg16__features__frozen_until": "block9"},
            r"backbones\.vgg16\.features: frozen_until must be a layer of vgg16 or none, received 'block9'",
        ),
        (
            {"backbones__vgg16__features__svm_layers": ["top", "block9"]},
            r"backbones\.vgg16\.features: svm_layers must be top or layers of vgg16, received 'block9'; close to it: b",
        ),
        (
            {"backbones__vgg16__base__weights": "imagenet"},
            r"backbones\.vgg16\.base: ImageNet weights of VGG16 exist at width 1 only, received width 0\.1",
        ),
        (
            {"backbones__vgg16__base__weights": "gone.h5", "backbones__vgg16__base__depends_on": "gone.h5"},
            r"backbones\.vgg16\.base: weights must be one of .* or an existing file, received 'gone\.h5'",
        ),
        ({"baselines__cnn__layers": [{"Convolution": {}}]}, r"baselines\.cnn: layers\[0\] must name a class"),
    ],
)
def test_a_model_that_cannot_be_built_is_named_by_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        preflight.check_before_training(tiny_params(**change))


def test_more_folds_than_labels_are_refused() -> None:
    with pytest.raises(
        ParamsError,
        match=r"svm\.folds must not exceed .*, received 7 where class 'any' has 6",
    ):
        preflight.check_data(tiny_params(backbones__vgg16__svm__folds=7))


def test_folders_that_cannot_be_learnt_from_are_refused(image_folder: Path) -> None:
    def check() -> None:
        preflight.check_data(tiny_params(data__source="folder", data__path=str(image_folder)))

    check()
    for file in sorted((image_folder / "bees").iterdir())[1:]:
        file.unlink()
    with pytest.raises(ParamsError, match=r"(?s)data: .*class 'bees' has 1 image"):
        check()
    next((image_folder / "bees").iterdir()).unlink()
    with pytest.raises(ParamsError, match=r"(?s)data: .*class 'bees' has 0 image"):
        check()
    shutil.rmtree(image_folder)
    with pytest.raises(ParamsError, match=r"data\.path: .*photos does not exist"):
        check()


def test_what_passed_is_not_built_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny_params()
    preflight.check_before_training(params)
    monkeypatch.setattr(preflight, "check_models", lambda params: pytest.fail("built again"))
    preflight.check_before_training(params)
    with pytest.raises(pytest.fail.Exception, match="built again"):
        preflight.check_before_training(tiny_params(backbones__vgg16__base__width=0.2))
