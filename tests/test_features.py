from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import backbone, learnable_digits

from graft import backbones, runtime
from graft.artifacts import Manifest, read_features
from graft.features import build_extractor, feature_index, load_extractor, write_features
from graft.inference import apply_model
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError, new_folder, read_json
from graft.weights import save_base


def manifest_of(splits: list[str]) -> Manifest:
    ids = [f"{index:02d}" for index in range(len(splits))]
    rows = pd.DataFrame({"image_id": ids, "label": "a", "split": splits, "group": ids, "source": ""})
    return Manifest(rows.assign(width=8, height=8), ("a",))


def test_index_is_the_manifest_then_the_further_views_in_manifest_order() -> None:
    manifest = manifest_of(["train", "test", "train"])
    views = pd.DataFrame({"image_id": ["00", "02"] * 3, "view": np.repeat([0, 1, 2], 2)})
    index = feature_index(manifest, views)
    assert index["image_id"].tolist() == ["00", "01", "02", "00", "02", "00", "02"]
    assert index["view"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert index["split"].tolist() == ["train", "test", "train", *["train"] * 4]


@pytest.fixture
def extracted(tmp_path: Path) -> tuple[Path, Manifest, Shards]:
    """Features of 12 training, 5 validation images in two views, in batches that do not divide them."""
    pixels, _ = learnable_digits()
    manifest = manifest_of(["train"] * 12 + ["validation"] * 5)
    with ShardWriter(tmp_path, "images", (32, 32, 3), np.uint8) as writer:
        writer.append(pixels[:17])
    with ShardWriter(tmp_path / "augmented", "images", (32, 32, 3), np.uint8) as writer:
        writer.append(np.concatenate([pixels[:12], pixels[:12, ::-1]]))
    images, augmented = Shards(tmp_path, "images"), Shards(tmp_path / "augmented", "images")
    views = pd.DataFrame({"image_id": np.tile(manifest.rows["image_id"][:12], 2), "view": np.repeat([0, 1], 12)})
    row = backbone("mobilenet")
    runtime.configure(1)
    base = backbones.build_base(row.base)
    with new_folder(tmp_path / "source") as folder:
        save_base(folder, base, {})
    extractor = build_extractor(
        base, application="MobileNet", input_size=32, image_size=32, pooling="avg",
        frozen_until=row.features.frozen_until,
    )  # fmt: skip
    write_features(tmp_path / "features", extractor, manifest, images, views, augmented, batch_size=5)
    return tmp_path, manifest, images


def test_features_are_what_the_frozen_base_gives_one_image_at_a_time(
    extracted: tuple[Path, Manifest, Shards],
) -> None:
    """No image's features depend on its neighbours in the batch, and each stands beside its own id."""
    folder, manifest, images = extracted
    features = read_features(folder / "features", manifest)
    base = backbones.preprocess("MobileNet", images[:].astype("float32"))
    import keras

    from graft.weights import load_base

    frozen = load_base(folder / "source")
    for position in (0, 4, 16):
        alone = frozen(base[position : position + 1], training=False)
        expected = keras.ops.convert_to_numpy(alone).mean(axis=(1, 2))
        np.testing.assert_allclose(features.top[np.array([position])], expected, rtol=1e-4, atol=1e-6)
    mirrored = backbones.preprocess("MobileNet", images[:][3:4, ::-1].astype("float32"))
    expected = keras.ops.convert_to_numpy(frozen(mirrored, training=False)).mean(axis=(1, 2))
    at = features.positions("train", view=1)[3]
    np.testing.assert_allclose(features.top[np.array([at])], expected, rtol=1e-4, atol=1e-6)
    assert features.index["image_id"][at] == "03"


def test_extraction_changes_no_weight_and_repeats_bit_for_bit(extracted: tuple[Path, Manifest, Shards]) -> None:
    folder, manifest, images = extracted
    from graft.weights import load_base

    base = load_base(folder / "source")
    before = base.get_weights()
    extractor = build_extractor(
        base, application="MobileNet", input_size=32, image_size=32, pooling="avg", frozen_until="none"
    )
    one, two = (np.concatenate([top for (top,) in apply_model(extractor, images, np.arange(17), 5)]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, read_features(folder / "features", manifest).top[:17])
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_loaded_extractor_gives_the_stored_features(extracted: tuple[Path, Manifest, Shards]) -> None:
    folder, manifest, images = extracted
    description = {
        "application": "MobileNet", "input_size": 32, "image_size": 32, "pooling": "avg", "batch_size": 5,
        "weights_sha256": read_json(folder / "source/card.json")["weights_sha256"],
    }  # fmt: skip
    extract = load_extractor(description, folder / "source")
    np.testing.assert_array_equal(extract(images[:]), read_features(folder / "features", manifest).top[:17])
    with pytest.raises(ArtifactError, match=r"base\.weights\.h5 must have sha256 0000, received "):
        load_extractor(description | {"weights_sha256": "0000"}, folder / "source")


def test_features_of_another_manifest_are_refused(extracted: tuple[Path, Manifest, Shards]) -> None:
    folder, manifest, _ = extracted
    swapped = manifest.rows.iloc[[1, 0, *range(2, 17)]].reset_index(drop=True)
    with pytest.raises(ArtifactError, match="does not hold the features of this manifest's images"):
        read_features(folder / "features", Manifest(swapped, ("a",)))
