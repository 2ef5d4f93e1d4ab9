from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks_on_trial import backbone, learnable_digits

from graft import backbones, frozen_passes, runtime
from graft.artifacts import Manifest
from graft.extraction import frozen_pass, load_extractor
from graft.feature_sets import (
    IMAGE,
    SVM,
    TOP,
    FeatureSet,
    Selected,
    ViewPixels,
    feature_index,
    read_features,
    with_vectors,
)
from graft.features import Extraction, write_features
from graft.frozen_bases import FrozenBase
from graft.inference import apply_model
from graft.shards import Shards, ShardWriter
from graft.stages.features import write_timings
from graft.storage import ArtifactError, new_folder, read_json
from graft.store import FeatureStore
from graft.store_costs import COST, read_cost
from graft.svm_layers import layers_json
from graft.weights import load_base, save_base

CUT, DEEPER = "conv_pw_11_relu", "conv_pw_12_relu"


class Workshop:
    """A narrow MobileNet and 12 training, 5 validation digits in two views, the second mirrored."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pixels = folder, learnable_digits()[0]
        runtime.configure(1)
        with new_folder(folder / "source") as source:
            save_base(source, backbones.build_base(backbone("mobilenet").base), {})
        self.store = FeatureStore(folder / "store", 10**9)

    def data(self, train: int, validation: int) -> tuple[Manifest, ViewPixels, pd.DataFrame]:
        """Images 0, 1, ... train; 59, 58, ... validate."""
        numbers = [*range(train), *range(59, 59 - validation, -1)]
        splits = ["train"] * train + ["validation"] * validation
        ids = [f"{number:02d}" for number in numbers]
        rows = pd.DataFrame({"image_id": ids, "label": "a", "split": splits, "group": ids, "source": ""})
        manifest = Manifest(rows.assign(width=32, height=32), ("a",))
        originals, target = self.pixels[numbers], self.folder / f"images-{train}-{validation}"
        with ShardWriter(target, "prepared", (32, 32, 3), np.uint8) as writer:
            writer.append(originals)
        with ShardWriter(target, "augmented", (32, 32, 3), np.uint8) as writer:
            writer.append(np.concatenate([originals[:train], originals[:train, ::-1]]))
        views = pd.DataFrame({"image_id": np.tile(ids[:train], 2), "view": np.repeat([0, 1], train)})
        return manifest, ViewPixels(Shards(target, "prepared"), Shards(target, "augmented"), views), views

    def extract(
        self,
        name: str,
        stored: list[str],
        *,
        train: int = 12,
        storage: str = "float32",
        store: FeatureStore | None = None,
        layers: list[str] | None = None,
        pooling: str = "avg",
    ) -> tuple[FeatureSet, Extraction]:
        """Write data/features/<name> in batches of 5, which do not divide the rows; of layers, an SVM's vectors too."""
        manifest, pixels, views = self.data(train, 5)
        changes = {"features__svm_layers": layers or ["top"], "features__svm_pooling": pooling}
        row = backbone("mobilenet", features__batch_size=5, **changes)
        base = FrozenBase.load(self.folder / "source", row, 32, storage)
        index = feature_index(manifest, views)
        target, beside = self.folder / name, self.folder / f"{name}-vectors"
        kept = {"stored": ["svm"], "layers": layers_json(row.features)}
        vectors = (beside, kept) if layers else None
        done = write_features(target, base, {"stored": stored}, index, pixels, store or self.store, vectors)
        found = read_features(target, manifest)
        return with_vectors(found, beside if layers else None, manifest, kept["layers"]), done

    def from_nothing(self, name: str, stored: list[str], **options: object) -> FeatureSet:
        return self.extract(name, stored, store=FeatureStore(self.folder / f"{name}-store", 10**9), **options)[0]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], int]]:
    """Start, ends and number of rows of every pass through the base."""
    seen: list[tuple[str, tuple[str, ...], int]] = []
    build, apply = FrozenBase.frozen_pass, frozen_passes._extract

    def spy(base, model, source, keys, spaces, bar):  # type: ignore[no-untyped-def]
        seen.append((*model.between, len(source)))
        return apply(base, model, source, keys, spaces, bar)

    def named(base, start, ends):  # type: ignore[no-untyped-def]
        model = build(base, start, ends)
        model.between = (start, tuple(ends))
        return model

    monkeypatch.setattr(frozen_passes, "_extract", spy)
    monkeypatch.setattr(FrozenBase, "frozen_pass", named)
    return seen


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_are_what_the_frozen_base_gives_one_image_at_a_time(workshop: Workshop) -> None:
    """No image's features depend on its neighbours in the batch, and each stands beside its own id."""
    found, _ = workshop.extract("features", [CUT, TOP])
    _, pixels, _ = workshop.data(12, 5)
    import keras

    frozen = load_base(workshop.folder / "source")
    trunk, _ = backbones.cut(frozen, CUT)
    for position in (0, 4, 16, 20):
        image = backbones.preprocess("MobileNet", pixels[np.array([position])].astype("float32"))
        expected = keras.ops.convert_to_numpy(frozen(image, training=False)).mean(axis=(1, 2))
        np.testing.assert_allclose(found.stored[TOP][np.array([position])], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            found.stored[CUT][np.array([position])], trunk(image, training=False), rtol=1e-4, atol=1e-6
        )
    assert found.index["image_id"][20] == "03"
    assert found.index["view"][20] == 1


