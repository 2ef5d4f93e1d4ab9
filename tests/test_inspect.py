"""The inspect stages on models that were never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import backbone, learnable_digits, tiny_params

from graft import backbones, baselines, networks, runtime
from graft.artifacts import Manifest, write_manifest
from graft.calibration import Calibration, write_calibration
from graft.extraction import load_extractor
from graft.inside import read_sample
from graft.learned_filters import read_first_layer
from graft.looks import read_looks
from graft.network_runs import save_keras_model
from graft.params import Params
from graft.shards import ShardWriter
from graft.stages import inspect, inspect_baseline
from graft.storage import ArtifactError, new_folder, read_json, write_json
from graft.svm import fit_svm, save_svm
from graft.weights import save_base

CLASSES = ("0", "1", "2")


def describe(folder: Path) -> None:
    write_json(folder / "classes.json", list(CLASSES))
    write_json(folder / "input.json", {"image_size": 32, "resize": "stretch"})
    write_calibration(folder, Calibration(1.5, None, 0.99))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared digits, a MobileNet with its SVM, and a network without a base."""
    root = tmp_path_factory.mktemp("project")
    images, labels = learnable_digits()
    splits = ["validation", "test", "train"] * 20
    ids = [f"{number:02d}" for number in range(60)]
    rows = pd.DataFrame({"image_id": ids, "label": labels.astype(str), "split": splits, "group": ids, "source": ids})
    with new_folder(root / "prepared") as folder:
        write_manifest(folder, Manifest(rows.assign(width=32, height=32), CLASSES))
        with ShardWriter(folder, "images", (32, 32, 3), np.uint8, rows) as writer:
            writer.append(images)
    runtime.configure(1)
    base = backbones.build_base(backbone("mobilenet").base)
    head = networks.build_head(256, 3, 0.3, seed=1)
    settings = {"application": "MobileNet", "input_size": 32, "image_size": 32, "pooling": "avg"}
    with new_folder(root / "models/source/mobilenet") as folder:
        save_base(folder, base, {})
    source = root / "models/source/mobilenet"
    with new_folder(root / "models/mobilenet") as folder:
        save_keras_model(folder / "model.keras", networks.build_classifier(base, head, **settings))
        describe(folder)
    with new_folder(root / "models/mobilenet-svm") as folder:
        card = {
            "svm_layers": [{"layer": "top", "pooling": "avg"}],
            "weights_sha256": read_json(source / "card.json")["weights_sha256"],
            "batch_size": 8,
            "storage": "float32",
        }
        write_json(folder / "base.json", settings | card)
        features = load_extractor(settings | card, source)(images)
        save_svm(folder / "svm.skops", fit_svm(features, labels, np.arange(60), backbone("mobilenet").svm, 1).model)
        describe(folder)
    with new_folder(root / "models/cnn") as folder:
        save_keras_model(folder / "model.keras", baselines.build_cnn(tiny_params().baselines["cnn"], 32, 3))
        describe(folder)
    return root


def params(**changes: object) -> Params:
    return tiny_params(inspect__repeats=5, inspect__images=4, inspect__occlusion_stride=16, **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_models_of_a_backbone_are_timed_and_the_network_is_shown(project: Path) -> None:
    where = {"prepared": project / "prepared", "models": project / "models"}
    inspect.run(params(), "mobilenet", **where, out=project / "inside")
    network, machine = project / "inside/mobilenet", project / "inside/mobilenet-svm"
    assert {path.name for path in machine.iterdir()} == {"costs.json", "timings.json"}
    for folder in (network, machine):
        timings = read_json(folder / "timings.json")
        assert 0 < timings["latency_ms_low"] <= timings["latency_ms"] <= timings["latency_ms_high"]
        assert timings["throughput"] > 0
        assert (timings["repeats"], timings["batch"]) == (5, 64)
    costs, svm_costs = read_json(network / "costs.json"), read_json(machine / "costs.json")
    model, source = project / "models/mobilenet", project / "models/source/mobilenet"
    assert costs["model_bytes"] == sum(path.stat().st_size for path in model.iterdir())
    parts = [*(project / "models/mobilenet-svm").iterdir(), source / "base.json", source / "base.weights.h5"]
    assert svm_costs["model_bytes"] == sum(path.stat().st_size for path in parts)
    assert 0 < costs["multiply_adds"] - 256 * 3 < svm_costs["multiply_adds"]  # the base's, and less than with the SVM
    looks = read_looks(network)
    assert [look.name for look in looks] == ["filters", "feature_maps", "occlusion"]
    assert len(looks[-1].tiles) == 4
    layer = read_first_layer(network)
    assert layer is not None
    assert (layer.layer, layer.count, len(layer.filters)) == ("conv1", 8, 8)
    again = files(project / "inside")
    inspect.run(params(), "mobilenet", **where, out=project / "inside")
    changed = {name for name, content in files(project / "inside").items() if content != again[name]}
    assert changed <= {"mobilenet/timings.json", "mobilenet-svm/timings.json"}


def test_a_network_without_a_base_is_shown_with_grad_cam(project: Path) -> None:
    where = {"prepared": project / "prepared", "models": project / "models"}
    inspect_baseline.run(params(), "cnn", **where, out=project / "inside-cnn")
    assert [look.name for look in read_looks(project / "inside-cnn/cnn")] == ["filters", "feature_maps", "grad_cam"]
    layer = read_first_layer(project / "inside-cnn/cnn")
    assert layer is not None
    assert layer.size == (32, 32)


def test_validation_images_alone_are_shown(project: Path) -> None:
    shown = read_sample(project / "prepared")
    assert list(shown.sources) == [f"{number:02d}" for number in range(0, 60, 3)]
    np.testing.assert_array_equal(shown.images, learnable_digits()[0][::3])
    np.testing.assert_array_equal(shown.labels, learnable_digits()[1][::3])


def test_a_missing_model_leaves_nothing_behind(project: Path) -> None:
    where = {"prepared": project / "prepared", "models": project / "none"}
    with pytest.raises(ArtifactError, match=r"is missing; `dvc repro` makes it"):
        inspect.run(params(), "mobilenet", **where, out=project / "nothing")
    assert not (project / "nothing").exists()
