import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import tiny_params
from PIL import Image

from graft import shards
from graft.artifacts import (
    MANIFEST_COLUMNS,
    Manifest,
    read_images,
    read_manifest,
    read_views,
    view_rows,
    write_manifest,
)
from graft.augmentation import views
from graft.params import load_params
from graft.sections import Augment
from graft.shards import ShardWriter
from graft.stages import augment, prepare
from graft.storage import ArtifactError

PROJECT = Path(__file__).resolve().parents[1]
RANGES = {
    "views": 3,
    "horizontal_flip": True,
    "rotation": 0.2,
    "zoom": 0.2,
    "translation": 0.1,
    "contrast": 0.1,
    "fill": "reflect",
}


@pytest.fixture
def prepared(tmp_path, image_folder):
    values = {"source": "folder", "path": str(image_folder), "image_size": 16, "train_per_class": None}
    values |= {"validation": 0.25, "test": 0.25, "max_invalid_fraction": 1.0}
    data = tiny_params(**{f"data__{name}": value for name, value in values.items()}).data
    prepare.run(data, 1, tmp_path / "prepared", tmp_path / "report")
    return tmp_path / "prepared"


def run(prepared, seed=1, name="augmented", **changes):
    folder = prepared.parent
    ranges = Augment(**RANGES | changes)
    augment.run(ranges, seed, prepared, folder / name, folder / "figures" / f"{name}.png")
    return folder / name


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_views_of_the_training_images_stand_view_after_view(prepared, capsys):
    manifest = read_manifest(prepared)
    originals = read_images(prepared, manifest.rows)
    train = manifest.positions("train")
    out = run(prepared)
    index = read_views(out, manifest)
    stored = read_images(out, index)
    assert len(index) == 3 * len(train) == 36
    image_ids = manifest.rows["image_id"].to_numpy()[train]
    for view, rows in enumerate(view_rows(index)):
        expected = views(originals[train], image_ids, Augment(**RANGES), 1, view)
        np.testing.assert_array_equal(stored[rows], expected)
    np.testing.assert_array_equal(stored[: len(train)], originals[train])
    assert capsys.readouterr().out.splitlines()[-1] == "augment: 12 training images x 3 views = 36 images"


def test_no_validation_or_test_image_is_augmented(prepared):
    manifest = read_manifest(prepared)
    held_out = set(manifest.rows["image_id"][manifest.rows["split"] != "train"])
    assert not held_out & set(read_views(run(prepared), manifest)["image_id"])


def test_equal_inputs_give_equal_bytes_and_another_seed_does_not(prepared):
    assert contents(run(prepared)) == contents(run(prepared, name="again"))
    assert contents(run(prepared)) != contents(run(prepared, name="other", seed=2))


def test_the_size_of_a_batch_changes_nothing(prepared, monkeypatch):
    whole = contents(run(prepared))
    monkeypatch.setattr(augment, "BATCH", 5)
    assert contents(run(prepared, name="batched")) == whole


def test_one_view_is_the_originals(prepared):
    manifest = read_manifest(prepared)
    out = run(prepared, views=1)
    originals = read_images(prepared, manifest.rows)[manifest.positions("train")]
    np.testing.assert_array_equal(read_images(out, read_views(out, manifest))[:], originals)


def test_the_preview_shows_training_images_by_views(prepared):
    run(prepared, rotation=0.0)
    with Image.open(prepared.parent / "figures" / "augmented.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > pixels.shape[1]  # six images below each other, three views side by side
    strongest = [pixels[(pixels.argmax(axis=2) == channel) & (np.ptp(pixels, axis=2) > 60)] for channel in range(3)]
    assert all(len(colour) > 1000 for colour in strongest)  # each class has its own colour, and all three are shown


def test_damaged_images_are_refused(prepared):
    path = prepared / "images-00000.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"images-00000.npy is damaged"):
        run(prepared)
    assert not (prepared.parent / "augmented").exists()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 2**20)
    monkeypatch.setattr(augment, "BATCH", 16)
    rows = [(f"{index:04d}", "ab"[index % 2], "train", f"{index}", f"{index}", 64, 64) for index in range(600)]
    manifest = Manifest(pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS)), ("a", "b"))
    with ShardWriter(tmp_path / "prepared", "images", (64, 64, 3), np.uint8, manifest.rows) as writer:
        writer.append(np.zeros((600, 64, 64, 3), np.uint8))
    write_manifest(tmp_path / "prepared", manifest)
    run(tmp_path / "prepared", views=1)  # what matplotlib and pandas keep is not counted
    tracemalloc.start()
    run(tmp_path / "prepared", views=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20  # all of them: 28 MiB


def test_the_stage_takes_its_ranges_from_params_yaml(prepared, monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    folder = prepared.parent
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setattr(augment, "run_key", lambda stage, root: stage)
    augment.main(prepared, folder / "out", folder / "preview.png")
    count = load_params(PROJECT / "params.yaml").augment.views
    assert len(read_views(folder / "out", read_manifest(prepared))) == 12 * count
    assert (folder / "preview.png").exists()


@pytest.mark.slow
@pytest.mark.real_data
def test_real_photographs(tmp_path, photographs):
    values = {"source": "folder", "path": str(photographs), "image_size": 224, "resize": "crop", "test": "none"}
    values |= {"train_per_class": 20, "split": "predefined"}
    data = tiny_params(**{f"data__{name}": value for name, value in values.items()}).data
    prepare.run(data, 1, tmp_path / "prepared", tmp_path / "report")
    manifest = read_manifest(tmp_path / "prepared")
    out = run(tmp_path / "prepared")
    stored = read_images(out, read_views(out, manifest))
    assert stored.shape == (120, 224, 224, 3)
    brightness = stored[:].mean(axis=(1, 2)).reshape(3, 40, 3)
    assert np.abs(brightness[1:] - brightness[0]).max() < 40  # a view is still a picture of the same thing
