from __future__ import annotations

import numpy as np
import pytest
from networks_on_trial import tiny_params
from tuning_on_trial import calibrated, small

from graft import backbones, extraction, runtime
from graft.backbones import BackboneError
from graft.feature_sets import IMAGE, SVM, TOP
from graft.storage import ArtifactError
from graft.svm_layers import Tap, check_layers, layers_json, point_of, starts, taps_of, vector_length

EARLY, CUT = "conv_pw_5_relu", "conv_pw_11_relu"


def features(**changes: object) -> object:
    return small("mobilenet", **{f"features__{key}": value for key, value in changes.items()}).features


def test_the_top_is_pooled_as_for_the_heads_and_every_other_layer_as_said() -> None:
    row = features(svm_layers=[EARLY, "top"], svm_pooling="max", pooling="flatten")
    assert taps_of(row) == [Tap(EARLY, "max"), Tap(TOP, "flatten")]
    assert layers_json(row) == [{"layer": EARLY, "pooling": "max"}, {"layer": "top", "pooling": "flatten"}]
    assert point_of(row) == SVM
    assert point_of(features(svm_layers=["top"])) == TOP


@pytest.mark.parametrize("start", [IMAGE, EARLY])
def test_vectors_are_the_pooled_outputs_of_the_layers_in_their_order(start: str) -> None:
    """As of a plain Keras model with the layers' outputs, also of layers at which no base can be cut."""
    import keras

    base = calibrated(small("mobilenet"))
    taps = [Tap(CUT, "avg"), Tap(EARLY, "min"), Tap(TOP, "flatten"), Tap(EARLY, "max"), Tap("conv_pw_13_relu", "max")]
    settings = {"application": "MobileNet", "input_size": 32, "image_size": 32}
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("uint8")
    rows = images
    if start != IMAGE:
        whole = extraction.frozen_pass(base, **settings, pooling="avg", start=IMAGE, ends=[start])
        rows = whole(images, training=False)
    vectors = extraction.svm_pass(base, taps, **settings, start=start)(rows, training=False)

    plain = keras.Model(base.input, [base.get_layer(EARLY).output, base.get_layer(CUT).output, base.output])
    early, cut, top = (np.asarray(maps) for maps in plain(backbones.preprocess("MobileNet", images.astype("float32"))))
    average = keras.layers.GlobalAveragePooling2D()(cut)
    expected = [average, early.min(axis=(1, 2)), top.reshape(3, -1), early.max(axis=(1, 2)), top.max(axis=(1, 2))]
    np.testing.assert_allclose(vectors, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-5)
    assert vectors.shape == (3, vector_length(base, taps))


def test_vectors_start_at_no_point_behind_their_first_layer() -> None:
    base = backbones.build_base(small("mobilenet").base)
    cuts = [CUT, EARLY]
    assert starts(base, cuts, [Tap(TOP, "avg")]) == (IMAGE, EARLY, CUT)
    assert starts(base, cuts, [Tap(TOP, "avg"), Tap(CUT, "avg")]) == (IMAGE, EARLY, CUT)
    assert starts(base, cuts, [Tap("conv_pw_6", "avg")]) == (IMAGE, EARLY)
    assert starts(base, cuts, [Tap("conv1", "avg"), Tap(CUT, "avg")]) == (IMAGE,)


def test_any_layer_with_maps_will_do_and_others_are_refused_by_name() -> None:
    runtime.configure(1)
    row = tiny_params().backbones["mobilenet"].base
    base = backbones.build_base(row.model_copy(update={"application": "EfficientNetV2B0", "width": 1.0}))
    inside = "block4b_expand_activation"  # within a block, where several tensors go on
    assert inside not in backbones.legal_cuts(base)
    check_layers(base, ["top", inside])
    with pytest.raises(
        BackboneError, match=r"svm_layers must be top or layers of .*, received 'block4b_expand'; .*bloc"
    ):
        check_layers(base, ["top", "block4b_expand"])
    with pytest.raises(
        BackboneError, match=r"svm_layers: block4b_se_squeeze of .* maps \(n, h, w, c\), received the sh"
    ):
        check_layers(base, ["block4b_se_squeeze"])


def test_a_description_of_an_older_version_is_refused() -> None:
    base = backbones.build_base(small("mobilenet").base)
    older = {"application": "MobileNet", "input_size": 32, "image_size": 32, "pooling": "avg"}
    with pytest.raises(
        ArtifactError, match=r"base\.json must list the layers .* as svm_layers, received none; `dvc repro`"
    ):
        extraction.described_pass(base, older)
