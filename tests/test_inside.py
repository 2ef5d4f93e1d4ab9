from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cornered import two_patches

from graft import runtime
from graft.artifacts import Manifest, write_manifest
from graft.calibration import Calibration, write_calibration
from graft.comparison_sections import Inspect
from graft.inside import EXAMINED, read_sample, write_inside
from graft.looks import read_looks
from graft.network_looks import Sample
from graft.network_runs import save_keras_model
from graft.shards import ShardWriter
from graft.storage import read_json, write_json

SETTINGS = Inspect(images=2, occlusion_stride=16, repeats=5)


def test_of_many_validation_images_an_even_sample_is_read(tmp_path: Path) -> None:
    count = 3 * EXAMINED
    ids = [f"{number:04d}" for number in range(count)]
    rows = pd.DataFrame({"image_id": ids, "label": "a", "split": "validation", "group": ids, "source": ids})
    write_manifest(tmp_path, Manifest(rows.assign(width=1, height=1), ("a",)))
    with ShardWriter(tmp_path, "images", (1, 1, 3), np.uint8, rows) as writer:
        writer.append(np.zeros((count, 1, 1, 3), np.uint8))
    sources = [int(name) for name in read_sample(tmp_path).sources]
    assert len(sources) == EXAMINED
    assert (sources[0], sources[-1]) == (0, count - 1)
    assert set(np.diff(sources)) <= {2, 3, 4}


def test_a_layer_whose_cost_is_unknown_leaves_the_multiply_adds_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    runtime.configure(1)
    images = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2DTranspose(2, 3, activation="relu", name="up")(images)
    x = keras.layers.Dense(2, activation="softmax", name="classes")(keras.layers.Flatten()(x))
    model = tmp_path / "odd"
    model.mkdir()
    save_keras_model(model / "model.keras", keras.Model(images, x, name="classifier"))
    write_json(model / "classes.json", ["a", "b"])
    write_json(model / "input.json", {"image_size": 32, "resize": "stretch"})
    write_calibration(model, Calibration(1.0, None, 0.99))
    pixels = np.stack([two_patches("top left", "top right"), two_patches("bottom left", "top left")])
    sample = Sample(pixels, np.array([0, 1]), ["0", "1"], ["a", "b"])
    write_inside(tmp_path / "out", model, None, sample, SETTINGS)
    assert read_json(tmp_path / "out/costs.json")["multiply_adds"] is None
    assert "received Conv2DTranspose up with weights" in capsys.readouterr().out
    assert [look.name for look in read_looks(tmp_path / "out")][-1] == "grad_cam"
