"""What of the images' look may mislead a model: traits that give the class away, blank images, enlarged ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from graft.reporting.data.tables import log2
from graft.reporting.data.wording import Finding, amount, named, sentence, share
from graft.sections import Data

LARGE_EFFECT = 0.14  # share of the variance that Cohen (1988) calls large
CHANCE = 0.01  # p above which chance may explain an effect
FLAT = 0.5  # standard deviation of 0..255 below which a channel shows nothing


@dataclass(frozen=True)
class Trait:
    """Something other than the subject in which images differ.

    Attributes:
        name: in a sentence.
        values: one number per image.
        describe: what a class's images are like.
        danger: what a model may learn instead of the subject.
    """

    name: str
    values: pd.Series
    describe: Callable[[pd.DataFrame], str]
    danger: str


def traits(images: pd.DataFrame) -> list[Trait]:
    """Brightness, size, shape and file format."""
    return [
        Trait(
            "brightness",
            images["brightness"],
            lambda rows: f"{rows['brightness'].mean():.0f} of 255 on average",
            "If that is the light and not the subject, a model may learn the light.",
        ),
        Trait(
            "size",
            log2(images["width"] * images["height"]),
            _typical_size,
            "Once resized, size shows as sharpness, and a model may learn that instead of the subject.",
        ),
        Trait(
            "shape",
            log2(images["width"] / images["height"]),
            _typical_size,
            "A model may learn the distortion, the cut or the borders that resizing leaves.",
        ),
        Trait(
            "file format",
            (images["format"] == images["format"].mode().iloc[0]).astype(float),
            _typical_format,
            "Compression leaves traces, and a model may learn those.",
        ),
    ]


def _typical_size(rows: pd.DataFrame) -> str:
    return f"typically {rows['width'].median():.0f} × {rows['height'].median():.0f} px"


def _typical_format(rows: pd.DataFrame) -> str:
    usual = str(rows["format"].mode().iloc[0])
    return f"{share((rows['format'] == usual).sum(), len(rows))} {usual}"


def effect_of_class(values: pd.Series, labels: pd.Series) -> tuple[float, float]:
    """How much of the values' variance the class explains, and how likely chance alone would explain as much.

    Returns:
        Omega squared (Hays 1963; 0 to 1, not inflated by many classes) and the F test's p value.
    """
    groups = values.groupby(labels)
    between, within = groups.ngroups - 1, len(values) - groups.ngroups
    if between < 1 or within < 1 or np.ptp(values) < 1e-9:
        return 0.0, 1.0
    explained = float((groups.size() * (groups.mean() - values.mean()) ** 2).sum())
    rest = float(((values - groups.transform("mean")) ** 2).sum())
    noise = rest / within
    effect = max(0.0, (explained - between * noise) / (explained + rest + noise))
    return effect, float(fdtrc(between, within, explained / between / noise)) if noise else 0.0


def find_shortcuts(images: pd.DataFrame) -> list[Finding]:
    """The traits that differ strongly between classes, then how little the others do."""
    found, harmless = [], []
    for trait in traits(images):
        effect, chance = effect_of_class(trait.values, images["label"])
        if effect >= LARGE_EFFECT and chance <= CHANCE:
            found.append(_suspicion(trait, effect, images))
        else:
            harmless.append(f"{trait.name} {effect:.2f}")
    if harmless:
        text = "The class explains little of how much the {:,} images differ in these traits (ω², from 0 to 1): {}."
        title = "No other simple shortcut seen" if found else "No simple shortcut seen"
        found.append(Finding("fine", title, sentence(text, len(images), ", ".join(harmless))))
    return found


def _suspicion(trait: Trait, effect: float, images: pd.DataFrame) -> Finding:
    means = trait.values.groupby(images["label"]).mean()
    ends = (str(means.idxmin()), str(means.idxmax()))
    low, high = (trait.describe(images[images["label"] == label]) for label in ends)
    text = sentence(
        "The class explains {} of how much the {:,} images differ in {} (ω² = {:.2f}): "
        "those of {} are {}, those of {} are {}. {} A hint, not a proof: compare their samples below.",
        *(share(effect, 1), len(images), trait.name, effect),
        *(named([ends[0]]), low, named([ends[1]]), high, trait.danger),
    )
    return Finding("look", f"The {trait.name} may give the class away", text)


def find_blank(images: pd.DataFrame) -> list[Finding]:
    """Images that show nothing."""
    blank = images[(images[["std_r", "std_g", "std_b"]] < FLAT).all(axis=1)].sort_values("source", kind="stable")
    if blank.empty:
        return []
    shown = amount(len(blank), "image shows", "images show")
    text = sentence("{} a single colour and nothing else: {}.", shown, named(blank["source"].tolist()))
    return [Finding("look", "Blank images", text)]


def find_enlarged(images: pd.DataFrame, settings: Data) -> list[Finding]:
    """Images with fewer pixels than the size to which they are resized."""
    sides = images[["width", "height"]]
    decisive = sides.max(axis=1) if settings.resize == "pad" else sides.min(axis=1)
    small, size = int((decisive < settings.image_size).sum()), settings.image_size
    if not small:
        return [
            Finding("fine", "No image is enlarged", sentence("All have the {} px per side that are asked for.", size))
        ]
    text = sentence(
        "{} of {} ({}) have fewer pixels than the {} × {} px to which all are resized. Enlarging adds no detail; "
        "<code>data.image_size</code> says to what size.",
        *(f"{small:,}", amount(len(images), "image"), share(small, len(images)), size, size),
    )
    return [Finding("look", "Images smaller than asked for", text)]
