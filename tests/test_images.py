import io
import sys
import threading
import warnings

import numpy as np
import pytest
from image_files import interlaced_png
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile

from graft.images import ImageError, decode, read, resize

RED, WHITE, BLACK = [255, 0, 0], [255, 255, 255], [0, 0, 0]


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_lossless_rgb_comes_back_unchanged():
    pixels = noise(5, 7)
    image = decode(encoded(Image.fromarray(pixels)))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_every_supported_format_is_read_by_its_bytes(form):
    image = decode(encoded(Image.new("RGB", (9, 6), (200, 30, 40)), form))
    assert image.shape == (6, 9, 3)
    assert np.abs(image.astype(int) - [200, 30, 40]).max() < 12  # lossy formats come close


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(np.array([[0, 128]], np.uint8)), [[[0] * 3, [128] * 3]], id="grey"),
        pytest.param(Image.fromarray(np.array([[False, True]])), [[BLACK, WHITE]], id="one bit"),
        pytest.param(
            Image.fromarray(np.array([[0, 257, 254 * 257, 65535]], np.uint16)),
            [[[0] * 3, [1] * 3, [254] * 3, [255] * 3]],
            id="16-bit grey is scaled, not clipped",
        ),
        pytest.param(
            Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)),
            [[RED, WHITE, [204] * 3]],
            id="transparency is shown on white",
        ),
        pytest.param(Image.new("LA", (1, 1), (0, 0)), [[WHITE]], id="grey with alpha"),
    ],
)
def test_every_mode_becomes_rgb(image, expected):
    np.testing.assert_array_equal(decode(encoded(image)), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 1), (8, 8), (9, 17)])
def test_every_pass_of_an_interlaced_png_counts(size):
    np.testing.assert_array_equal(decode(interlaced_png(noise(*size))), noise(*size))
    if size != (1, 1):  # which has one pass only
        with pytest.raises(ImageError, match=r"^damaged: .* bytes of pixels are missing$"):
            decode(interlaced_png(noise(*size), passes=0))


def test_palette_colours_and_their_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 0, 9, 8, 7])
    image.putdata([0, 1, 2])
    np.testing.assert_array_equal(decode(encoded(image)), [[RED, BLACK, [9, 8, 7]]])
    np.testing.assert_array_equal(decode(encoded(image, transparency=1)), [[RED, WHITE, [9, 8, 7]]])


def test_a_transparent_colour_of_an_rgb_png_is_shown_on_white():
    image = Image.fromarray(np.array([[RED, BLACK]], np.uint8))
    np.testing.assert_array_equal(decode(encoded(image, transparency=(0, 0, 0))), [[RED, WHITE]])


def test_cmyk_becomes_rgb():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode(encoded(red, "JPEG")).astype(int) - RED).max() < 12


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(form):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(content), np.full((4, 4, 3), RED))


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
STORED = {  # EXIF orientation -> how a camera stores the upright picture
    1: UPRIGHT,
    2: np.fliplr(UPRIGHT),
    3: np.rot90(UPRIGHT, 2),
    4: np.flipud(UPRIGHT),
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation])), exif=exif)
    np.testing.assert_array_equal(decode(content)[..., 0], UPRIGHT)


