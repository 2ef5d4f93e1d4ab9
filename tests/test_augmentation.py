import cv2
import numpy as np
import pytest
from scipy import ndimage

from graft.augmentation import Transformation, affine, apply, draw, views
from graft.sections import Augment

OFF = {
    "views": 10,
    "horizontal_flip": False,
    "rotation": 0.0,
    "zoom": 0.0,
    "translation": 0.0,
    "contrast": 0.0,
    "fill": "nearest",
}
EVERYTHING = {"horizontal_flip": True, "rotation": 0.2, "zoom": 0.2, "translation": 0.1, "contrast": 0.1}


def ranges(**changes):
    return Augment(**OFF | changes)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def smooth(size):
    """A picture whose resampling loses little."""
    rows, columns = np.mgrid[:size, :size] / size
    planes = [np.sin(3 * rows) * columns, columns**2, rows]
    return np.rint(255 * np.clip(np.stack(planes, axis=-1), 0, 1)).astype(np.uint8)


GREY = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)


def moved(fill="nearest", **changes):
    """What a transformation makes of GREY."""
    result = apply(np.repeat(GREY[..., None], 3, axis=2), Transformation(**changes), fill)
    assert (result == result[..., :1]).all()
    return result[..., 0].tolist()


def test_the_default_transformation_is_the_identity():
    image = noise(7, 9)
    np.testing.assert_array_equal(apply(image, Transformation(), "constant"), image)


@pytest.mark.parametrize("fill", ["nearest", "reflect", "constant"])
def test_ranges_of_zero_leave_every_view_as_it_is(fill):
    images = noise(4, 8, 8)
    for view in range(3):
        np.testing.assert_array_equal(views(images, list("abcd"), ranges(fill=fill), 1, view), images)


def test_view_zero_is_the_original():
    images = noise(3, 8, 8)
    np.testing.assert_array_equal(views(images, list("abc"), ranges(**EVERYTHING), 1, 0), images)


def test_a_flip_mirrors_left_and_right():
    assert moved(flip=True) == np.fliplr(GREY).tolist()


@pytest.mark.parametrize(("rotation", "turns"), [(0.25, 1), (-0.25, -1), (0.5, 2)])
@pytest.mark.parametrize("fill", ["nearest", "reflect", "constant"])
def test_positive_rotation_turns_counter_clockwise(rotation, turns, fill):
    assert moved(rotation=rotation, fill=fill) == np.rot90(GREY, turns).tolist()


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("nearest", [[10, 20, 30], [10, 20, 30], [40, 50, 60]]),
        ("constant", [[0, 0, 0], [10, 20, 30], [40, 50, 60]]),
        ("reflect", [[10, 20, 30], [10, 20, 30], [40, 50, 60]]),
    ],
)
def test_a_translation_by_a_third_moves_three_rows_down_by_one(fill, expected):
    assert moved(down=1 / 3, fill=fill) == expected


def test_reflection_mirrors_at_the_edge_as_keras_does():
    assert moved(right=2 / 3, fill="reflect") == [[20, 10, 10], [50, 40, 40], [80, 70, 70]]


def test_half_a_pixel_is_the_mean_of_two():
    assert moved(right=-0.5 / 3) == [[15, 25, 30], [45, 55, 60], [75, 85, 90]]


def test_a_zoom_above_one_shows_more():
    assert moved(zoom=2.0, fill="constant") == [[0, 0, 0], [0, 50, 0], [0, 0, 0]]
    assert moved(zoom=0.5) == [[30, 35, 40], [45, 50, 55], [60, 65, 70]]


def test_contrast_spreads_each_channel_around_its_own_mean():
    image = np.array([[[100, 0, 50], [200, 4, 50]]], np.uint8)  # means 150, 2, 50
    halved = apply(image, Transformation(contrast=0.5), "nearest")
    np.testing.assert_array_equal(halved, [[[125, 1, 50], [175, 3, 50]]])
    clipped = apply(image, Transformation(contrast=3.0), "nearest")
    np.testing.assert_array_equal(clipped, [[[0, 0, 50], [255, 8, 50]]])


def test_all_steps_together_are_one_resampling():
    """The same points as flip, rotate, zoom and translate one after the other, read once."""
    size, image = 33, smooth(33)
    combined = Transformation(flip=True, rotation=0.07, zoom=0.8, down=0.1, right=-0.05, contrast=0.9)
    matrix, offset = affine(combined, size, size)
    point = np.array([4.0, 29.0])  # of the view, followed back step by step
    centre = (size - 1) / 2
    down, right = point - centre - [0.1 * size, -0.05 * size]
    down, right = 0.8 * down, 0.8 * right
    angle = 2 * np.pi * 0.07
    down, right = np.cos(angle) * down + np.sin(angle) * right, np.cos(angle) * right - np.sin(angle) * down
    np.testing.assert_allclose(matrix @ point + offset, [centre + down, centre - right])

    rows, columns = np.tensordot(matrix, np.mgrid[:size, :size], 1) + offset[:, None, None]
    planes = [ndimage.map_coordinates(image[..., c].astype(float), (rows, columns), order=1) for c in range(3)]
    inside = (rows >= 0) & (rows <= size - 1) & (columns >= 0) & (columns <= size - 1)
    result = apply(image, Transformation(flip=True, rotation=0.07, zoom=0.8, down=0.1, right=-0.05), "constant")
    assert inside.mean() > 0.8
    assert np.abs(result - np.stack(planes, axis=-1))[inside].max() <= 0.501  # one rounding


