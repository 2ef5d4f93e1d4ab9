from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import learnable_digits, tiny_params
from PIL import Image

from graft import extraction
from graft.artifacts import read_images, read_manifest, read_predictions
from graft.curve_files import ALL, read_curve
from graft.curve_fits import CurveError
from graft.errors import GraftError
from graft.params import Params
from graft.runs import RunPaths
from graft.serving import load_classifier
from graft.stages import augment, baseline, curve, curve_baseline, features, finetune, prepare, pretrain, svm
from graft.storage import read_json

SEEDS = 2


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sixty images of three digits, prepared and augmented, and a MobileNet's features."""
    root = tmp_path_factory.mktemp("curve")
    pixels, labels = learnable_digits(16)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / "photos" / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    params = tiny_params(
        data__source="folder", data__path=str(root / "photos"), data__train_per_class=8, data__image_size=32,
        curve__seeds=SEEDS, curve__per_class=[1, 20],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        prepared, augmented = root / "prepared", root / "augmented"
        prepare.run(params.data, params.seed, prepared, root / "report")
        augment.run(params.augment, params.seed, prepared, augmented, root / "preview.png")
        pretrain.run(params, "mobilenet", root / "source")
        features.run(
            params, "mobilenet", prepared=prepared, augmented=augmented, source=root / "source",
            out=root / "features", store=None,
        )  # fmt: skip
        yield root, params


def base_folders(root: Path) -> dict[str, Path]:
    return {name: root / name for name in ("prepared", "augmented", "features", "source")}


def measured(root: Path, params: Params, out: str) -> pd.DataFrame:
    """The predictions of the curve stage."""
    curve.run(params, "mobilenet", **base_folders(root), out=root / out, work=root / ".work" / out)
    return read_curve(root / out)[0]


@pytest.fixture(scope="module")
def transferred(project: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    root, params = project
    measured(root, params, "whole")
    return read_curve(root / "whole")


def own(root: Path, stage: Any, params: Params, name: str, **folders: Path) -> list[str]:
    """What the pipeline's own stage predicts for the held-out images."""
    paths = RunPaths(root / "models", root / "run", root / "metrics.json", root / "history.csv")
    stage.run(params, name, **folders, paths=paths, key=f"key-{name}")
    found = read_predictions(root / "run/predictions.parquet")
    return np.array(found.classes)[found.probabilities.argmax(axis=1)].tolist()


def predicted(predictions: pd.DataFrame, kind: str, per_class: int, seed: int) -> list[str]:
    chosen = predictions[["kind", "per_class", "seed"]].eq([kind, per_class, seed]).all(axis=1)
    return predictions.loc[chosen, "predicted"].tolist()


def test_with_all_images_the_first_seed_is_the_pipelines_own_training(project: Any, transferred: Any) -> None:
    root, params = project
    for stage, kind in ((finetune, "finetune"), (svm, "svm")):
        expected = own(root, stage, params, "mobilenet", **base_folders(root))
        assert predicted(transferred[0], kind, ALL, params.seed) == expected
    shared = {"prepared": root / "prepared", "augmented": root / "augmented"}
    curve_baseline.run(params, "cnn", **shared, out=root / "cnn", work=root / ".work/cnn")
    predictions, fits = read_curve(root / "cnn")
    assert predicted(predictions, "baseline", ALL, params.seed) == own(root, baseline, params, "cnn", **shared)
    assert fits["images"].tolist() == [3] * SEEDS + [24] * SEEDS


def test_head_fine_tuned_base_and_svm_are_fitted_at_every_size(transferred: Any) -> None:
    _, fits = transferred
    counts = fits.groupby(["per_class", "kind"]).size().unstack(fill_value=0)
    assert counts.loc[ALL].to_dict() == {"finetune": SEEDS, "frozen": SEEDS, "svm": SEEDS}
    assert counts.loc[1].to_dict() == {"finetune": SEEDS, "frozen": SEEDS, "svm": 0}  # folds need two images
    assert fits.groupby("kind")["epochs"].agg(["min", "max"]).to_dict("index") == {
        "finetune": {"min": 4, "max": 4}, "frozen": {"min": 2, "max": 2}, "svm": {"min": 0, "max": 0},
    }  # fmt: skip


def test_a_machine_on_several_layers_is_the_same_from_kept_vectors_from_none_and_served(project: Any) -> None:
    root, params = project
    row = params.backbones["mobilenet"]
    several = row.features.model_copy(
        update={"svm_layers": ["conv_pw_6", "top", "conv_pw_12_relu"], "svm_pooling": "min"}
    )
    backbone = row.model_copy(update={"features": several})
    sizes = params.curve.model_copy(update={"per_class": ["all"], "seeds": 1})
    params = params.model_copy(update={"backbones": {"mobilenet": backbone}, "curve": sizes})
    folders = {name: root / name for name in ("prepared", "augmented", "source")}
    vectors = root / "vectors"
    features.run(params, "mobilenet", **folders, out=root / "beside", store=None, vectors=vectors)
    assert read_json(vectors / "plan.json")["stored"] == ["svm"]
    for path in (root / "features").iterdir():  # what heads and tails read
        assert (root / "beside" / path.name).read_bytes() == path.read_bytes()

    expected = own(root, svm, params, "mobilenet", **base_folders(root))
    kept = own(root, svm, params, "mobilenet", **base_folders(root), vectors=vectors)
    assert kept == expected
    curve.run(
        params, "mobilenet", **base_folders(root), out=root / "several", work=root / ".work/several", vectors=vectors
    )
    assert predicted(read_curve(root / "several")[0], "svm", ALL, params.seed) == expected

    manifest = read_manifest(root / "prepared")
    classifier = load_classifier(root / "models", root / "source")
    held_out = np.flatnonzero((manifest.rows["split"] != "train").to_numpy())
    answers = classifier.probabilities(read_images(root / "prepared", manifest.rows)[held_out])
    saved = read_predictions(root / "run/predictions.parquet").probabilities
    np.testing.assert_allclose(answers, saved, atol=1e-5)


def test_no_base_is_applied_again_to_what_is_stored(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, params = project
    starts = []

    def noted(*arguments: Any, **named: Any) -> Any:
        starts.append(named["start"])
        return frozen_pass(*arguments, **named)

    frozen_pass = extraction.frozen_pass
    monkeypatch.setattr(extraction, "frozen_pass", noted)
    few = params.model_copy(update={"curve": params.curve.model_copy(update={"per_class": [4], "seeds": 1})})
    assert set(measured(root, few, "stored")["kind"]) == {"frozen", "finetune", "svm"}
    assert set(starts) <= {"conv_pw_11_relu"}  # from where on it was trained


def test_an_interrupted_curve_ends_with_the_same_bytes(
    project: Any, transferred: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, params = project
    calls = []

    def torn(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise GraftError("the power went")
        return fit(*arguments)

    fit = curve.fit_svm
    monkeypatch.setattr(curve, "fit_svm", torn)
    with pytest.raises(CurveError, match="curve mobilenet: svm, all images per class, seed 1001: the power went"):
        measured(root, params, "resumed")
    monkeypatch.setattr(curve, "fit_svm", fit)
    measured(root, params, "resumed")
    for name in ("predictions.parquet", "fits.csv"):
        assert (root / "resumed" / name).read_bytes() == (root / "whole" / name).read_bytes()


def test_without_a_second_phase_there_is_no_fine_tuned_base(project: Any) -> None:
    root, params = project
    values = params.model_dump(mode="json")
    values["backbones"]["mobilenet"]["finetune"]["unfrozen_epochs"] = 0
    values["curve"] |= {"per_class": [4], "seeds": 1}
    assert set(measured(root, Params.model_validate(values), "head")["kind"]) == {"frozen", "svm"}
