from __future__ import annotations

import numpy as np
import pytest
from tuning_on_trial import calibrated, small

from graft import backbones, extraction, runtime
from graft.backbones import BackboneError
from graft.feature_sets import IMAGE, TOP

BASES = {"VGG16": (32, 0.1), "ResNet50": (32, 0.1), "InceptionV3": (75, 0.1), "MobileNet": (32, 0.25)}


@pytest.mark.parametrize("application", BASES)
def test_every_legal_cut_gives_what_the_whole_gives_and_every_other_is_refused(application: str) -> None:
    import keras

    runtime.configure(1)
    size, width = BASES[application]
    base = backbones.build_base(
        small("mobilenet", base__application=application, base__input_size=size, base__width=width).base
    )
    cuts = backbones.legal_cuts(base)
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    *at_cuts, whole = keras.Model(base.input, [*(base.get_layer(name).output for name in cuts), base.output])(images)
    for name, activations in zip(cuts, at_cuts, strict=True):
        rest = backbones.part(base, name, None, "tail")(activations, training=False)
        difference = np.abs(rest.numpy() - whole.numpy()).max()
        assert difference <= 1e-5 * np.abs(whole.numpy()).max(), name
    names = [layer.name for layer in base.layers]
    for name in set(names) - set(cuts):
        nearest = [cut for cut in cuts if names.index(cut) < names.index(name)][-1:]
        nearest += [cut for cut in cuts if names.index(cut) > names.index(name)][:1]
        with pytest.raises(BackboneError, match=f"{name} of .* cannot be cut.*where it can: {', '.join(nearest)}$"):
            backbones.check_cut(base, name)


def test_a_pass_goes_on_from_every_point_and_gives_every_later_one() -> None:
    base = calibrated(small("mobilenet"))
    points = extraction.points(base, ["conv_pw_11_relu", "conv_pw_5_relu"])
    assert points == (IMAGE, "conv_pw_5_relu", "conv_pw_11_relu", TOP)
    settings = {"application": "MobileNet", "input_size": 32, "image_size": 16, "pooling": "avg"}
    rows = [np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("uint8")]
    rows += extraction.frozen_pass(base, **settings, start=IMAGE, ends=points[1:]).predict_on_batch(rows[0])
    assert rows[-1].shape == (3, 256)
    for number, start in enumerate(points[:-1]):
        later = extraction.frozen_pass(base, **settings, start=start, ends=[TOP]).predict_on_batch(rows[number])
        np.testing.assert_allclose(later, rows[-1], rtol=1e-5, atol=1e-6)
