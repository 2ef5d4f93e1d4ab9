from __future__ import annotations

import pytest

from graft import runtime
from graft.backbones import BackboneError
from graft.map_sizes import input_for_map, map_shape
from graft.sections import Base


def base(application: str = "VGG16", input_size: int = 32) -> Base:
    runtime.configure(1)
    return Base(
        application=application, input_size=input_size, width=0.25, weights="random", depends_on="data/embedded.md"
    )


def test_the_map_of_a_base_that_halves_five_times_and_drops_the_rest() -> None:
    assert map_shape(base(), 32) == (1, 1, 128)
    assert map_shape(base(), 95) == (2, 2, 128)
    assert map_shape(base(), 96) == (3, 3, 128)


def test_the_smallest_input_is_that_of_the_model_not_of_a_table() -> None:
    """Five times ceil(s / 2) leaves 3 from 65 on, five times floor(s / 2) from 96 on."""
    assert input_for_map(base(), 3) == 96
    assert input_for_map(base(), 2) == 64
    assert input_for_map(base("MobileNet"), 3) == min(
        size for size in (94, 95, 96) if map_shape(base("MobileNet"), size)[0] == 3
    )


def test_a_row_whose_maps_are_large_enough_keeps_its_size() -> None:
    assert input_for_map(base(input_size=101), 3) == 101


def test_maps_that_no_input_gives_are_named() -> None:
    with pytest.raises(BackboneError, match="VGG16 must end in maps of at least 33 x 33, received smaller ones up to"):
        input_for_map(base(), 33)