def test_new_images_alone_are_computed_and_the_bytes_are_those_of_a_run_from_nothing(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    workshop.extract("first", [CUT, TOP], train=12)
    _, again = workshop.extract("again", [CUT, TOP], train=12)
    assert (again.computed, again.reused) == (0, 12 * 2 + 5)
    _, grown = workshop.extract("grown", [CUT, TOP], train=14)
    assert (grown.computed, grown.reused) == (2 * 2, 12 * 2 + 5)
    assert [rows for *_, rows in passes] == [12 * 2 + 5, 4]
    workshop.from_nothing("expected", [CUT, TOP], train=14)
    assert files_of(workshop.folder / "grown") == files_of(workshop.folder / "expected")


def test_another_cut_is_computed_from_the_one_that_is_there(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    workshop.extract("first", [CUT, TOP])
    workshop.extract("deeper", [DEEPER, TOP])
    workshop.extract("earlier", ["conv_pw_6_relu", TOP])
    assert passes == [
        (IMAGE, (CUT, TOP), 29),
        (CUT, (DEEPER,), 29),
        (IMAGE, ("conv_pw_6_relu",), 29),
    ]
    for name, cut in (("deeper", DEEPER), ("earlier", "conv_pw_6_relu")):
        workshop.from_nothing(f"{name}-expected", [cut, TOP])
        assert files_of(workshop.folder / name) == files_of(workshop.folder / f"{name}-expected")


def cost_files(store: Path) -> list[Path]:
    return list(store.rglob(COST))


def test_rows_from_the_store_report_what_they_cost_when_they_were_computed(workshop: Workshop) -> None:
    _, first = workshop.extract("first", [CUT, TOP])
    assert first.feature_seconds == pytest.approx(first.whole.seconds)
    _, again = workshop.extract("again", [CUT, TOP])
    assert (again.feature_seconds, again.whole.seconds) == (first.feature_seconds, 0.0)
    _, fewer = workshop.extract("fewer", [TOP], train=6)
    assert fewer.feature_seconds == pytest.approx(first.feature_seconds * (6 * 2 + 5) / (12 * 2 + 5))
    write_timings(workshop.folder / "timings.json", again)
    assert read_json(workshop.folder / "timings.json") == {
        "feature_seconds": first.feature_seconds,
        "seconds": 0.0,
        "computed": 0,
        "reused": 29,
    }


def test_a_pass_is_paid_for_by_its_points_and_by_those_that_start_from_them(workshop: Workshop) -> None:
    _, first = workshop.extract("first", [CUT, TOP])
    cut, top = sorted(read_cost(path.parent).seconds for path in cost_files(workshop.folder / "store"))
    assert 0 < cut < top == pytest.approx(first.whole.seconds)
    _, cheap = workshop.extract("cut", [CUT])
    assert cheap.feature_seconds == pytest.approx(cut)
    _, deeper = workshop.extract("deeper", [DEEPER])
    assert deeper.feature_seconds == pytest.approx(cut + deeper.whole.seconds)


def test_without_a_record_the_cost_is_unknown_or_that_of_the_rows_computed_since(workshop: Workshop) -> None:
    workshop.extract("first", [CUT])
    for path in cost_files(workshop.folder / "store"):
        path.unlink()
    assert workshop.extract("again", [CUT])[1].feature_seconds is None
    assert workshop.extract("deeper", [DEEPER])[1].feature_seconds is None
    _, grown = workshop.extract("grown", [CUT], train=14)
    assert grown.feature_seconds == pytest.approx(grown.whole.seconds * (14 * 2 + 5) / 4)
    assert workshop.extract("nothing", [])[1].feature_seconds == 0


def test_a_way_that_differs_by_a_bit_is_not_taken(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.extract("first", [CUT])
    monkeypatch.setattr(frozen_passes, "_same", lambda *arguments: False)
    workshop.extract("deeper", [DEEPER])
    assert passes[-1] == (IMAGE, (DEEPER,), 29)


def test_rows_of_several_histories_end_in_the_same_bytes(workshop: Workshop) -> None:
    """Some rows lack the top, some the cut, some both, some can start from another cut and some from nothing."""
    workshop.extract("a", [TOP], train=3)
    workshop.extract("b", [CUT], train=6)
    workshop.extract("c", ["conv_pw_6_relu"], train=9)
    workshop.extract("mixed", [CUT, TOP], train=12)
    workshop.from_nothing("expected", [CUT, TOP], train=12)
    assert files_of(workshop.folder / "mixed") == files_of(workshop.folder / "expected")


def test_float16_is_rounded_float32_and_starts_nothing(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    exact, _ = workshop.extract("exact", [CUT, TOP])
    half, _ = workshop.extract("half", [CUT, TOP], storage="float16")
    assert half.stored[CUT].dtype == np.float16
    for point in (CUT, TOP):
        np.testing.assert_array_equal(half.stored[point][:], exact.stored[point][:].astype(np.float16))
    workshop.extract("deeper", [DEEPER], storage="float16")
    assert passes[-1] == (IMAGE, (DEEPER,), 29)


def test_activations_that_cannot_be_held_are_refused() -> None:
    rows = np.array([[1.0, 70_000.0]], np.float32)
    with pytest.raises(ArtifactError, match=r"at most 65504 to be kept as float16, received 70000; set features.stor"):
        frozen_passes._rounded(rows, "float16")
    with pytest.raises(ArtifactError, match=r"received nan; the base's weights or its input are damaged"):
        frozen_passes._rounded(rows * np.nan, "float32")


def test_equal_pixels_are_computed_once(workshop: Workshop) -> None:
    workshop.pixels[5] = workshop.pixels[3]
    found, done = workshop.extract("features", [TOP])
    assert done.computed == 12 * 2 + 5 - 2
    np.testing.assert_array_equal(found.stored[TOP][np.array([5])], found.stored[TOP][np.array([3])])


def test_a_plan_that_stores_nothing_computes_nothing(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    found, done = workshop.extract("features", [])
    assert (done.computed, done.reused, passes, dict(found.stored)) == (0, 0, [], {})


@pytest.mark.parametrize("change", ["pooling", "weights", "batch_size"])
def test_rows_made_otherwise_are_not_mixed(workshop: Workshop, change: str) -> None:
    workshop.extract("first", [TOP])
    manifest, pixels, views = workshop.data(12, 5)
    batch_size, pooling = 6 if change == "batch_size" else 5, "max" if change == "pooling" else "avg"
    row = backbone("mobilenet", features__batch_size=batch_size, features__pooling=pooling)
    if change == "weights":
        with new_folder(workshop.folder / "source") as source:
            save_base(source, backbones.build_base(row.base), {})
    base = FrozenBase.load(workshop.folder / "source", row, 32, "float32")
    index = feature_index(manifest, views)
    done = write_features(workshop.folder / "other", base, {"stored": [TOP]}, index, pixels, workshop.store)
    assert done.reused == 0


def test_an_svm_s_vectors_are_the_pooled_maps_and_change_no_other_row(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    found, done = workshop.extract("features", [CUT, TOP], layers=[DEEPER, CUT], pooling="max")
    assert passes == [(IMAGE, (CUT, TOP), 29), (CUT, (SVM,), 29)]
    assert (done.computed, done.reused) == (29, 0)
    plain = workshop.from_nothing("plain", [CUT, DEEPER, TOP])
    pooled = np.concatenate([plain.stored[layer][:].max(axis=(1, 2)) for layer in (DEEPER, CUT)], axis=1)
    np.testing.assert_allclose(found.stored[SVM][:], pooled, rtol=1e-5)
    workshop.from_nothing("expected", [CUT, TOP])
    assert files_of(workshop.folder / "features") == files_of(workshop.folder / "expected")
    assert 0 < done.feature_seconds < done.whole.seconds
    assert done.svm_seconds > 0


def test_of_an_svm_s_vectors_only_what_is_missing_is_computed_and_nothing_is_mixed(
    workshop: Workshop, passes: list[tuple[str, tuple[str, ...], int]]
) -> None:
    workshop.extract("first", [CUT], layers=[CUT, "top"])
    workshop.extract("grown", [CUT], layers=[CUT, "top"], train=14)
    workshop.extract("again", [CUT], layers=[CUT, "top"])
    assert passes[2:] == [(IMAGE, (CUT,), 4), (CUT, (SVM,), 4)]
    for layers, pooling in ((["top", CUT], "avg"), ([CUT, "top"], "min"), (["conv_pw_6"], "avg")):
        name = f"other-{len(passes)}"
        workshop.extract(name, [CUT], layers=layers, pooling=pooling)
        assert passes[-1][1:] == ((SVM,), 29)
        workshop.from_nothing(f"{name}-expected", [CUT], layers=layers, pooling=pooling)
        kept = (files_of(workshop.folder / f"{name}{end}-vectors") for end in ("", "-expected"))
        assert next(kept) == next(kept)


def test_vectors_of_other_layers_are_refused(workshop: Workshop) -> None:
    found, _ = workshop.extract("features", [TOP], layers=[CUT])
    manifest, *_ = workshop.data(12, 5)
    asked = [{"layer": CUT, "pooling": "max"}]
    with pytest.raises(
        ArtifactError, match=r"plan\.json must be of the layers .*'max'.*, received .*'avg'.*; rerun fe"
    ):
        with_vectors(found, workshop.folder / "features-vectors", manifest, asked)
    fewer, _ = workshop.extract("fewer", [TOP], layers=[CUT], train=10)
    with pytest.raises(ArtifactError, match=r"rerun features"):
        with_vectors(fewer, workshop.folder / "features-vectors", manifest, [{"layer": CUT, "pooling": "avg"}])


def test_extraction_changes_no_weight_and_repeats_bit_for_bit(workshop: Workshop) -> None:
    _, pixels, _ = workshop.data(12, 5)
    base = load_base(workshop.folder / "source")
    before = base.get_weights()
    extractor = frozen_pass(
        base, application="MobileNet", input_size=32, image_size=32, pooling="avg", start=IMAGE, ends=[TOP]
    )
    one, two = (np.concatenate([top for (top,) in apply_model(extractor, pixels, np.arange(29), 5)]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, workshop.extract("features", [TOP])[0].stored[TOP][:])
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_loaded_extractor_gives_the_stored_features(workshop: Workshop) -> None:
    found, _ = workshop.extract("features", [TOP])
    _, pixels, _ = workshop.data(12, 5)
    description = {
        "application": "MobileNet", "input_size": 32, "image_size": 32, "batch_size": 5,
        "svm_layers": [{"layer": "top", "pooling": "avg"}], "storage": "float32",
        "weights_sha256": read_json(workshop.folder / "source/card.json")["weights_sha256"],
    }  # fmt: skip
    extract = load_extractor(description, workshop.folder / "source")
    np.testing.assert_array_equal(extract(pixels[:17]), found.stored[TOP][:17])
    rounded = load_extractor(description | {"storage": "float16"}, workshop.folder / "source")(pixels[:17])
    np.testing.assert_array_equal(rounded, found.stored[TOP][:17].astype(np.float16))
    with pytest.raises(ArtifactError, match=r"base\.weights\.h5 must have sha256 0000, received "):
        load_extractor(description | {"weights_sha256": "0000"}, workshop.folder / "source")


def test_a_damaged_piece_of_the_store_is_computed_again(workshop: Workshop) -> None:
    workshop.extract("first", [TOP])
    damaged = max((workshop.folder / "store").rglob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    fresh = FeatureStore(workshop.folder / "store", 10**9)
    _, done = workshop.extract("again", [TOP], store=fresh)
    assert done.computed > 0
    assert files_of(workshop.folder / "again") == files_of(workshop.folder / "first")


def test_selected_views_are_what_a_pass_reads(workshop: Workshop) -> None:
    _, pixels, _ = workshop.data(12, 5)
    np.testing.assert_array_equal(Selected(pixels, np.array([28, 0]))[:], pixels[np.array([28, 0])])
