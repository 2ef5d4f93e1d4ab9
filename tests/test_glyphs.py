import itertools

import numpy as np
import pytest
from scipy import ndimage

from graft import glyphs
from graft.glyphs import GLYPH_CLASSES, render_glyphs


@pytest.fixture(scope="module")
def rendered():
    return list(render_glyphs(3, seed=1))


def first(label, count, seed, per_class):
    images = [image for name, image in render_glyphs(per_class, seed) if name == label]
    return images[:count]


def test_every_class_has_as_many_images_as_asked(rendered):
    assert [label for label, _ in rendered] == [label for label in GLYPH_CLASSES for _ in range(3)]


def test_classes_are_distinct_and_hold_the_ten_digits():
    assert len(set(GLYPH_CLASSES)) == len(GLYPH_CLASSES)
    assert set("0123456789") < set(GLYPH_CLASSES)


def test_no_character_belongs_to_two_classes():
    characters = list(itertools.chain.from_iterable(glyphs._LOOK_ALIKES))
    assert len(set(characters)) == len(characters)


def test_images_are_block_counts_scaled_to_255(rendered):
    allowed = {round(value * 255 / 16) for value in range(17)}
    for _, image in rendered:
        assert image.shape == (8, 8)
        assert image.dtype == np.uint8
        assert set(image.ravel().tolist()) <= allowed


def test_ink_is_light_and_covers_about_as_much_as_a_digit_does(rendered):
    images = np.stack([image for _, image in rendered])
    assert 0.25 * 255 < images.mean() < 0.36 * 255
    assert images[:, :, [0, 7]].mean() < images[:, :, [3, 4]].mean() / 4  # the background is black


def test_ink_reaches_from_top_to_bottom(rendered):
    rows_with_ink = np.mean([image.any(axis=1)[[0, 7]].all() for _, image in rendered])
    assert rows_with_ink > 0.9


def test_the_same_seed_gives_the_same_images_and_another_seed_others(rendered):
    again = np.stack([image for _, image in render_glyphs(3, seed=1)])
    other = np.stack([image for _, image in render_glyphs(3, seed=2)])
    images = np.stack([image for _, image in rendered])
    np.testing.assert_array_equal(again, images)
    assert (other != images).any(axis=(1, 2)).mean() > 0.9


def test_more_images_leave_the_first_ones_as_they_were(rendered):
    for label in ("0", "g"):
        few = [image for name, image in rendered if name == label]
        np.testing.assert_array_equal(first(label, 3, seed=1, per_class=5), few)


def test_images_of_a_class_differ(rendered):
    of_a = [image for label, image in rendered if label == "A"]
    assert not np.array_equal(of_a[0], of_a[1])


def test_thinning_leaves_one_pixel_and_keeps_strokes_whole():
    bar = np.zeros((1, 20, 20), bool)
    bar[0, 4:16, 8:13] = True
    thinned = glyphs._thin(bar)[0]
    assert thinned.sum(axis=1).max() == 1
    assert np.ptp(np.flatnonzero(thinned.any(axis=1))) + 1 == thinned.any(axis=1).sum()
    assert not (thinned & ~bar[0]).any()


def test_thinning_keeps_a_ring_a_ring():
    down, right = np.mgrid[:24, :24] - 11.5
    radius = np.hypot(down, right)
    thinned = glyphs._thin(((radius > 4) & (radius < 9))[None])[0]
    assert ndimage.label(~thinned)[1] == 2  # inside and outside stay apart


def test_blocks_are_counted_by_hand():
    bitmap = np.zeros((32, 32), bool)
    bitmap[:4, :4] = True  # 16 of 16
    bitmap[4:6, 8:10] = True  # 4 of 16, in block row 1, column 2
    image = glyphs._count_blocks(bitmap)
    assert image[0, 0] == 255
    assert image[1, 2] == 64  # 4 * 255 / 16 = 63.75
    assert image.astype(int).sum() == 255 + 64


def test_a_missing_font_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs.matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf is missing"):
        next(render_glyphs(1, seed=1))
