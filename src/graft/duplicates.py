"""The same picture found again: a perceptual hash proposes pairs, the correlation of their pixels confirms them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from graft.images import FILTER

THUMBNAIL_SIDE = 32  # px
BLOCKS = 8  # per side of a thumbnail; their means bound the correlation from above
ROWS = 1024  # searched or compared at once
READ = 128  # thumbnails read at once, eight bytes for each of their values
FOUND = 2**24  # hashes that one search may return; fewer than 100 queries at once run on one core


@dataclass(frozen=True)
class Duplicates:
    """Which images show the same picture; images are row numbers.

    Attributes:
        leader: of shape (n,), the image that leads each image's star; itself where it leads or stands alone.
        bridges: of shape (m, 2), in order: confirmed pairs i < j from two stars. The first of the images with the same
            pixels stands for them all.
    """

    leader: np.ndarray
    bridges: np.ndarray


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """The signs of an image's 64 lowest frequencies against their median: uint8 (8,), packed bits.

    Args:
        image: uint8 (height, width, 3).
    """
    return np.packbits(imagehash.phash(Image.fromarray(image)).hash)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """An image stretched to uint8 (32, 32, 3), antialiased.

    Args:
        image: uint8 (height, width, 3).
    """
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), FILTER))


def find_duplicates(
    pixel_ids: Sequence[str] | np.ndarray, hashes: np.ndarray, thumbnails: Any, *, distance: int, correlation: float
) -> Duplicates:
    """Which images have the same pixels, or hashes that nearly agree and thumbnails that correlate.

    Every image joins the first leader before it with which it is itself confirmed, or leads from then on, so a chain of
    small differences does not tie its ends together. Thumbnails of one grey level correlate with nothing.

    Args:
        pixel_ids: n names, equal where the pixels are.
        hashes: uint8 (n, 8), packed bits.
        thumbnails: uint8 (n, side, side, 3), an array or anything else that gives rows for a slice or row numbers.
        distance: bits in which two hashes differ at most.
        correlation: Pearson's, of all values of two thumbnails, at least.
    """
    names = pd.factorize(np.asarray(pixel_ids, object))[0]
    originals = np.unique(names, return_index=True)[1]  # the first row of each name
    pictures = _Pictures(thumbnails, originals, correlation)
    hashed = _Hashed(hashes[pictures.rows], distance)
    star = _stars(pictures, hashed)
    pairs = pictures.rows[_bridges(pictures, hashed, star)].reshape(-1, 2)
    leader = np.arange(len(names))
    leader[pictures.rows] = pictures.rows[star]
    return Duplicates(leader[originals[names]], pairs[np.lexsort(pairs.T[::-1])])


class _Pictures:
    """Those of some thumbnails that are not flat, and which of them correlate; pictures are numbered from 0.

    Attributes:
        rows: of shape (p,), ascending: where each picture stands among all thumbnails.
    """

    def __init__(self, thumbnails: Any, rows: np.ndarray, correlation: float) -> None:
        self._thumbnails, self._correlation = thumbnails, correlation
        parts = [_moments(thumbnails[rows[start : start + READ]]) for start in range(0, max(1, len(rows)), READ)]
        sums, spreads, blocks = map(np.concatenate, zip(*parts, strict=True))
        uneven = spreads > 0
        self.rows, self._sums, self._spreads, self._blocks = rows[uneven], sums[uneven], spreads[uneven], blocks[uneven]

    def correlated(self, one: np.integer, others: np.ndarray) -> np.ndarray:
        """Those of the others that correlate with one.

        Thumbnails brought to mean 0 and length 1 lie at a squared distance of 2 - 2r, and means over blocks only bring
        them nearer, so most others need no look at their pixels. Those that do are compared in whole numbers, for
        the threshold must not depend on the order in which numbers were added.
        """
        alike = [others[:0]]
        for start in range(0, len(others), ROWS):
            some = others[start : start + ROWS]
            gap = self._blocks[some] - self._blocks[one]
            some = some[np.einsum("ij,ij->i", gap, gap) <= 2 - 2 * self._correlation + 1e-4]  # of float32
            if len(some):
                alike.append(some[self._confirmed(one, some)])
        return np.concatenate(alike)

    def _confirmed(self, one: np.integer, others: np.ndarray) -> np.ndarray:
        value, values = self._values(np.array([one]))[0], self._values(others)
        products = np.einsum("ij,j->i", values, value).astype(np.int64)
        covariances = value.size * products - self._sums[others] * self._sums[one]
        return covariances >= self._correlation * np.sqrt(self._spreads[others] * self._spreads[one])

    def _values(self, pictures: np.ndarray) -> np.ndarray:
        """int32 (k, values); up to 100 px per side, the products of two rows add up to less than 2**31."""
        return np.asarray(self._thumbnails[self.rows[pictures]]).reshape(len(pictures), -1).astype(np.int32)


def _moments(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each thumbnail: the sum of its values, their number x their squared deviations, and its block means.

    Returns:
        (k,) and (k,), both whole; and (k, blocks), of the thumbnail brought to mean 0 and length 1, scaled so that two
        thumbnails' squared distance in blocks is at most that in pixels.
    """
    count, block = int(np.prod(thumbnails.shape[1:])), thumbnails.shape[1] // BLOCKS
    exact = thumbnails.astype(np.int64)
    sums = exact.sum(axis=(1, 2, 3))
    spreads = count * np.square(exact).sum(axis=(1, 2, 3)) - sums**2
    means = exact.reshape(-1, BLOCKS, block, BLOCKS, block, 3).mean(axis=(2, 4)).reshape(len(exact), BLOCKS**2 * 3)
    length = np.sqrt(np.maximum(spreads, 1) / count)  # flat ones have none and are left out by the caller
    blocks = (means - sums[:, None] / count) / length[:, None] * block
    return sums, spreads.astype(np.float64), blocks.astype(np.float32)


