import base64
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_files import encoded, oriented, scene
from tiny_models import COLOURS, png

from graft.served_images import LONGEST_PATH, InputError, Limits, image_pixels, listed

NONE = Limits()
RED = png("red")


def base64_of(content):
    return base64.b64encode(content).decode()


def pixels(image, limits=NONE, *, paths=True, position=3):
    return image_pixels(image, position, COLOURS, limits, paths=paths)


def refused(image, limits=NONE, *, paths=True):
    """The reason, without the image's position."""
    with pytest.raises(InputError) as caught:
        pixels(image, limits, paths=paths)
    message = str(caught.value)
    assert message.startswith("image 3: ")
    assert "\n" not in message
    assert len(message) < 300
    return message.removeprefix("image 3: ")


@pytest.mark.parametrize(
    "content",
    [
        encoded(scene(1), "JPEG", exif=oriented(6)),
        encoded(np.dstack([scene(2), np.full((24, 32), 100, np.uint8)]), "PNG"),
        encoded(scene(3)[:, :, 0], "PNG"),
    ],
    ids=["turned by EXIF", "transparent", "grey"],
)
def test_a_file_is_the_same_as_base64_and_by_its_path(tmp_path, content):
    (tmp_path / "picture").write_bytes(content)
    expected = COLOURS.pixels(content)
    for image in (base64_of(content), base64.encodebytes(content).decode(), tmp_path / "picture"):
        np.testing.assert_array_equal(pixels(image), expected)


def test_rgb_is_the_same_as_an_array_of_any_kind_of_whole_numbers_and_as_lists():
    picture = scene(4)
    expected = COLOURS.pixels(encoded(picture, "PNG"))
    for image in (
        picture,
        picture.astype(np.int64),
        picture.tolist(),
        tuple(picture.tolist()),
        picture[:, ::-1][:, ::-1],
    ):
        np.testing.assert_array_equal(pixels(image), expected)


def test_text_is_a_path_where_it_has_a_letter_that_base64_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ants").mkdir()
    for name in ("ants/one.png", "ants/two", "a ant", "ünï"):
        Path(name).write_bytes(RED)
    for path in ("ants/one.png", "./ants/two", "a ant", "ünï", Path("ants/two"), str(tmp_path / "ants" / "one.png")):
        np.testing.assert_array_equal(pixels(path), COLOURS.pixels(RED))
    assert refused("ants/two") == (  # nothing but letters of base64, whatever lies on the disk
        "not-an-image: the bytes are none of JPEG, PNG, BMP, GIF, WEBP, TIFF"
        "; a path of such letters alone is written ./path"
    )


def test_where_paths_are_not_allowed_nothing_is_learnt_of_the_disk(tmp_path):
    (tmp_path / "there.png").write_bytes(RED)
    reasons = {
        refused(path, paths=False)
        for path in (str(tmp_path / "there.png"), str(tmp_path / "gone.png"), tmp_path, "/etc/pass.wd", "\0", "a\tb")
    }
    assert reasons == {"not base64, whose letters are A-Z a-z 0-9 + / = alone; a server reads no files"}
    np.testing.assert_array_equal(pixels(base64_of(RED), paths=False), COLOURS.pixels(RED))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("", "empty-file: the file has no bytes"),
        ("AAA", "not base64 of an image file: Incorrect padding"),
        ("A" * LONGEST_PATH + "!", "not base64 of an image file: Only base64 data is allowed"),
        (base64_of(b"no picture"), "not-an-image: the bytes are none of JPEG, PNG, BMP, GIF, WEBP, TIFF"),
        ("./gone.png", "the path names no file"),
        ("/dev/./zero", "the path names no regular file"),
        ("a\0.png", "the path names no file"),
        (RED, "expected base64 text, a path or RGB values, received bytes"),
        (None, "expected base64 text, a path or RGB values, received NoneType"),
        (7, "expected base64 text, a path or RGB values, received int"),
        ({"b64": "x"}, "expected base64 text, a path or RGB values, received dict"),
    ],
)
def test_what_is_no_image_is_refused_with_one_short_reason(image, reason):
    assert refused(image).removesuffix("; a path of such letters alone is written ./path") == reason


