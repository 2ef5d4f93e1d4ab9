from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft import backbones
from graft.backbones import BackboneError, WeightsError
from graft.sections import Base


def base(application: str = "MobileNet", input_size: int = 32, width: float = 0.25, weights: str = "random") -> Base:
    depends_on = Path("data/embedded.md") if weights in ("random", "imagenet", "source") else Path(weights)
    return Base(application=application, input_size=input_size, width=width, weights=weights, depends_on=depends_on)


def test_an_unknown_application_lists_the_known_and_the_closest() -> None:
    with pytest.raises(BackboneError, match=r"must be one of .*VGG16, VGG19.*received 'VGG6'; did you mean VGG16\?"):
        backbones.application("VGG6")


@pytest.mark.parametrize(
    ("application", "size", "layer"),
    [
        ("VGG16", 32, "block4_pool"),
        ("ResNet50", 32, "conv4_block6_out"),
        ("InceptionV3", 75, "mixed7"),
        ("MobileNet", 32, "conv_pw_11_relu"),
    ],
)
def test_trunk_and_tail_give_what_the_base_gives(application: str, size: int, layer: str) -> None:
    model = backbones.build_base(base(application, size))
    trunk, tail = backbones.cut(model, layer)
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    np.testing.assert_array_equal(tail.predict_on_batch(trunk.predict_on_batch(images)), model.predict_on_batch(images))
    assert len(trunk.weights) + len(tail.weights) == len(model.weights)


def test_width_scales_every_convolution() -> None:
    widths = {
        layer.name: layer.filters
        for layer in backbones.build_base(base("VGG16", width=0.25)).layers
        if hasattr(layer, "filters")
    }
    assert widths["block1_conv1"] == 16
    assert widths["block5_conv3"] == 128


