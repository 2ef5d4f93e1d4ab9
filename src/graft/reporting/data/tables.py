"""What prepare found out about the images, and the two tables that the data report makes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from graft.sections import Data

SPLITS = ("train", "validation", "test")
CHANNELS = ("r", "g", "b")
# What neither UTF-8 nor XML can carry, although a file on a disk may be called so.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Pictures(Protocol):
    """Images that are read by an array of row numbers: an ndarray, a memmap or Shards."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class PreparedData:
    """All that the data report tells of.

    Attributes:
        settings: the section data of params.yaml.
        images: one row per readable image, byte-identical files as one: image_id, pixel_id, label, split (None where it
            is in none), reason (None unless it was left out), source, group, width, height, format, bytes and, of its
            pixels from 0 to 255, brightness, mean_r, mean_g, mean_b, std_r, std_g, std_b.
        pictures: uint8 (n, side, side, 3), row i the picture of row i of images; only the shown ones are read.
        quarantine: source, label, reason and detail of everything that is not used for a reason.
        counts: label, train, validation, test, unused, quarantined; one row per class.
        leader: of shape (n,): the row number of the image that leads each image's group of copies, or its own.
        bridges: of shape (m, 2): row numbers of confirmed copies that are in different groups.
    """

    settings: Data
    images: pd.DataFrame
    pictures: Pictures
    quarantine: pd.DataFrame
    counts: pd.DataFrame
    leader: np.ndarray
    bridges: np.ndarray


def legible(data: PreparedData) -> PreparedData:
    """The same with text that every file can carry, and a column status in images: split, reason or unused."""
    images = _legible(data.images, ("label", "source", "format", "reason")).reset_index(drop=True)
    quarantine = _legible(data.quarantine, ("label", "source", "reason", "detail"))
    otherwise = images["reason"].mask(images["reason"] == "", "unused")
    images = images.assign(status=images["split"].astype(object).fillna(otherwise))
    pairs = np.asarray(data.bridges, int).reshape(-1, 2)
    counts = _legible(data.counts, ("label",)).reset_index(drop=True)
    return replace(data, images=images, quarantine=quarantine, counts=counts, bridges=pairs)


def usable(images: pd.DataFrame) -> pd.DataFrame:
    """The images that a split holds or could hold."""
    return images[images["status"].isin([*SPLITS, "unused"])]


def _legible(frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    # Not as pandas' own text, which cannot hold every file name.
    return frame.assign(**{column: [_escaped(value) for value in frame[column].tolist()] for column in columns})


def _escaped(value: Any) -> str:
    """The text, with what cannot be written as its number; empty where there is none."""
    return "" if pd.isna(value) else UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))


def log2(values: pd.Series) -> pd.Series:
    """The logarithms, in which half and double are equally far from the same."""
    return pd.Series(np.log2(values.to_numpy(float)), values.index)


def summarise(images: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """One row per group of images: n, medians of the size, brightness, and mean and deviation of each channel.

    Deviations are those of all pixels of the group, each image counted alike, from 0 to 255.
    """
    squares = {f"square_{c}": images[f"std_{c}"] ** 2 + images[f"mean_{c}"] ** 2 for c in CHANNELS}
    groups = images.assign(aspect=images["width"] / images["height"], **squares).groupby(by, sort=True)
    table = groups[["width", "height", "aspect"]].median().add_prefix("median_")
    table.insert(0, "n", groups.size())
    table["brightness"] = groups["brightness"].mean()
    for channel in CHANNELS:
        table[f"mean_{channel}"] = groups[f"mean_{channel}"].mean()
    for channel in CHANNELS:
        variance = groups[f"square_{channel}"].mean() - table[f"mean_{channel}"] ** 2
        table[f"std_{channel}"] = np.sqrt(variance.clip(lower=0))
    return table.reset_index()


def statistics(images: pd.DataFrame) -> pd.DataFrame:
    """Usable images by label and split (or unused) as in summarise, with the class's share of the split's images."""
    table = summarise(images, ["label", "status"]).rename(columns={"status": "split"})
    order = table["split"].map({split: place for place, split in enumerate((*SPLITS, "unused"))})
    table = table.assign(order=order).sort_values(["label", "order"], ignore_index=True).drop(columns="order")
    table.insert(3, "share", table["n"] / table.groupby("split")["n"].transform("sum"))
    return table.round(4)


def copies(data: PreparedData) -> pd.DataFrame:
    """Every image that has a copy, and every bridge: row, leading row, kind, and what readers look for.

    An image that leads its group, or has copies in other groups alone, is of kind leader; a member is exact where its
    pixels are the leader's, else near; a bridge gives the one image as leader and the other as source.
    """
    leader, own = np.asarray(data.leader, int), np.arange(len(data.images))
    groups = np.bincount(leader, minlength=len(own)) > 1
    bridged = np.isin(own, data.bridges)
    rows = np.flatnonzero(groups[leader] | bridged)
    pixels = data.images["pixel_id"].to_numpy()
    exact = np.where(pixels[rows] == pixels[leader[rows]], "exact", "near")
    table = pd.DataFrame(
        {"row": rows, "leading": leader[rows], "kind": np.where(leader[rows] == rows, "leader", exact)}
    )
    pairs = pd.DataFrame({"row": data.bridges[:, 1], "leading": data.bridges[:, 0], "kind": "bridge"})
    table = pd.concat([table, pairs], ignore_index=True)
    order = table["kind"].map({"leader": 0, "exact": 1, "near": 1, "bridge": 2})
    table = table.assign(order=order).sort_values(["leading", "order", "row"], ignore_index=True)
    sources = data.images["source"].to_numpy()
    table["leader"], table["source"] = sources[table["leading"]], sources[table["row"]]
    for column, meant in (("label", "label"), ("split", "status")):
        table[column] = data.images[meant].to_numpy()[table["row"]]
    return table.drop(columns="order")


def formats(images: pd.DataFrame) -> pd.DataFrame:
    """Each file format with its number of images n, its classes and the median size of its files in bytes."""
    groups = images.groupby("format", sort=True)
    table = pd.DataFrame({"n": groups.size(), "classes": groups["label"].nunique(), "bytes": groups["bytes"].median()})
    return table.reset_index().sort_values(["n", "format"], ascending=[False, True], ignore_index=True)
