"""What does the near-duplicate search take for a copy that is none, which copies does it miss, and what does it cost?

    python benchmarks/near_duplicates.py                          # scikit-learn's digits, rendered characters
    python benchmarks/near_duplicates.py --mnist mnist_png --folder hymenoptera

False positives are counted among images of which no two are copies, by comparing every image with every other, without
the index. Copies are made of each photograph of a folder. Cost is measured on rendered characters, whose hashes cluster
as those of real images do; one in fifty is there again, slightly brighter.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from scipy import stats
from tqdm import tqdm

from graft.duplicates import find_duplicates, perceptual_hash, thumbnail
from graft.glyphs import GLYPH_CLASSES, render_glyphs
from graft.images import decode
from graft.sources import digits

DISTANCES = (2, 4, 6, 8, 10)
CORRELATIONS = (0.98, 0.985, 0.99, 0.992, 0.995, 0.998)
SUFFIXES = (".jpg", ".jpeg", ".png")
BLOCK = 2000  # images compared with as many others at once


def photographs(folder: Path) -> Iterator[tuple[Image.Image, str]]:
    """Every image below a folder, by path, with its folder's name."""
    for file in tqdm(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES), disable=None):
        yield Image.fromarray(decode(file.read_bytes())), file.parent.name


def described(images: Iterator[tuple[Image.Image, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes (n, 8), thumbnails (n, 32, 32, 3) and labels (n,)."""
    rows = [(perceptual_hash(pixels), thumbnail(pixels), label) for pixels, label in map(_pixels, images)]
    hashes, thumbnails, labels = zip(*rows, strict=True)
    return np.stack(hashes), np.stack(thumbnails), np.array(labels)


def _pixels(image: tuple[Image.Image, str]) -> tuple[np.ndarray, str]:
    return np.asarray(image[0].convert("RGB")), image[1]


def bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Hamming distances of packed hashes, broadcast."""
    return np.bitwise_count(one ^ other).sum(axis=-1, dtype=np.uint8)


def standardised(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, values) of mean 0 and length 1; one channel where all are equal, which correlates the same."""
    grey = all(np.array_equal(thumbnails[..., 0], thumbnails[..., channel]) for channel in (1, 2))
    values = thumbnails[..., :1] if grey else thumbnails
    flat = values.reshape(len(values), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def alike(hashes: np.ndarray, thumbnails: np.ndarray) -> tuple[pd.DataFrame, dict[int, int]]:
    """All pairs at the least of CORRELATIONS, and at each of DISTANCES the images that the hash alone calls copies."""
    values, pairs = standardised(thumbnails), []
    nearest = np.full(len(hashes), 64, np.uint8)
    for start in tqdm(range(0, len(hashes), BLOCK), disable=None):
        here = slice(start, start + BLOCK)
        for other in range(start, len(hashes), BLOCK):
            there = slice(other, other + BLOCK)
            apart = bits_apart(hashes[here, None], hashes[there])
            if start == other:
                np.fill_diagonal(apart, 64)
            nearest[here] = np.minimum(nearest[here], apart.min(axis=1))
            nearest[there] = np.minimum(nearest[there], apart.min(axis=0))
            r = values[here] @ values[there].T
            i, j = np.nonzero(np.triu(r, 1 if start == other else -BLOCK) >= min(CORRELATIONS))
            pairs.append(pd.DataFrame({"i": start + i, "j": other + j, "r": r[i, j], "bits": apart[i, j]}))
    return pd.concat(pairs), {distance: int((nearest <= distance).sum()) for distance in DISTANCES}


def false_positives(
    name: str, images: Iterator[tuple[Image.Image, str]], distance: int, correlation: float
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Images in a confirmed pair / pairs / pairs of two labels, one row per distance; and the rate at one setting."""
    hashes, thumbnails, labels = described(images)
    pairs, by_hash = alike(hashes, thumbnails)
    pairs["differ"] = labels[pairs["i"]] != labels[pairs["j"]]

    def confirmed(bits: int, least: float) -> tuple[int, pd.DataFrame]:
        here = pairs[(pairs["bits"] <= bits) & (pairs["r"] >= least)]
        return len(np.union1d(here["i"], here["j"])), here

    rows = []
    for bits in DISTANCES:
        row = {"data": name, "images": len(hashes), "distance": bits, "by hash alone": by_hash[bits]}
        for least in CORRELATIONS:
            wrong, here = confirmed(bits, least)
            row[f"r {least}"] = f"{wrong:,} / {len(here):,} / {here['differ'].sum():,}"
        rows.append(row)
    wrong, here = confirmed(distance, correlation)
    low, high = stats.binomtest(wrong, len(hashes)).proportion_ci(method="wilson")
    rate = {"data": name, "wrongly paired": f"{wrong:,} of {len(hashes):,}", "rate": f"{wrong / len(hashes):.3%}"}
    return pd.DataFrame(rows), rate | {"95 % Wilson interval": f"{low:.3%} - {high:.3%}"}


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 95) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, lost: float) -> Image.Image:
    """The image without so much of its width and height, half of it on either side."""
    right, down = image.width * lost / 2, image.height * lost / 2
    return image.crop((round(right), round(down), round(image.width - right), round(image.height - down)))


def captioned(image: Image.Image, size: float) -> Image.Image:
    """The image with white words at its lower left, so high relative to the image."""
    image, height = image.copy(), image.height * size
    font = ImageFont.load_default(height)
    ImageDraw.Draw(image).text((image.width * 0.03, image.height * 0.95 - height), "holiday 2024", "white", font)
    return image


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 90": lambda image: encoded(image, quality=90),
    "JPEG quality 70": lambda image: encoded(image, quality=70),
    "JPEG quality 50": lambda image: encoded(image, quality=50),
    "JPEG quality 30": lambda image: encoded(image, quality=30),
    "JPEG quality 10": lambda image: encoded(image, quality=10),
    "PNG": lambda image: encoded(image, "PNG"),
    "resized to 75 %": lambda image: encoded(resized(image, 0.75)),
    "resized to 50 %": lambda image: encoded(resized(image, 0.5)),
    "resized to 25 %": lambda image: encoded(resized(image, 0.25)),
    "stretched to 224 px": lambda image: encoded(image.resize((224, 224))),
    "blurred by 2 px": lambda image: encoded(image.filter(ImageFilter.GaussianBlur(2))),
    "brightness -20 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.8)),
    "brightness -10 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.9)),
    "brightness +10 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.1)),
    "brightness +20 %": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.2)),
    "contrast -20 %": lambda image: encoded(ImageEnhance.Contrast(image).enhance(0.8)),
    "contrast +20 %": lambda image: encoded(ImageEnhance.Contrast(image).enhance(1.2)),
    "cropped by 1 %": lambda image: encoded(cropped(image, 0.01)),
    "cropped by 2 %": lambda image: encoded(cropped(image, 0.02)),
    "cropped by 5 %": lambda image: encoded(cropped(image, 0.05)),
    "caption of 5 %": lambda image: encoded(captioned(image, 0.05)),
    "caption of 10 %": lambda image: encoded(captioned(image, 0.1)),
    "rotated by 1 degree": lambda image: encoded(image.rotate(1, Image.Resampling.BICUBIC)),
    "rotated by 2 degrees": lambda image: encoded(image.rotate(2, Image.Resampling.BICUBIC)),
    "greyscale": lambda image: encoded(ImageOps.grayscale(image)),
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
}


