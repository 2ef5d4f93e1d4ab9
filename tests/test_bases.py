"""Each kind of base through every stage of transfer, narrow and on a few small images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import in_many_lives
from networks_on_trial import tiny_params
from PIL import Image
from test_pipeline import paths

from graft import backbones, costs, extraction, finetuning
from graft.activations import body
from graft.artifacts import Manifest, read_images, read_manifest, read_predictions
from graft.checkpoints import Checkpoints
from graft.export_formats import FILES, load_exported
from graft.exporting import export
from graft.feature_sets import IMAGE, TOP, FeatureSet, read_features, read_view_pixels
from graft.finetuning import fine_tune
from graft.finetuning_memory import finetuning_memory
from graft.inference import apply_model
from graft.inside import read_sample
from graft.network_looks import network_looks
from graft.params import Params
from graft.predicting import load_model
from graft.pretraining_memory import pretraining_memory
from graft.sections import Backbone
from graft.serving import Classifier
from graft.stages import augment, features, finetune, prepare, pretrain, svm
from graft.tails import fit_tails
from graft.training import Trained
from graft.weights import load_base

pytestmark = pytest.mark.slow
SIDE, CLASSES = 32, ("blue", "green", "red")
BASES = {  # where it is cut, its pooling, its width, and pixels that leave a map of 3x3
    "VGG16": ("block4_pool", "flatten", 0.1, 96),
    "VGG19": ("block4_pool", "flatten", 0.1, 96),
    "ResNet50": ("conv4_block6_out", "avg", 0.1, 96),
    "ResNet101": ("conv5_block2_out", "avg", 0.1, 96),
    "InceptionV3": ("mixed8", "avg", 0.1, 151),
    "MobileNet": ("conv_pw_11_relu", "avg", 0.25, 96),
    "MobileNetV2": ("block_15_add", "avg", 0.25, 96),
    "EfficientNetV2B0": ("block6f_add", "avg", 0.1, 96),
    "ConvNeXtTiny": ("convnext_tiny_downsampling_block_2", "avg", 0.1, 96),
}
EXPORTED = {"VGG16": "onnx", "MobileNet": "onnx", "EfficientNetV2B0": "onnx", "ConvNeXtTiny": "tflite"}


@dataclass(frozen=True)
class Run:
    """What the stages made of one base, named `base` in the params."""

    root: Path
    params: Params
    application: str
    manifest: Manifest

    @property
    def row(self) -> Backbone:
        return self.params.backbones["base"]

    @cached_property
    def features(self) -> FeatureSet:
        pixels = read_view_pixels(self.root / "data/prepared", self.root / "data/augmented", self.manifest)
        return read_features(self.root / "data/features/base", self.manifest, pixels)

    @cached_property
    def pixels(self) -> np.ndarray:
        return read_images(self.root / "data/prepared", self.manifest.rows)[:]

    @cached_property
    def source(self) -> Any:
        return load_base(self.root / "models/source/base")

    @cached_property
    def classifier(self) -> Classifier:
        return load_model("base", self.root / "models")


def write_photos(folder: Path) -> None:
    """Sixteen noisy images of each of three colours."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(reversed(CLASSES)):
        (folder / name).mkdir(parents=True)
        for index in range(16):
            pixels = random.integers(0, 120, (SIDE, SIDE, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{index:02d}.png")


def params_of(application: str, photos: Path) -> Params:
    cut, pooling, width, size = BASES[application]
    params = tiny_params(data__source="folder", data__path=str(photos), data__image_size=SIDE, augment__views=2)
    values = params.model_dump(mode="json")
    row = values["backbones"]["mobilenet"]
    row["base"] |= {"application": application, "input_size": size, "width": width, "weights": "random"}
    row["features"] |= {"pooling": pooling, "frozen_until": cut, "batch_size": 16}
    row["finetune"] |= {"epochs": 1, "unfrozen_epochs": 2, "unfrozen_learning_rate": 1e-3, "batch_size": 8}
    values["backbones"] = {"base": row}
    return Params.model_validate(values)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, prepared and augmented."""
    root = tmp_path_factory.mktemp("bases")
    write_photos(root / "photos")
    params = params_of("VGG16", root / "photos")
    prepare.run(params.data, params.seed, root / "data/prepared", root / "reports/data")
    augment.run(params.augment, params.seed, root / "data/prepared", root / "data/augmented", root / "preview.png")
    return root


@pytest.fixture(scope="module", params=list(BASES))
def run(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A base after the stages pretrain, features, finetune and svm; the working directory is its project's.

    The second phase is not undone: so few steps may well end above the loss of the first.
    """
    root = tmp_path_factory.mktemp(request.param)
    folders = {what: root / "data" / what for what in ("prepared", "augmented")}
    (root / "data").mkdir()
    for what, folder in folders.items():
        folder.symlink_to(prepared / "data" / what)
    params = params_of(request.param, prepared / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.chdir(root)
        keep = {"loss_to_beat": math.inf}
        patch.setattr(finetuning, "fit_tails", lambda *given, **named: fit_tails(*given, **named | keep))
        pretrain.run(params, "base", root / "models/source/base")
        folders["source"] = root / "models/source/base"
        features.run(params, "base", **folders, out=root / "data/features/base", store=root / ".store")
        folders["features"] = root / "data/features/base"
        finetune.run(params, "base", **folders, paths=paths(root, "base"), key="key-base")
        svm.run(params, "base", **folders, paths=paths(root, "base-svm", history=False), key="key-svm")
        yield Run(root, params, request.param, read_manifest(root / "data/prepared"))


def layer_by_layer(model: Any, inputs: np.ndarray) -> np.ndarray:
    """The only output of a frozen pass, without a graph."""
    outputs = model(inputs, training=False)
    return np.asarray(outputs[0] if isinstance(outputs, list) else outputs)


@pytest.mark.parametrize("name", ["base", "base-svm"])
def test_every_held_out_image_has_the_probabilities_that_the_saved_model_gives(run: Run, name: str) -> None:
    predictions = read_predictions(run.root / "reports/runs" / name / "predictions.parquet", manifest=run.manifest)
    held_out = np.flatnonzero((run.manifest.rows["split"] != "train").to_numpy())
    assert predictions.rows["image_id"].tolist() == run.manifest.rows["image_id"].iloc[held_out].tolist()
    assert predictions.probabilities.shape == (len(held_out), len(CLASSES))
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)
    classifier = run.classifier if name == "base" else load_model(name, run.root / "models")
    np.testing.assert_allclose(classifier.probabilities(run.pixels[held_out]), predictions.probabilities, atol=1e-5)


def test_the_activations_at_the_cut_go_on_to_what_the_whole_base_gives(run: Run) -> None:
    """Layer by layer to the bit; as graphs, in which TensorFlow joins operations, to what float32 rounds."""
    (cut,), stored = run.row.features.cuts, run.features.stored
    first, onwards = (
        extraction.row_pass(run.source, run.row, SIDE, start, [end]) for start, end in ((IMAGE, cut), (cut, TOP))
    )
    whole = extraction.row_pass(run.source, run.row, SIDE, IMAGE, [TOP])
    images = run.pixels[:2].astype(np.float32)
    np.testing.assert_array_equal(layer_by_layer(onwards, layer_by_layer(first, images)), layer_by_layer(whole, images))
    rows = np.arange(len(run.features.index))
    top = [top for (top,) in apply_model(onwards, stored[cut], rows, run.row.features.batch_size)]
    expected = stored[TOP][rows]
    np.testing.assert_allclose(np.concatenate(top), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert expected.std(axis=0).max() > 0


def test_the_second_phase_changes_all_layers_after_the_cut_but_batch_normalization_and_no_other(run: Run) -> None:
    import keras

    before, after = run.source.layers, body(run.classifier.network).layers
    assert [layer.name for layer in before] == [layer.name for layer in after]
    at = [layer.name for layer in before].index(run.row.features.cuts[0])
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        equal = [np.array_equal(*both) for both in zip(one.get_weights(), other.get_weights(), strict=True)]
        if place > at and one.trainable_weights and not isinstance(one, keras.layers.BatchNormalization):
            assert not all(equal), one.name
        else:
            assert all(equal), one.name


def test_its_costs_and_its_memory_are_known(run: Run) -> None:
    assert costs.multiply_adds(run.classifier.network) > costs.multiply_adds(run.source) > 1e5
    frozen, unfrozen = finetuning_memory(
        run.source,
        run.row,
        image_size=SIDE,
        classes=len(CLASSES),
        rows=len(run.features.index),
        stored=tuple(run.features.stored),
        itemsize=4,
    )
    assert pretraining_memory(run.source, run.row, run.params.pretrain).per_row > unfrozen.per_row > frozen.per_row > 0


def test_its_filters_its_maps_and_the_evidence_of_its_answers_are_shown(run: Run) -> None:
    sample = read_sample(run.root / "data/prepared")
    looks = network_looks(run.classifier.network, run.classifier.probabilities, sample, run.params.inspect)
    assert [look.name for look in looks] == ["filters", "feature_maps", "grad_cam"]
    assert all(look.tiles for look in looks)


@pytest.mark.parametrize("run", EXPORTED, indirect=True)
def test_an_exported_model_answers_as_the_model_does(run: Run) -> None:
    """Exporting itself compares them on all test images. ONNX as tf2onnx writes it lacks what ConvNeXt is made from."""
    out_format = EXPORTED[run.application]
    assert "test images probabilities differ by at most" in export(out_format, "base")
    exported = load_exported(run.root / "exports/base" / out_format / FILES[out_format], out_format)
    np.testing.assert_allclose(exported(run.pixels[:4]), run.classifier.probabilities(run.pixels[:4]), atol=1e-4)


@pytest.mark.parametrize("run", ["EfficientNetV2B0"], indirect=True)
def test_dropped_paths_follow_the_seed_also_after_an_interruption(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EfficientNet leaves out whole residual blocks at random while it is trained; the stage was not interrupted."""

    def tuned(checkpoints: Checkpoints) -> Trained:
        return fine_tune(
            load_base(run.root / "models/source/base"),
            run.row,
            run.manifest,
            run.features,
            image_size=SIDE,
            class_weights="none",
            seed=run.params.seed,
            publish=lambda *record: None,
            checkpoints=checkpoints,
        )

    resumed, interruptions = in_many_lives(tuned, tmp_path, monkeypatch)
    assert interruptions == 2
    for mine, theirs in zip(resumed.model.get_weights(), run.classifier.network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (cut,) = run.row.features.cuts
    _, tail = backbones.cut(resumed.model.get_layer(run.source.name), cut)
    maps = run.features.stored[cut][:4]
    assert (np.asarray(tail(maps, training=True)) != np.asarray(tail(maps, training=False))).any()