SCIPY_MODES = {"nearest": "nearest", "reflect": "reflect", "constant": "grid-constant"}


@pytest.mark.parametrize("fill", ["nearest", "reflect", "constant"])
@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4, 4), (31, 17), (96, 96)])
def test_pixels_and_edges_are_those_of_scipy(fill, shape):
    """Also far outside of the image; where a value lies between two grey levels, either may be taken."""
    image = noise(*shape)
    strong = ranges(horizontal_flip=True, rotation=0.5, zoom=0.9, translation=0.9, contrast=0.9)
    for view in range(1, 9):
        drawn = draw("a", strong, 1, view)
        matrix, offset = affine(drawn, *shape)
        planes = [
            ndimage.affine_transform(image[..., c].astype(float), matrix, offset, order=1, mode=SCIPY_MODES[fill])
            for c in range(3)
        ]
        exact = np.stack(planes, axis=-1)
        mean = exact.mean(axis=(0, 1))
        exact = ((exact - mean) * drawn.contrast + mean).clip(0, 255)
        assert np.abs(apply(image, drawn, fill) - exact).max() < 0.51


def test_the_number_of_threads_changes_nothing():
    images, settings = noise(4, 200, 200), ranges(**EVERYTHING)
    threads = cv2.getNumThreads()
    alone = views(images, list("abcd"), settings, 1, 1)
    try:
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(views(images, list("abcd"), settings, 1, 1), alone)
    finally:
        cv2.setNumThreads(threads)


def test_the_chain_of_single_steps_differs_only_by_its_extra_resamplings():
    image = smooth(64)
    chain = image
    for step in ({"flip": True}, {"rotation": 0.05}, {"zoom": 0.9}, {"down": 0.06, "right": 0.03}):
        chain = apply(chain, Transformation(**step), "nearest")
    at_once = Transformation(flip=True, rotation=0.05, zoom=0.9, down=0.06, right=0.03)
    difference = np.abs(apply(image, at_once, "nearest").astype(int) - chain)[16:-16, 16:-16]
    assert difference.max() <= 4


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("rotation", (-0.2, 0.2)),
        ("zoom", (0.8, 1.2)),
        ("down", (-0.1, 0.1)),
        ("right", (-0.1, 0.1)),
        ("contrast", (0.9, 1.1)),
    ],
)
def test_draws_fill_their_range_evenly(name, bounds):
    drawn = [getattr(draw(f"image {index}", ranges(**EVERYTHING), 1, 1), name) for index in range(2000)]
    low, high = bounds
    assert low <= min(drawn) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < max(drawn) <= high
    assert np.mean(drawn) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))


def test_half_of_the_views_are_mirrored():
    flips = [draw(f"image {index}", ranges(**EVERYTHING), 1, 1).flip for index in range(2000)]
    assert np.mean(flips) == pytest.approx(0.5, abs=0.05)


def test_draws_differ_by_seed_image_and_view_and_are_independent_of_each_other():
    reference = draw("a", ranges(**EVERYTHING), 1, 1)
    assert draw("a", ranges(**EVERYTHING), 1, 1) == reference
    for other in (("b", 1, 1), ("a", 2, 1), ("a", 1, 2)):
        assert draw(other[0], ranges(**EVERYTHING), *other[1:]).rotation != reference.rotation
    assert draw("a", ranges(rotation=0.2), 1, 1).rotation == reference.rotation


def test_a_view_does_not_depend_on_the_other_images():
    images, image_ids = noise(5, 16, 16), list("abcde")
    settings = ranges(**EVERYTHING)
    together = views(images, image_ids, settings, 1, 3)
    order = [3, 0, 4]
    alone = views(images[order], [image_ids[place] for place in order], settings, 1, 3)
    np.testing.assert_array_equal(alone, together[order])
    assert together.dtype == np.uint8
    assert (together != images).any()


def test_no_images_give_no_views():
    assert views(np.empty((0, 8, 8, 3), np.uint8), [], ranges(**EVERYTHING), 1, 1).shape == (0, 8, 8, 3)


def test_ids_and_images_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        views(noise(3, 8, 8), ["a"], ranges(), 1, 1)