def recall(folder: Path, settings: list[tuple[int, float]]) -> pd.DataFrame:
    """One row per kind of copy: the percentage that is found with each distance and correlation."""
    measured = []
    for photo, _ in photographs(folder):
        original = np.asarray(photo)
        for name, change in COPIES.items():
            copy = np.asarray(change(photo))
            bits = int(bits_apart(perceptual_hash(original), perceptual_hash(copy)))
            one, other = standardised(np.stack([thumbnail(original), thumbnail(copy)]))
            measured.append({"copy": name, "bits": bits, "r": float(one @ other)})
    table = pd.DataFrame(measured)
    for distance, least in dict.fromkeys(settings):
        found = (table["bits"] <= distance) & (table["r"] >= least)
        table[f"{distance} / {least}"] = 100 * found
    return table.drop(columns=["bits", "r"]).groupby("copy", sort=False).mean().round(1).reset_index()


def cost(sizes: list[int], distance: int, correlation: float) -> pd.DataFrame:
    """One row per number of rendered characters: seconds to search them, and relative to the first size per image."""
    rows = []
    for size in sizes:
        glyphs = [grey for _, grey in render_glyphs(-(-size // len(GLYPH_CLASSES)), seed=1)]
        chosen = np.random.default_rng(1).permutation(len(glyphs))[:size]
        images = [np.repeat(glyphs[index][..., None], 3, axis=2) for index in chosen]
        images[::50] = [image + (255 - image) // 10 for image in images[1::50]]
        hashes = np.stack([perceptual_hash(image) for image in images])
        thumbnails = np.stack([thumbnail(image) for image in images])
        names = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        started = time.perf_counter()
        found = find_duplicates(names, hashes, thumbnails, distance=distance, correlation=correlation)
        seconds = time.perf_counter() - started
        led = int((found.leader != np.arange(size)).sum())
        rows.append({"images": size, "in another's star": led, "bridges": len(found.bridges), "seconds": seconds})
    table = pd.DataFrame(rows)
    table["ms per image"] = 1000 * table["seconds"] / table["images"]
    table["relative"] = table["ms per image"] / table["ms per image"].iloc[0]
    return table.round(3)


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(table.columns) + " |")
    print("|" + " --- |" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in row) + " |")


def main(
    mnist: Annotated[Path | None, typer.Option(help="Folder of MNIST's images, in a folder per digit.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of photographs, to make copies of.")] = None,
    distance: Annotated[int, typer.Option(help="At which recall is measured and cost.")] = 6,
    correlation: Annotated[float, typer.Option(help="At which cost is measured.")] = 0.992,
    sizes: Annotated[
        str, typer.Option(help="Numbers of rendered characters; empty for none.")
    ] = "1000,5000,10000,50000",
) -> None:
    embedded = ((Image.fromarray(decode(record.content)), record.label) for record in digits())
    genuine = {"digits": embedded} | {
        name: photographs(place) for name, place in (("MNIST", mnist), ("photographs", folder)) if place is not None
    }
    results = [false_positives(name, images, distance, correlation) for name, images in genuine.items()]
    show("Images in a confirmed pair / pairs / pairs of two labels", pd.concat([counts for counts, _ in results]))
    show(f"At most {distance} bits, correlation at least {correlation}", pd.DataFrame([rate for _, rate in results]))
    if folder is not None:
        settings = [*((distance, least) for least in CORRELATIONS), *((bits, correlation) for bits in DISTANCES)]
        show("Copies found, %, by distance / correlation", recall(folder, settings))
    if sizes:
        show("Cost", cost([int(size) for size in sizes.split(",")], distance, correlation))


if __name__ == "__main__":
    typer.run(main)
