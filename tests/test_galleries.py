import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graft.artifacts import Manifest, Predictions
from graft.reporting import galleries
from graft.shards import Shards, ShardWriter
from graft.storage import ArtifactError

CLASSES = ("ant", "bee")


@pytest.fixture
def images(tmp_path):
    """Twenty images of 10 px, image i all of the value 10 i."""
    with ShardWriter(tmp_path, "images", (10, 10, 3), np.uint8) as writer:
        writer.append(np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 300).reshape(20, 10, 10, 3))
    return Shards(tmp_path, "images")


@pytest.fixture
def manifest():
    names = [f"i{number}" for number in range(20)]
    rows = pd.DataFrame({"image_id": names, "label": "ant", "split": ["train"] * 4 + ["test"] * 16, "group": names})
    rows = rows.assign(source=[f"photos/{name}.png" for name in names], width=10, height=10)
    return Manifest(rows, CLASSES)


def predictions(confidences):
    """Of test images i4, i5, ..., all ants, by their probability of being one."""
    ids = [f"i{number + 4}" for number in range(len(confidences))]
    rows = pd.DataFrame({"image_id": ids, "split": "test", "label": "ant"})
    return Predictions(rows, np.array([[p, 1 - p] for p in confidences]), CLASSES)


def grey(png):
    return int(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[0, 0, 0])


def test_confident_mistakes_and_doubtful_hits_come_first(images, manifest):
    found = predictions([0.4, 0.1, 0.9, 0.6, 0.3])
    mistakes, doubts = galleries.mistakes_and_doubts(found, "test", manifest, images)
    assert [tile.caption for tile in mistakes] == ["90 %", "70 %", "60 %"]
    assert [grey(tile.png) for tile in mistakes] == [50, 80, 40]
    assert {(tile.true, tile.predicted) for tile in mistakes} == {("ant", "bee")}
    assert [(tile.caption, grey(tile.png), tile.predicted) for tile in doubts] == [
        ("60 %", 70, "ant"),
        ("90 %", 60, "ant"),
    ]
    assert mistakes[0].title == "photos/i5.png"


def test_no_more_than_a_row_is_shown_and_ties_keep_their_order(images, manifest):
    mistakes, doubts = galleries.mistakes_and_doubts(predictions([0.2] * 16), "test", manifest, images)
    assert [tile.title for tile in mistakes] == [f"photos/i{number}.png" for number in range(4, 4 + galleries.TILES)]
    assert doubts == []


def test_a_split_without_images_has_no_gallery(images, manifest):
    assert galleries.mistakes_and_doubts(predictions([0.2]), "validation", manifest, images) == ([], [])


def test_an_unknown_image_is_named(images, manifest):
    found = predictions([0.2])
    found.rows["image_id"] = "elsewhere"
    with pytest.raises(ArtifactError, match="'elsewhere' is not in the manifest"):
        galleries.mistakes_and_doubts(found, "test", manifest, images)


def test_suspects_show_label_and_suggestion(images, manifest):
    suspects = pd.DataFrame(
        {"image_id": ["i3", "i0"], "source": ["photos/i3.png", "photos/i0.png"], "split": ["train", "train"],
         "label": "ant", "suggested": "bee", "probability_of_suggested": [0.99, 0.8]}
    )  # fmt: skip
    tiles = galleries.suspect_tiles(suspects, manifest, images)
    assert [(tile.true, tile.predicted, tile.caption) for tile in tiles] == [
        ("ant", "bee", "99 %, train"),
        ("ant", "bee", "80 %, train"),
    ]
    assert [grey(tile.png) for tile in tiles] == [30, 0]
    assert galleries.suspect_tiles(suspects.iloc[:0], manifest, images) == []


@pytest.mark.parametrize(("side", "shown"), [(8, 96), (28, 84), (96, 96), (224, 96)])
def test_small_images_are_enlarged_by_whole_pixels_and_large_ones_shrunk(side, shown):
    random = np.random.default_rng(0)
    picture = random.integers(0, 255, (side, side, 3), np.uint8)
    shrunk_or_enlarged = galleries.thumbnail(picture)
    assert shrunk_or_enlarged.shape == (shown, shown, 3)
    if shown % side == 0:
        assert (shrunk_or_enlarged == np.kron(picture, np.ones((shown // side, shown // side, 1), np.uint8))).all()