@pytest.mark.parametrize("application", ["EfficientNetV2B0", "ConvNeXtTiny"])
def test_preprocessing_within_the_base_is_applied_once_and_to_pixels(application: str) -> None:
    """Both subtract ImageNet's mean and divide by its deviation, whose variance Keras states by itself."""
    import keras

    from graft import networks

    model = backbones.build_base(base(application))
    images = networks.image_input(32)
    assert networks.base_input(images, application, 32) is images  # nothing before the base
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)]
    assert len(found) == 1
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    seen = keras.Model(model.input, found[0].output).predict_on_batch(pixels)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    if application == "ConvNeXtTiny":  # (0.229 * 255)^2, (0.224 * 255)^2 and (0.225 * 255)^2 in Keras' own model, too
        own = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3))
        np.testing.assert_array_equal(seen, own.get_layer(found[0].name)(pixels))
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("application", ["EfficientNetV2B0", "ConvNeXtTiny"])
def test_a_base_at_width_1_with_the_weights_of_keras_own_gives_what_that_gives(application: str) -> None:
    import keras

    from graft import networks, runtime

    runtime.configure(1)
    own = backbones.application(application)(include_top=False, weights=None, input_shape=(32, 32, 3))
    model = backbones.build_base(base(application, width=1.0))
    model.set_weights(own.get_weights())
    images = networks.image_input(32)
    whole = keras.Model(images, model(networks.base_input(images, application, 32)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(whole(pixels, training=False), own(pixels, training=False))


def test_an_application_that_cannot_be_scaled_says_so() -> None:
    """NASNet's cells join maps whose filters are rounded differently."""
    with pytest.raises(
        BackboneError, match=r"NASNetMobile cannot be built at input_size 32 and width 0\.25: .* shapes"
    ):
        backbones.build_base(base("NASNetMobile", width=0.25))


def test_an_input_too_small_for_the_base_says_so() -> None:
    with pytest.raises(BackboneError, match=r"InceptionV3 cannot be built at input_size 32.*75"):
        backbones.build_base(base("InceptionV3", 32))


def test_preprocessing_is_that_of_the_application() -> None:
    pixels = np.array([[[[0.0, 127.5, 255.0]]]], "float32")
    np.testing.assert_allclose(backbones.preprocess("MobileNet", pixels.copy()), [[[[-1.0, 0.0, 1.0]]]])
    caffe = [[[[255 - 103.939, 127.5 - 116.779, 0 - 123.68]]]]  # BGR, minus ImageNet's means
    np.testing.assert_allclose(backbones.preprocess("VGG16", pixels.copy()), caffe, rtol=1e-6)
    np.testing.assert_allclose(backbones.preprocess("ResNet50", pixels.copy()), caffe, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("block9_pool", r"frozen_until must be a layer of vgg16 or none, received 'block9_pool'; close to it: block"),
        ("block5_pool", "cannot be cut"),
    ],
)
def test_a_cut_that_is_none_names_the_nearest(layer: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        backbones.check_cut(backbones.build_base(base("VGG16")), layer)


def test_a_cut_inside_a_residual_block_names_its_neighbours() -> None:
    model = backbones.build_base(base("ResNet50"))
    with pytest.raises(
        BackboneError, match=r"conv4_block3_1_relu .* cannot be cut.*: conv4_block2_out, conv4_block3_add"
    ):
        backbones.check_cut(model, "conv4_block3_1_relu")


def test_legal_cuts_by_hand() -> None:
    import keras

    start = keras.Input((4,), name="start")
    a = keras.layers.Dense(4, name="a")(start)
    left = keras.layers.Dense(4, name="left")(a)
    joined = keras.layers.Add(name="joined")([a, left])
    end = keras.layers.Dense(2, name="end")(joined)
    assert backbones.legal_cuts(keras.Model(start, end)) == ["a", "joined"]


def test_imagenet_weights_at_a_width_that_has_none() -> None:
    with pytest.raises(WeightsError, match=r"VGG16 exist at width 1 only, received width 0\.25"):
        backbones.imagenet_base(base("VGG16", weights="imagenet"))
    with pytest.raises(WeightsError, match=r"MobileNet: .*alpha.*0\.25.*received width 0\.3"):
        backbones.imagenet_base(base("MobileNet", width=0.3, weights="imagenet"))


def test_imagenet_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise Exception("URL fetch failure on mobilenet: unreachable")

    import keras

    monkeypatch.setattr(keras.src.applications.mobilenet.file_utils, "get_file", unreachable)
    with pytest.raises(WeightsError, match=r"could not be downloaded .*URL fetch failure.*set KERAS_HOME"):
        backbones.imagenet_base(base("MobileNet", 224, weights="imagenet"))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_a_file_are_loaded_and_others_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mobilenet{suffix}"
    model = backbones.build_base(base())
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    loaded = backbones.file_base(base(weights=str(path)))
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(WeightsError, match=r"does not fit MobileNet at width 0\.5"):
        backbones.file_base(base(width=0.5, weights=str(path)))


def test_a_weights_file_that_is_missing_is_named() -> None:
    with pytest.raises(WeightsError, match=r"imagenet, random, source or an existing file, received 'gone\.h5'"):
        backbones.file_base(base(weights="gone.h5"))


def test_frozen_batch_normalization_leaves_other_layers_trainable() -> None:
    import keras

    model = backbones.build_base(base())
    backbones.freeze_batch_normalization(model)
    for layer in model.layers:
        if layer.weights:
            assert layer.trainable != isinstance(layer, keras.layers.BatchNormalization)


@pytest.mark.parametrize(
    ("application", "width", "layer"),
    [("DenseNet121", 0.25, "pool4_conv"), ("ConvNeXtTiny", 1.0, "convnext_tiny_downsampling_block_1")],
)
def test_other_applications_build_cut_and_come_back_from_their_description(
    application: str, width: float, layer: str
) -> None:
    import keras

    from graft import runtime

    runtime.configure(1)
    model = backbones.build_base(base(application, 32, width))
    backbones.check_cut(model, layer)
    assert set(backbones.legal_cuts(model)) <= {item.name for item in model.layers}  # ConvNeXt's additions have no name
    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(copy.predict_on_batch(images), model.predict_on_batch(images))
