from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from graft import kernels
from graft.kernels import GAUSSIAN, KERNELS, LAPLACIAN, LAPLACIAN_OF_GAUSSIAN, LINES, MEAN, SOBEL_X, SOBEL_Y, respond

STEP = np.repeat([[0.0, 0, 0, 10, 10, 10]], 6, axis=0)  # dark on the left, bright on the right
SIGNED = [kernel for kernel in KERNELS if not kernel.smooths]


def test_the_masks_are_those_of_the_books() -> None:
    assert (MEAN.weights * 9).round(9).tolist() == [[1, 1, 1]] * 3
    assert (GAUSSIAN.weights * 16).round(9).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert SOBEL_X.weights.tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    assert SOBEL_Y.weights.tolist() == [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]
    assert LAPLACIAN.weights.tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    horizontal, vertical, rising, falling = (kernel.weights.tolist() for kernel in LINES)
    assert horizontal == [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]]
    assert vertical == [[-1, 2, -1]] * 3
    assert rising == [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]]
    assert falling == [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]]
    assert (LAPLACIAN_OF_GAUSSIAN.weights * 16).round(9).tolist() == [
        [0, 1, 2, 1, 0],
        [1, 0, -2, 0, 1],
        [2, -2, -8, -2, 2],
        [1, 0, -2, 0, 1],
        [0, 1, 2, 1, 0],
    ]


def test_their_numbers_are_whole_before_they_are_divided() -> None:
    for kernel in KERNELS:
        numbers = kernel.weights * kernel.divisor
        np.testing.assert_allclose(numbers, numbers.round(), atol=1e-9)


def test_smoothing_keeps_even_grey_and_the_others_answer_nothing_to_it() -> None:
    even = np.full((5, 7), 93, np.uint8)
    for kernel in (MEAN, GAUSSIAN):
        assert kernel.weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(respond(kernel, even), 93)
    assert [kernel.name for kernel in KERNELS if kernel.smooths] == ["Mean", "Gaussian"]
    for kernel in SIGNED:
        assert kernel.weights.sum() == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(respond(kernel, even), 0, atol=1e-12)
    np.testing.assert_array_equal(kernels.gradient_magnitude(even), 0)


def test_the_mean_of_nine() -> None:
    image = np.array([[5.0, 2, 2], [3, 1, 3], [9, 0, 2]])
    assert respond(MEAN, image)[1, 1] == pytest.approx(27 / 9)
    assert respond(MEAN, image)[0, 0] == pytest.approx((4 * 0 + 5 * 4 + 2 * 2 + 3 * 2 + 1) / 9)  # the edge is repeated
    assert respond(GAUSSIAN, image)[1, 1] == pytest.approx((5 + 2 + 9 + 2 + 2 * (2 + 3 + 3 + 0) + 4 * 1) / 16)


def test_a_step_edge() -> None:
    for row in respond(SOBEL_X, STEP):
        assert row.tolist() == [0, 0, 40, 40, 0, 0]
    assert respond(SOBEL_X, 10 - STEP)[2].tolist() == [0, 0, -40, -40, 0, 0]
    np.testing.assert_array_equal(respond(SOBEL_Y, STEP), 0)
    assert respond(SOBEL_Y, STEP.T)[:, 2].tolist() == [0, 0, 40, 40, 0, 0]
    assert kernels.gradient_magnitude(10 - STEP)[2].tolist() == [0, 0, 40, 40, 0, 0]
    assert respond(LAPLACIAN, STEP)[2].tolist() == [0, 0, 10, -10, 0, 0]  # changes its sign on the edge


def test_the_magnitude_joins_both_directions() -> None:
    image = np.random.default_rng(1).normal(size=(6, 8))
    across, down = respond(SOBEL_X, image), respond(SOBEL_Y, image)
    np.testing.assert_allclose(kernels.gradient_magnitude(image), np.sqrt(across**2 + down**2))


@pytest.mark.parametrize("kernel", LINES, ids=lambda kernel: kernel.name)
def test_a_line_is_answered_by_the_mask_of_its_direction(kernel: kernels.Kernel) -> None:
    """A line of brightness 1 through the middle: three twos under its own mask, less under the others."""
    line = (kernel.weights > 0).astype(float)
    answers = {other.name: respond(other, line)[1, 1] for other in LINES}
    assert answers.pop(kernel.name) == 6
    assert max(answers.values()) <= 0


def test_the_laplacian_of_gaussian_is_the_one_after_the_other() -> None:
    image = np.random.default_rng(1).uniform(0, 255, (9, 9))
    expected = respond(LAPLACIAN, respond(GAUSSIAN, image))
    np.testing.assert_allclose(respond(LAPLACIAN_OF_GAUSSIAN, image)[2:-2, 2:-2], expected[2:-2, 2:-2])


def test_the_gaussian_is_what_its_formula_says() -> None:
    y, x = np.mgrid[-1:2, -1:2]
    bell = np.exp(-(x**2 + y**2) / (2 * kernels.MASK_SIGMA**2))
    np.testing.assert_allclose(GAUSSIAN.weights, bell / bell.sum())
    assert round(kernels.MASK_SIGMA, 2) == 0.85


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_kernels_are_applied_as_networks_apply_theirs(kernel: kernels.Kernel) -> None:
    """Not flipped: scipy.ndimage.convolve, which flips, needs the kernel turned."""
    image = np.random.default_rng(1).normal(size=(6, 8))
    turned = ndimage.convolve(image, kernel.weights[::-1, ::-1], mode="nearest")
    np.testing.assert_allclose(respond(kernel, image), turned)


def test_grey_is_brightness_and_large_images_are_shrunk() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [80, 80, 80]]], np.uint8)
    assert kernels.in_grey(colours).tolist() == [[76, 150, 29, 80]]
    large = np.full((300, 200, 3), 120, np.uint8)
    assert kernels.in_grey(large).shape == (64, 43)
    assert (kernels.in_grey(large) == 120).all()
    assert kernels.in_grey(large[:1, :, :]).shape == (1, 64)