class _Hashed:
    """Exact search by Hamming distance over the distinct hashes.

    Attributes:
        code: of shape (p,), the number of each picture's hash among the distinct ones.
        codes: how many there are.
    """

    def __init__(self, hashes: np.ndarray, distance: int) -> None:
        unique, inverse = np.unique(hashes, axis=0, return_inverse=True)
        self.code, self.codes, self._distance = inverse.ravel(), len(unique), distance
        self._pictures = np.argsort(self.code, kind="stable")
        self._bounds = np.searchsorted(self.code[self._pictures], np.arange(len(unique) + 1))
        # Some table gets at most distance // tables of the flips: looking so far around in each misses nothing. Where
        # three tables need no more flips than four, theirs are the better, for fewer hashes share a longer key.
        tables = 3 if distance // 3 == distance // 4 else 4
        self._hashes = _deal(unique, tables)
        self._index = faiss.IndexBinaryMultiHash(64, tables, 64 // tables)
        self._index.nflip = distance // tables
        self._index.add(self._hashes)

    def near(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """For each code, the pictures whose hash lies within the distance, ascending; its own pictures included."""
        step = max(1, min(ROWS, FOUND // max(1, self.codes)))
        for start in range(0, len(codes), step):
            queries = self._hashes[codes[start : start + step]]
            bounds, _, found = self._index.range_search(queries, self._distance + 1)  # strictly below the radius
            for low, high in itertools.pairwise(bounds):
                yield self._of(found[low:high])

    def _of(self, codes: np.ndarray) -> np.ndarray:
        first, sizes = self._bounds[codes], self._bounds[codes + 1] - self._bounds[codes]
        places = np.arange(sizes.sum()) + np.repeat(first - sizes.cumsum() + sizes, sizes)
        return np.sort(self._pictures[places])


def _deal(hashes: np.ndarray, tables: int) -> np.ndarray:
    """The hashes with their bits permuted, so that no table gets more than its share of those that hardly vary."""
    bits, dealt = np.unpackbits(hashes, axis=1), 64 // tables * tables
    order = np.argsort(np.abs(bits.sum(axis=0) / max(1, len(bits)) - 0.5), kind="stable")
    return np.packbits(bits[:, [*order[:dealt].reshape(-1, tables).T.ravel(), *order[dealt:]]], axis=1)


def _stars(pictures: _Pictures, hashed: _Hashed) -> np.ndarray:
    """The leader of each picture, of shape (p,). A leader claims all it is confirmed with and nobody claimed before."""
    leader = np.full(len(pictures.rows), -1)
    for start in range(0, len(leader), ROWS):
        left = start + np.flatnonzero(leader[start : start + ROWS] < 0)
        for picture, near in zip(left, hashed.near(hashed.code[left]), strict=True):
            if leader[picture] < 0:
                leader[picture] = picture
                leader[pictures.correlated(picture, near[leader[near] < 0])] = picture
    return leader


def _bridges(pictures: _Pictures, hashed: _Hashed, leader: np.ndarray) -> np.ndarray:
    """Confirmed pairs of pictures i < j from different stars, of shape (m, 2).

    Two leaders are never confirmed, or the later would not lead: one end of each bridge is led.
    """
    led = leader != np.arange(len(leader))
    pairs = [np.empty((0, 2), int)]
    codes = np.unique(hashed.code[led])
    for code, near in zip(codes, hashed.near(codes), strict=True):
        star = leader[near]
        if (star == star[0]).all():  # however many there are
            continue
        for picture in near[led[near] & (hashed.code[near] == code)]:
            foreign = near[(star != leader[picture]) & ((near > picture) | ~led[near])]
            found = pictures.correlated(picture, foreign)
            pairs.append(np.sort(np.stack([np.full(len(found), picture), found], axis=1), axis=1))
    return np.concatenate(pairs)
