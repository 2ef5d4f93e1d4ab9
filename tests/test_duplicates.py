import io
from collections import Counter
from pathlib import Path

import faiss
import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from graft import duplicates
from graft.duplicates import find_duplicates, perceptual_hash, thumbnail
from graft.images import decode
from graft.sources import digits


class Counting:
    """Thumbnails that count how often each row is read."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.read = rows, 0
        self.shape = rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        found = self.rows[wanted]
        self.read += len(found)
        return found


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """So many thumbnails of soft random shapes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((32, 32), Image.Resampling.BICUBIC)) for each in coarse])


def mixed(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return np.rint((1 - share) * one + share * other).astype(np.uint8)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def names(count: int) -> list[str]:
    return [f"{index:04d}" for index in range(count)]


def same_hash(count: int) -> np.ndarray:
    return np.zeros((count, 8), np.uint8)


def by_definition(
    pixel_ids: list[str], hashes: np.ndarray, thumbnails: np.ndarray, distance: int, least: float
) -> tuple[list[int], list[tuple[int, int]], set[tuple[int, int]]]:
    """Leaders, bridges and all confirmed pairs, one pair after the other."""
    bits, confirmed = np.unpackbits(hashes, axis=1), set()
    for j in range(len(pixel_ids)):
        for i in range(j):
            flat = np.ptp(thumbnails[i]) == 0 or np.ptp(thumbnails[j]) == 0
            near = not flat and (bits[i] != bits[j]).sum() <= distance
            if pixel_ids[i] == pixel_ids[j] or (near and correlation(thumbnails[i], thumbnails[j]) >= least):
                confirmed.add((i, j))
    leader: list[int] = []
    for j in range(len(pixel_ids)):
        leader.append(next((i for i in range(j) if leader[i] == i and (i, j) in confirmed), j))
    first = [pixel_ids.index(name) == row for row, name in enumerate(pixel_ids)]
    bridges = [(i, j) for i, j in sorted(confirmed) if leader[i] != leader[j] and first[i] and first[j]]
    return leader, bridges, confirmed


def hostile(seed: int, distance: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """160 images: families of small differences, chains, hashes shared by strangers, copies and flat ones, shuffled."""
    random = np.random.default_rng(seed)
    bases, others = pictures(12, seed), pictures(12, seed + 100)
    others[::2] = random.integers(0, 256, others[::2].shape, np.uint8)  # grain, of which block means show nothing
    thumbnails = [mixed(bases[row % 12], others[row % 12], row // 12 * 0.012) for row in range(120)]
    thumbnails += [np.full((32, 32, 3), level, np.uint8) for level in (0, 0, 200, 255)]
    hashes = random.integers(0, 256, (3, 8), np.uint8)[random.integers(0, 3, len(thumbnails))]
    flips = random.random((len(thumbnails), 64)) < distance / 128
    hashes ^= np.packbits(flips, axis=1)
    pixel_ids = names(len(thumbnails))
    pixel_ids[121] = pixel_ids[120]  # two black ones
    rows = np.concatenate([np.arange(len(thumbnails)), random.integers(0, len(thumbnails), 36)])
    order = random.permutation(rows)
    return [pixel_ids[row] for row in order], hashes[order], np.stack(thumbnails)[order]


@pytest.mark.parametrize(("distance", "least"), [(0, 0.996), (3, 0.98), (5, 0.99), (6, 0.999), (8, 0.95), (15, 0.9)])
def test_the_fast_search_finds_what_the_definition_says(distance: int, least: float) -> None:
    pixel_ids, hashes, thumbnails = hostile(distance, distance)
    leader, bridges, confirmed = by_definition(pixel_ids, hashes, thumbnails, distance, least)

    found = find_duplicates(pixel_ids, hashes, thumbnails, distance=distance, correlation=least)

    assert found.leader.tolist() == leader
    assert [tuple(pair) for pair in found.bridges.tolist()] == bridges
    assert len({leader[i] == leader[j] for i, j in confirmed}) == 2, "the data must hold stars and bridges"


def test_every_confirmed_pair_is_in_one_star_or_a_bridge_in_any_order() -> None:
    pixel_ids, hashes, thumbnails = hostile(1, 6)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pixel_ids))
        shuffled = [pixel_ids[row] for row in order]
        found = find_duplicates(shuffled, hashes[order], thumbnails[order], distance=6, correlation=0.98)
        *_, confirmed = by_definition(shuffled, hashes[order], thumbnails[order], 6, 0.98)
        first = [shuffled.index(name) for name in shuffled]
        bridges = set(map(tuple, found.bridges.tolist()))
        tied = {
            (i, j)
            for i, j in confirmed
            if found.leader[i] == found.leader[j] or tuple(sorted((first[i], first[j]))) in bridges
        }
        assert tied == confirmed
        assert bridges <= confirmed
        assert all(lead == row or (lead, row) in confirmed for row, lead in enumerate(found.leader.tolist()))


def test_neither_chunks_nor_threads_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pixel_ids, hashes, thumbnails = hostile(2, 8)
    expected = find_duplicates(pixel_ids, hashes, thumbnails, distance=8, correlation=0.97)
    assert len(expected.bridges)
    before = faiss.omp_get_max_threads()
    for rows, found_at_once, threads in [(1, 1, 1), (7, 2**22, 3), (64, 500, 2)]:
        monkeypatch.setattr(duplicates, "ROWS", rows)
        monkeypatch.setattr(duplicates, "READ", rows)
        monkeypatch.setattr(duplicates, "FOUND", found_at_once)
        faiss.omp_set_num_threads(threads)
        found = find_duplicates(pixel_ids, hashes, thumbnails, distance=8, correlation=0.97)
        faiss.omp_set_num_threads(before)
        assert np.array_equal(found.leader, expected.leader)
        assert np.array_equal(found.bridges, expected.bridges)


def test_a_chain_does_not_tie_its_ends_together() -> None:
    one, other = pictures(2)
    chain = np.stack([mixed(one, other, share) for share in (0.0, 0.1, 0.2, 0.3)])
    near = min(correlation(chain[i], chain[i + 1]) for i in range(3))
    far = max(correlation(chain[i], chain[i + 2]) for i in range(2))
    assert far < near

    found = find_duplicates(names(4), same_hash(4), chain, distance=0, correlation=(near + far) / 2)

    assert found.leader.tolist() == [0, 0, 2, 2]
    assert found.bridges.tolist() == [[1, 2]]


def test_an_image_joins_the_first_of_two_leaders() -> None:
    one, other = pictures(2)
    ends = [mixed(one, other, 0.0), mixed(one, other, 0.2)]
    images = np.stack([*ends, mixed(one, other, 0.1)])
    least = (correlation(images[0], images[1]) + min(correlation(images[0], images[2]), 1.0)) / 2

    found = find_duplicates(names(3), same_hash(3), images, distance=0, correlation=least)

    assert found.leader.tolist() == [0, 1, 0]
    assert found.bridges.tolist() == [[1, 2]]


def test_images_with_the_same_pixels_are_one_star_even_where_flat() -> None:
    flat = np.zeros((3, 32, 32, 3), np.uint8)
    found = find_duplicates(["black", "grey", "black"], same_hash(3), flat, distance=15, correlation=0.6)

    assert found.leader.tolist() == [0, 1, 0]
    assert found.bridges.shape == (0, 2)


def test_images_that_are_almost_flat_are_compared_as_any() -> None:
    images = np.full((3, 32, 32, 3), 100, np.uint8)
    images[0, 5, 5, 0] = images[1, 5, 5, 0] = images[2, 9, 9, 0] = 101

    found = find_duplicates(names(3), same_hash(3), images, distance=0, correlation=0.99)

    assert found.leader.tolist() == [0, 0, 2]


def test_speckles_are_weighed_by_what_they_change_of_the_picture() -> None:
    image = pictures(1)[0] // 2
    speckled = image.copy()
    speckled[::4, ::4] += 15
    images = np.stack([image, speckled])
    least = correlation(image, speckled) - 1e-6

    assert find_duplicates(names(2), same_hash(2), images, distance=0, correlation=least).leader.tolist() == [0, 0]
    assert find_duplicates(names(2), same_hash(2), images, distance=0, correlation=least + 2e-6).leader.tolist() == [
        0,
        1,
    ]


def test_copies_follow_the_first_image_with_their_pixels() -> None:
    one, other = pictures(2)
    images = np.stack([mixed(one, other, share) for share in (0.0, 0.1, 0.1, 0.2, 0.2)])
    least = (correlation(images[0], images[1]) + correlation(images[0], images[3])) / 2

    found = find_duplicates(["a", "b", "b", "c", "c"], same_hash(5), images, distance=0, correlation=least)

    assert found.leader.tolist() == [0, 0, 0, 3, 3]
    assert found.bridges.tolist() == [[1, 3]], "one pair stands for the four"


@pytest.mark.parametrize("distance", range(16))
def test_hashes_differ_in_at_most_so_many_bits(distance: int) -> None:
    random = np.random.default_rng(distance)
    images = np.repeat(pictures(20), 3, axis=0)
    hashes = np.repeat(random.integers(0, 256, (20, 8), np.uint8), 3, axis=0)
    for row in range(20):
        for place, flips in enumerate((distance, distance + 1), start=1):
            bits = np.zeros(64, bool)
            bits[random.choice(64, flips, replace=False)] = True
            hashes[3 * row + place] ^= np.packbits(bits)

    leader = find_duplicates(names(60), hashes, images, distance=distance, correlation=0.99).leader.reshape(20, 3)

    assert (leader[:, 1] == leader[:, 0]).all()
    assert (leader[:, 2] != leader[:, 0]).all()


def test_correlation_one_asks_for_the_same_thumbnail() -> None:
    images = np.repeat(pictures(40), 3, axis=0)
    images[2::3, 0, 0, 0] ^= 1

    found = find_duplicates(names(120), same_hash(120), images, distance=0, correlation=1)

    assert found.leader.tolist() == [row - row % 3 + 2 * (row % 3 == 2) for row in range(120)]


def test_brightness_and_contrast_do_not_matter_but_colour_does() -> None:
    image = pictures(1)[0]
    darker, paler = image // 2, 100 + image // 4
    swapped = image[..., ::-1]
    images = np.stack([image, darker, paler, swapped, 255 - image])

    found = find_duplicates(names(5), same_hash(5), images, distance=0, correlation=0.99)

    assert found.leader.tolist() == [0, 0, 0, 3, 4]


def test_thousands_of_almost_the_same_frame_cost_no_more_than_a_look_at_each() -> None:
    count, random = 5000, np.random.default_rng(0)
    frames = np.repeat(pictures(1) // 2 + 60, count, axis=0)
    frames += random.integers(0, 4, frames.shape, np.uint8)
    hashes = np.packbits(random.random((count, 64)) < 0.02, axis=1)
    thumbnails = Counting(frames)

    found = find_duplicates(names(count), hashes, thumbnails, distance=15, correlation=0.99)

    assert not found.leader.any()
    assert thumbnails.read < 3 * count


def test_thousands_of_strangers_with_one_hash_are_told_apart_by_few_looks() -> None:
    count = 5000
    thumbnails = Counting(pictures(count))

    found = find_duplicates(names(count), same_hash(count), thumbnails, distance=6, correlation=0.99)

    assert np.array_equal(found.leader, np.arange(count))
    assert thumbnails.read < 1.1 * count


def test_nothing_gives_nothing() -> None:
    found = find_duplicates([], same_hash(0), np.empty((0, 32, 32, 3), np.uint8), distance=6, correlation=0.99)

    assert found.leader.shape == (0,)
    assert found.bridges.shape == (0, 2)


def saved(image: Image.Image, kind: str, **options: int) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return decode(buffer.getvalue())


def copies_found(originals: list[np.ndarray], copies: list[np.ndarray], distance: int, least: float) -> Counter[bool]:
    """How many copies lie in their original's star."""
    images = [*originals, *copies]
    hashes = np.stack([perceptual_hash(image) for image in images])
    thumbnails = np.stack([thumbnail(image) for image in images])
    found = find_duplicates(names(len(images)), hashes, thumbnails, distance=distance, correlation=least)
    assert len(set(found.leader[: len(originals)])) == len(originals), "the originals differ"
    return Counter((found.leader[len(originals) :] == found.leader[: len(originals)]).tolist())


def test_a_picture_is_found_again_re_encoded_or_resized_but_not_mirrored() -> None:
    photos = [Image.fromarray(image).resize((240, 180), Image.Resampling.BICUBIC) for image in pictures(20)]
    originals = [saved(photo, "PNG") for photo in photos]
    for copies in (
        [saved(photo, "JPEG", quality=50) for photo in photos],
        [saved(photo.resize((97, 61)), "PNG") for photo in photos],
    ):
        assert copies_found(originals, copies, 6, 0.99) == {True: 20}
    mirrored = [np.asarray(ImageOps.mirror(photo)) for photo in photos]
    assert copies_found(originals, mirrored, 6, 0.99) == {False: 20}


def test_the_hash_is_the_librarys() -> None:
    image = np.asarray(Image.fromarray(pictures(1)[0]).resize((50, 40)))
    bits = imagehash.phash(Image.fromarray(image)).hash

    assert np.array_equal(np.unpackbits(perceptual_hash(image)).reshape(8, 8), bits)
    assert perceptual_hash(image).dtype == np.uint8


def test_a_thumbnail_is_the_stretched_picture() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = (10, 100, 200)
    small = thumbnail(image)

    assert small.shape == (32, 32, 3)
    assert small.dtype == np.uint8
    assert (small[:, :14] == 0).all()
    assert (small[:, 18:] == (10, 100, 200)).all()


def test_genuine_digits_look_like_duplicates_to_the_hash_but_not_to_the_pixels() -> None:
    images = [decode(record.content) for record in digits()]
    hashes = np.stack([perceptual_hash(image) for image in images])
    thumbnails = np.stack([thumbnail(image) for image in images])
    apart = np.bitwise_count(hashes[:, None] ^ hashes).sum(axis=-1, dtype=int)
    proposed = ((apart <= 6).sum(axis=1) > 1).sum()

    found = find_duplicates(names(len(images)), hashes, thumbnails, distance=6, correlation=0.992)

    assert proposed > 400
    assert np.array_equal(found.leader, np.arange(1797))


@pytest.mark.real_data
def test_photographs_are_found_again_and_not_taken_for_each_other(photographs: Path) -> None:
    files = sorted(photographs.rglob("*.jpg"))[::8]
    photos = [Image.open(file).convert("RGB") for file in files]
    originals = [np.asarray(photo) for photo in photos]
    for copies in (
        [saved(photo, "JPEG", quality=70) for photo in photos],
        [np.asarray(photo.resize((photo.width // 2, photo.height // 2))) for photo in photos],
    ):
        assert copies_found(originals, copies, 6, 0.992) == {True: len(files)}
