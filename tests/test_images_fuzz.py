import datetime

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import chunk
from odd_images import odd_images
from peak_memory import growth

from graft.images import ImageError, decode

SEEDS = list(odd_images().values())
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
MAX_PIXELS = 1_000_000


def resealed(content: bytes) -> bytes:
    """A PNG with the checksums that its chunks, as they are now, must have; what follows the first cut one stays."""
    sealed, place = content[:8], 8
    while place + 12 + (length := int.from_bytes(content[place : place + 4], "big")) <= len(content):
        sealed += chunk(content[place + 4 : place + 8], content[place + 8 : place + 8 + length])
        place += 12 + length
    return sealed + content[place:]


@st.composite
def mutants(draw) -> bytes:
    """Whole files with bits flipped, numbers changed, parts lost, repeated or taken from another file."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, 63) | st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([1, 2, 4, 12, 60, 400]))
        match draw(st.sampled_from(["flip", "number", "lose", "cut", "repeat", "splice", "join"])):
            case "flip":
                content[place : place + 1] = bytes(
                    [content[place] ^ 1 << draw(st.integers(0, 7))] if content[place:] else []
                )
            case "number":
                number = draw(st.sampled_from(NUMBERS)).to_bytes(4, draw(st.sampled_from(["big", "little"])))
                content[place : place + 4] = number
            case "lose":
                del content[place : place + length]
            case "cut":
                del content[place:]
            case "repeat":
                content[place:place] = content[place : place + length]
            case "splice":
                other = draw(st.sampled_from(SEEDS))
                content[place : place + length] = other[place : place + length]
            case "join":
                other = draw(st.sampled_from(SEEDS))
                content[place:] = other[draw(st.integers(0, len(other))) :]
    whole_png = content.startswith(b"\x89PNG\r\n\x1a\n") and draw(st.booleans())
    return resealed(bytes(content)) if whole_png else bytes(content)


@settings(
    max_examples=2000,
    derandomize=True,
    database=None,
    deadline=datetime.timedelta(seconds=5),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(mutants())
def test_a_mutant_gives_a_picture_or_a_reason(content):
    try:
        image = decode(content, max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS


def claimants() -> list[bytes]:
    """Every seed with every number of its header made large, in either order of bytes."""
    large = [bytes.fromhex(number) for number in ("7fffffff", "ffffff7f", "00ffffff", "ffffff00", "ffff")]
    changed = [
        seed[:place] + number + seed[place + len(number) :]
        for seed in SEEDS
        for place in range(4, 64)
        for number in large
    ]
    return [resealed(content) if content[1:4] == b"PNG" else content for content in changed]


def test_no_number_in_a_header_takes_memory():
    grown, _ = growth("""
from test_images_fuzz import *
contents = claimants()
before = peak()
for content in contents:
    try:
        decode(content, max_pixels=MAX_PIXELS)
    except ImageError:
        continue
""")
    assert grown < 50_000
