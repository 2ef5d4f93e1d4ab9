"""What the pages show of filters: kernels by their numbers or colours, and their answers."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from graft import kernels
from graft.learned_filters import FirstLayer, LearnedFilter
from graft.reporting.filters import kernel_panels, learned_panels

STEP = np.repeat(np.repeat([[[40], [40], [40], [200], [200], [200]]], 6, axis=0), 3, axis=2).astype(np.uint8)


def rgba(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def learned(weights: np.ndarray) -> FirstLayer:
    return FirstLayer("conv", 1, (6, 6), True, [LearnedFilter(4, weights, b"png")])


def test_all_kernels_follow_the_image() -> None:
    titles = [panel.title for panel in kernel_panels(STEP)]
    assert titles == [
        *("The image", "Mean", "Gaussian", "Laplacian"),
        *("Line, horizontal", "Line, vertical", "Line, +45°", "Line, −45°"),
        *("Sobel, across", "Sobel, down", "Sobel, magnitude", "Laplacian of Gaussian"),
    ]
    assert {kernel.name for kernel in kernels.KERNELS} < set(titles)


def test_kernels_are_drawn_with_the_numbers_of_the_books() -> None:
    panels = {panel.title: panel for panel in kernel_panels(STEP)}
    assert panels["Sobel, across"].words == "−1 0 1; −2 0 2; −1 0 1"
    assert panels["Gaussian"].words == "1/16 × (1 2 1; 2 4 2; 1 2 1)"
    cells = panels["Laplacian"].cells
    assert [(cell.sign, cell.strength) for cell in cells[3:5]] == [("positive", 0.25), ("negative", 1.0)]
    assert (cells[0].sign, cells[0].strength, cells[5].row, cells[5].column) == ("zero", 0, 1, 2)


def test_smoothed_images_are_grey_and_others_have_signs() -> None:
    panels = {panel.title: rgba(panel.answer) for panel in kernel_panels(STEP)}
    assert panels["Mean"][2, :, 0].tolist() == [40, 40, 93, 147, 200, 200]
    assert (panels["Mean"][..., 3] == 255).all()
    laplacian = panels["Laplacian"][2]
    assert laplacian[:, 3].tolist() == [0, 0, 255, 255, 0, 0]
    assert laplacian[2, 2] > laplacian[2, 0]  # blue where the dark side is steepest
    assert laplacian[3, 2] < laplacian[3, 0]


def test_an_even_image_gives_no_answer_but_for_its_grey() -> None:
    for panel in kernel_panels(np.full((9, 9, 3), 77, np.uint8)):
        picture = rgba(panel.answer)
        if panel.title in ("The image", "Mean", "Gaussian"):
            assert (picture[..., :3] == 77).all()
        else:
            assert not picture[..., 3].any(), panel.title


def test_a_grey_learned_filter_is_drawn_in_units_of_its_largest_number() -> None:
    (panel,) = learned_panels(learned(np.array([[[0.02], [-0.04]], [[0.0], [0.0301]]])))
    assert (panel.title, panel.words, panel.compact, panel.answer) == ("Filter 4", ".5 −1; 0 .8", True, b"png")
    (dead,) = learned_panels(learned(np.zeros((2, 2, 1))))
    assert dead.words == "0 0; 0 0"


def test_a_large_filter_has_no_numbers_and_a_coloured_one_a_picture() -> None:
    (large,) = learned_panels(learned(np.ones((7, 7, 1))))
    assert (large.words, large.compact) == ("7 × 7 weights", True)
    (five,) = learned_panels(learned(np.ones((5, 5, 1))))
    assert (five.numbered, five.compact) == (True, False)
    (coloured,) = learned_panels(learned(np.eye(3)[None]))
    assert coloured.swatch is not None
    assert coloured.cells == ()
    assert rgba(coloured.swatch)[0, 0].tolist() == [255, 0, 0, 255]