def test_a_broken_file_keeps_the_readers_reason():
    assert refused(base64_of(encoded(scene(5), "JPEG")[:200])).startswith("truncated: JPEG: ")


RGB = "expected whole numbers 0..255 of shape (height, width, 3), received "


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.zeros((4, 5), np.uint8), "shape (4, 5)"),
        (np.zeros((4, 5, 4), np.uint8), "shape (4, 5, 4)"),
        (np.zeros((1, 4, 5, 3), np.uint8), "shape (1, 4, 5, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "shape (0, 5, 3)"),
        ([], "shape (0,)"),
        ([[[1, 2, 3], [1, 2]]], "lists of different lengths"),
        (np.full((4, 5, 3), 0.5), "float64"),
        (np.full((4, 5, 3), 0.5, np.float32).tolist(), "float64"),
        (np.ones((4, 5, 3), bool), "bool"),
        ([[["1", "2", "3"]]], "str"),
        ([[[1, 2, None]]], "object"),
        ([[[1, 2, 2**70]]], "object"),
        (np.full((4, 5, 3), 256), "256..256"),
        ([[[-1, 2, 3]]], "-1..3"),
    ],
)
def test_wrong_shapes_types_and_ranges_are_named(image, received):
    assert refused(image).startswith(RGB + received)


def test_limits_hold_for_every_kind_of_image(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(RED)
    for image in (base64_of(RED), path, scene(1, 20, 10)):
        assert pixels(image, Limits(max_pixels=200)).shape == (8, 8, 3)
        assert refused(image, Limits(max_pixels=199)) == "too-large: 20 x 10 px are more than 199 pixels"
    limit = len(RED) / 1e6
    for image in (base64_of(RED), path):
        assert pixels(image, Limits(max_image_mb=limit)).shape == (8, 8, 3)
        assert refused(image, Limits(max_image_mb=limit - 3e-6)).startswith("too-large: ")
    assert refused("A" * 8_000_000, Limits(max_image_mb=5)) == "too-large: 6.0 MB are more than 5 MB"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png") == "the path names no regular file"


def test_images_come_in_lists_arrays_and_tables_of_one_column():
    assert listed(["a", "b"], NONE) == ["a", "b"]
    assert listed([], NONE) == []
    assert listed(pd.DataFrame({"image": ["a", "b"]}), NONE) == ["a", "b"]
    assert listed(pd.Series(["a"]), NONE) == ["a"]
    assert [image.shape for image in listed(np.zeros((2, 4, 5, 3), np.uint8), NONE)] == [(4, 5, 3)] * 2


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        ("abc", "expected a list of images, received str"),
        ({"a": 1}, "expected a list of images, received dict"),
        (None, "expected a list of images, received NoneType"),
        (np.array(1), "expected a list of images, received ndarray"),
        (pd.DataFrame({"a": [1], "b": [2]}), "expected a table of one column of images, received 2 columns"),
        (["a"] * 3, "expected at most 2 images at once, received 3"),
    ],
)
def test_what_holds_no_images_or_too_many_is_refused(received, reason):
    with pytest.raises(InputError, match=f"^{reason}$"):
        listed(received, Limits(max_images=2))


def test_limits_are_read_from_a_models_configuration():
    assert Limits.read(None) == Limits()
    assert Limits.read({"max_images": 2, "max_image_mb": 0.5, "other": "x"}) == Limits(2, 0.5, None)
    for value in (0, -1, "many", True):
        with pytest.raises(InputError, match="max_pixels must be a positive number, received"):
            Limits.read({"max_pixels": value})
