"""The size of a base's last map, and the input that makes it large enough."""

from __future__ import annotations

from graft.backbones import BackboneError, build_base
from graft.sections import Base

LARGEST_INPUT = 1024  # px; that a row may ask for


def map_shape(base: Base, input_size: int) -> tuple[int, int, int]:
    """Height, width and channels of the base's last map at an input size, as the built model has them.

    Raises:
        BackboneError: as backbones.build_base.
    """
    height, width, channels = build_base(base.model_copy(update={"input_size": input_size})).output_shape[1:]
    return int(height), int(width), int(channels)


def input_for_map(base: Base, side: int) -> int:
    """The row's own input size where its last map is at least side x side, else the smallest size where it is.

    A larger input never gives a smaller map. How much larger it must be depends on the padding: of the bases whose
    maps halve five times, 3x3 needs 96 px in VGG16, which drops what does not fill a window, and 65 px in ResNet50,
    which pads.

    Args:
        base: of the row.
        side: of the map.

    Raises:
        BackboneError: the row's own size is refused by the application, or no size up to LARGEST_INPUT is enough.
    """
    below, enough = base.input_size, base.input_size
    while min(map_shape(base, enough)[:2]) < side:
        if enough == LARGEST_INPUT:
            raise BackboneError(
                f"{base.application} must end in maps of at least {side} x {side}, received smaller ones up to "
                f"{LARGEST_INPUT} px"
            )
        below, enough = enough, min(2 * enough, LARGEST_INPUT)
    while enough - below > 1:
        middle = (below + enough) // 2
        if min(map_shape(base, middle)[:2]) < side:
            below = middle
        else:
            enough = middle
    return enough
