from __future__ import annotations

import io

import numpy as np
from PIL import Image

from graft.tiles import beside, fitted, heat, overlay, signed_png, stretched, to_png


def test_heat_gets_lighter_with_the_value() -> None:
    colours = heat(np.linspace(0, 1, 11))
    assert (colours.shape, colours.dtype) == ((11, 3), np.uint8)
    assert (np.diff(colours.astype(int).sum(axis=1)) > 0).all()


def test_where_nothing_speaks_the_image_is_dimmed_and_elsewhere_it_glows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    weights = np.zeros((4, 4))
    weights[1, 2] = 1
    covered = overlay(image, weights).astype(int)
    grey = np.round(0.6 * image.mean(axis=-1))
    assert covered.shape == image.shape
    rest = np.ones((4, 4), bool)
    rest[1, 2] = False
    for channel in range(3):
        np.testing.assert_array_equal(covered[rest, channel], grey[rest])
    assert covered[1, 2, 0] > covered[1, 2, 2] + 100


def test_signs_are_colours_and_zero_is_the_page() -> None:
    values = np.array([[-1.0, -0.5, 0.0], [0.5, 1.0, 7.0]])
    pixels = np.asarray(Image.open(io.BytesIO(signed_png(values))).convert("RGBA")).astype(int)
    assert np.abs(pixels[..., 3].ravel() - [255, 128, 0, 128, 255, 255]).max() <= 3
    orange, blue = pixels[0, 0], pixels[1, 1]
    assert orange[0] > orange[2]
    assert blue[0] < blue[2]
    np.testing.assert_array_equal(pixels[0, 1, :3], orange[:3])
    np.testing.assert_array_equal(pixels[1, 0, :3], blue[:3])
    assert signed_png(values) == signed_png(values.copy())


def test_values_are_stretched_from_their_lowest_to_their_highest() -> None:
    assert stretched(np.array([[[-1.0], [0.0], [3.0]]])).tolist() == [[[0] * 3, [64] * 3, [255] * 3]]
    assert (stretched(np.full((2, 2, 3), 9.0)) == 128).all()


def test_small_pictures_keep_their_squares_and_large_ones_their_shape() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    np.testing.assert_array_equal(fitted(pixels, 12), pixels.repeat(3, axis=0).repeat(3, axis=1))
    assert fitted(pixels.repeat(60, axis=0).repeat(60, axis=1), 50).shape == (25, 50, 3)
    assert fitted(pixels[:1, :1], 5).shape == (5, 5, 3)


def test_beside_leaves_a_strip() -> None:
    left, right = np.zeros((3, 2, 3), np.uint8), np.full((3, 5, 3), 255, np.uint8)
    pair = beside(left, right, 4)
    assert pair.shape == (3, 11, 3)
    assert (pair[:, 2:6] == 128).all()


def test_png_keeps_few_colours_exactly_and_equal_pixels_give_equal_bytes() -> None:
    few = heat(np.linspace(0, 1, 64).reshape(8, 8))
    assert to_png(few) == to_png(few.copy())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(few))).convert("RGB")), few)
    many = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert Image.open(io.BytesIO(to_png(many))).size == (40, 40)