def test_unreadable_metadata_do_not_cost_the_picture():
    picture = Image.fromarray(noise(4, 8))
    np.testing.assert_array_equal(decode(encoded(picture, exif=b"Exif\x00\x00MM\x00\x00" + bytes(20))), noise(4, 8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty-file", id="no bytes"),
        pytest.param(b"<html>not found</html>", "not-an-image", id="a web page"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not-an-image", id="a program to run"),
        pytest.param(encoded(Image.fromarray(noise(40, 40)), "JPEG")[:-500], "truncated", id="half a photo"),
        pytest.param(encoded(Image.fromarray(noise(40, 40)))[:-500], "truncated", id="half a PNG"),
        pytest.param(encoded(Image.fromarray(noise(40, 40)), "WEBP")[:-500], "truncated", id="half a WebP"),
        pytest.param(encoded(Image.new("L", (9, 9)), "AVIF"), "not-an-image", id="a format that is not supported"),
    ],
)
def test_unreadable_bytes_are_refused_with_a_reason(content, reason):
    with pytest.raises(ImageError) as caught:
        decode(content)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch):
    content = encoded(Image.new("L", (50, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    assert decode(content).shape == (50, 50, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2499)  # where Pillow itself would only warn
    with pytest.raises(ImageError, match=r"^too-large: 50 x 50 px are more than 2,499 pixels$"):
        decode(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_the_wanted_size_is_asked_of_every_format(form):
    content = encoded(Image.new("RGB", (20, 10)), form)
    assert decode(content, max_pixels=200, min_side=10).shape == (10, 20, 3)
    with pytest.raises(ImageError, match=r"^too-large: "):
        decode(content, max_pixels=199)
    with pytest.raises(ImageError, match=r"^too-small: 20 x 10 px, where the shorter side must have 11$"):
        decode(content, min_side=11)


def test_a_picture_tells_how_its_file_stores_it():
    picture = read(encoded(Image.new("CMYK", (16, 16)), "JPEG"))
    assert (picture.format, picture.mode, picture.pixels.shape) == ("JPEG", "CMYK", (16, 16, 3))


def test_no_other_library_can_have_half_a_picture_accepted(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF"):
        with pytest.raises(ImageError, match=r"^truncated"):
            decode(encoded(Image.fromarray(noise(40, 40)), form)[:-500])


@pytest.fixture
def switch_often():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_picture_that_finds_no_memory_is_too_large(monkeypatch):
    def load(image):
        raise MemoryError

    monkeypatch.setattr(BmpImageFile, "load", load)
    with pytest.raises(ImageError, match=r"^too-large: there is not enough memory to decode it$"):
        decode(encoded(Image.new("L", (9, 9)), "BMP"))


def test_threads_leave_the_settings_of_the_process_as_they_were(switch_often):
    contents = [
        encoded(Image.fromarray(noise(16, 16, seed)), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09") for seed in range(4)
    ]
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS

    def work(seed):
        for _ in range(50):
            wrong.extend(
                [seed] * (not np.array_equal(decode(contents[seed], max_pixels=256 + seed), noise(16, 16, seed)))
            )

    wrong = []
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (warnings.filters, Image.MAX_IMAGE_PIXELS) == (before, limit)


HALVES = np.zeros((40, 80, 3), np.uint8)  # black left, white right
HALVES[:, 40:] = 255


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_resizing_to_its_own_size_changes_nothing(how):
    square = noise(24, 24)
    np.testing.assert_array_equal(resize(square, 24, how), square)


def test_stretch_keeps_the_whole_picture():
    image = resize(HALVES, 20, "stretch")
    np.testing.assert_array_equal(image[10, [0, 5, 14, 19], 0], [0, 0, 255, 255])


def test_crop_keeps_the_centred_square():
    wide = noise(10, 30)
    np.testing.assert_array_equal(resize(wide, 10, "crop"), wide[:, 10:20])
    tall = noise(30, 10)
    np.testing.assert_array_equal(resize(tall, 10, "crop"), tall[10:20])


def test_pad_centres_the_picture_on_black():
    image = resize(np.full((40, 80, 3), 200, np.uint8), 20, "pad")
    np.testing.assert_array_equal(image[:, 0, 0], [0] * 5 + [200] * 10 + [0] * 5)


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 8, "stretch")[2:6, 2:6].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 5000, 3), (5000, 1, 3), (1, 1, 3)])
def test_extreme_shapes_can_be_resized(shape, how):
    image = resize(np.full(shape, 90, np.uint8), 16, how)
    assert image.shape == (16, 16, 3)
    assert image.max() == 90


def test_an_unknown_way_of_resizing_is_refused():
    with pytest.raises(ValueError, match="stretch, crop or pad, received 'squash'"):
        resize(HALVES, 8, "squash")
