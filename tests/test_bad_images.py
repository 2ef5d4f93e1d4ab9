import numpy as np
import pytest
from bad_images import MAX_PIXELS, MIN_SIDE, bad_images
from image_files import encoded, scene
from odd_images import odd_images, odd_pictures
from peak_memory import growth

from graft.images import ImageError, decode

BAD, ODD = bad_images(), odd_pictures()
WHOLE = {
    "jpg": encoded(scene(0), "JPEG"),
    "progressive jpg": encoded(scene(0), "JPEG", progressive=True),
    "png": encoded(scene(0), "PNG"),
    "gif": encoded(scene(0), "GIF"),
    "webp": encoded(scene(0), "WEBP"),
    "lossless webp": encoded(scene(0), "WEBP", lossless=True),
    "bmp": encoded(scene(0), "BMP"),
    "tif": encoded(scene(0), "TIFF"),
    "deflated tif": encoded(scene(0), "TIFF", compression="tiff_adobe_deflate"),
    "jpg in tif": encoded(scene(0), "TIFF", compression="jpeg"),
}


def verdict(content: bytes) -> str:
    try:
        decode(content, min_side=MIN_SIDE, max_pixels=MAX_PIXELS)
    except ImageError as error:
        return error.reason if error.detail else "no detail"
    return "accepted"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name):
    content, reason = BAD[name]
    assert verdict(content) == reason


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_gives_the_right_colours(name):
    content, expected, tolerance = ODD[name]
    image = decode(content, min_side=MIN_SIDE, max_pixels=MAX_PIXELS)
    assert image.dtype == np.uint8
    channels = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_allclose(image.astype(int), channels.astype(int), atol=tolerance)


def test_the_corpus_is_large_and_has_every_reason():
    assert len(BAD) >= 80
    assert len(odd_images()) >= 40
    assert {reason for _, reason in BAD.values()} == {
        *("empty-file", "not-an-image", "truncated", "damaged", "too-large", "too-small", "unsupported-mode")
    }


@pytest.mark.parametrize("form", WHOLE)
def test_a_file_that_is_cut_anywhere_is_refused(form):
    content = WHOLE[form]
    assert verdict(content) == "accepted"
    verdicts = [verdict(content[:end]) for end in range(len(content))]
    signature = verdicts.index("truncated")
    assert signature <= 12
    assert set(verdicts[1:signature]) <= {"not-an-image"}
    assert set(verdicts[signature:]) == {"truncated"}


def test_a_png_that_is_changed_anywhere_is_refused():
    content = WHOLE["png"]
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        assert verdict(bytes(changed)) != "accepted", place


def test_no_file_takes_memory_for_what_it_claims_or_prints_anything():
    grown, printed = growth("""
from test_bad_images import BAD, ODD, verdict
before = peak()
for content, *_ in [*BAD.values(), *ODD.values()]:
    verdict(content)
""")
    assert printed == ""
    assert grown < 30_000
