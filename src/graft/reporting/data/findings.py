"""What somebody should know of the images before training, as sentences, the most worrying first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graft.reporting.data.quarantine import COPIES, LEAKED
from graft.reporting.data.shortcuts import find_blank, find_enlarged, find_shortcuts
from graft.reporting.data.tables import SPLITS, PreparedData, usable
from graft.reporting.data.wording import Finding, amount, named, sentence, share
from graft.sections import Data

FEW = 20  # training images of a class, below which little can be learnt
IMBALANCE = 2.0  # largest class to smallest
MANY_FAULTY = 0.05  # of the files
MEANT = {"train": "training", "validation": "validation", "test": "test"}
LEVELS = ("look", "note", "fine")


def find(data: PreparedData) -> list[Finding]:
    """All findings about legible data, those to be looked at first."""
    images = usable(data.images)
    found = [
        *_conflicts(data.quarantine),
        *_absent(data.counts, data.settings),
        *_few(data.counts),
        *_balance(data.counts),
        *find_shortcuts(images),
        *find_blank(images),
        *find_enlarged(images, data.settings),
        *_faulty(data.quarantine, len(images)),
        *_division(data),
        *_copies(data),
        *_leaks(data.quarantine),
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _conflicts(quarantine: pd.DataFrame) -> list[Finding]:
    spoilt = quarantine[quarantine["reason"] == "conflicting-label"]
    if spoilt.empty:
        return []
    text = "{} the same picture as a file of another class; all were left out: {}. Correct the labels to win them back."
    words = amount(len(spoilt), "file shows", "files show"), named(sorted(set(spoilt["label"]) - {""}))
    return [Finding("look", "One picture, two classes", sentence(text, *words))]


def _absent(counts: pd.DataFrame, settings: Data) -> list[Finding]:
    """Splits without images, and classes without images in a split that has some."""
    found = []
    if not counts["test"].any():
        asked = "As <code>data.test: none</code> asks, n" if settings.test == "none" else "N"
        text = (
            asked
            + "o image is held back to the end. The validation images choose the best model and also give its figures, "
            "which will therefore be somewhat too high."
        )
        found.append(Finding("look", "There are no test images", sentence(text)))
    for split in SPLITS:
        absent = counts.loc[counts[split] == 0, "label"].tolist()
        if absent and counts[split].any():
            text = sentence(
                "{} no {} image: {}.", amount(len(absent), "class has", "classes have"), MEANT[split], named(absent)
            )
            found.append(Finding("look", f"Classes without {MEANT[split]} images", text))
    return found


def _few(counts: pd.DataFrame) -> list[Finding]:
    poor = counts[counts["train"].between(1, FEW - 1)].sort_values(["train", "label"], kind="stable")
    if poor.empty:
        return []
    text = "{} fewer than {} training images: {}. The smallest has {}. Here, more images help more than anything else."
    words = (
        amount(len(poor), "class has", "classes have"),
        FEW,
        named(poor["label"].tolist()),
        int(poor["train"].iloc[0]),
    )
    return [Finding("look", "Few images to learn from", sentence(text, *words))]


def _balance(counts: pd.DataFrame) -> list[Finding]:
    ranked = counts[counts["train"] > 0].sort_values(["train", "label"], ascending=[False, True], kind="stable")
    if len(ranked) < 2:
        return []
    (largest, most), (smallest, least) = ranked[["label", "train"]].iloc[[0, -1]].to_numpy().tolist()
    if most == least:
        text = sentence("Each of the {} classes has {}.", len(ranked), amount(most, "training image"))
        return [Finding("fine", "The classes are balanced", text)]
    text = sentence(
        "The largest class, {}, has {:,} training images and the smallest, {}, has {:,}.",
        *(named([largest]), most, named([smallest]), least),
    )
    ratio = most / least
    if ratio < IMBALANCE:
        return [Finding("fine", "The classes are about balanced", text)]
    advice = sentence(
        " That is {} times as many. A model may neglect what it rarely sees; "
        "<code>train.class_weights: balanced</code> in params.yaml makes a rare class weigh as much as a frequent one.",
        f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}",
    )
    return [Finding("look", "The classes differ in size", text + advice)]


def _faulty(quarantine: pd.DataFrame, usable_images: int) -> list[Finding]:
    faulty = quarantine[~quarantine["reason"].isin(COPIES)]
    if faulty.empty:
        return [Finding("fine", "Every file could be used", sentence("No file was refused for a fault of its own."))]
    reasons = faulty["reason"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    files = len(quarantine) + usable_images
    text = sentence(
        "{} ({} of {:,}) could not be used, mostly because of <code><bdi>{}</bdi></code> ({:,}). All reasons follow.",
        *(amount(len(faulty), "file or row", "files or rows"), share(len(faulty), files), files),
        *(reasons.index[0], int(reasons.iloc[0])),
    )
    return [Finding("look" if len(faulty) > MANY_FAULTY * files else "note", "Files that could not be used", text)]


def _division(data: PreparedData) -> list[Finding]:
    train, validation, test, unused = (int(data.counts[part].sum()) for part in (*SPLITS, "unused"))
    text = f"{amount(train, 'image')} to learn from, {validation:,} to choose between models by (validation)"
    text += f", {test:,} for the final figures (test)." if test else "."
    if unused:
        text += f" {unused:,} stay unused{_why_unused(data.settings)}."
    groups = data.images["group"].nunique()
    if groups:
        text += f" The source names {amount(groups, 'group')}; no group is in two splits."
    return [Finding("note", "How the images are divided", sentence("{}", text))]


def _why_unused(settings: Data) -> str:
    """The params that can leave an image unused."""
    causes = []
    if settings.train_per_class:
        causes.append(f"data.train_per_class is {settings.train_per_class}")
    if settings.test == "none" and settings.split in ("predefined", "kfold"):
        causes.append("data.test is none, so that test images of the source serve nothing")
    return f", for {' and '.join(causes)}" if causes else ""


def _copies(data: PreparedData) -> list[Finding]:
    sizes = np.bincount(data.leader, minlength=1)
    groups, members = int((sizes > 1).sum()), int(sizes[sizes > 1].sum())
    identical = int((data.quarantine["reason"] == "duplicate").sum())
    if not (groups or identical or len(data.bridges)):
        return [
            Finding("fine", "No picture is there twice", sentence("Neither as the same file nor as a similar one."))
        ]
    parts = []
    if identical:
        parts.append(f"{amount(identical, 'file is', 'files are')} left out, being byte for byte the same as another")
    if groups:
        parts.append(f"{amount(members, 'image')} form {amount(groups, 'group')} of one picture in different files")
    if len(data.bridges):
        parts.append(f"{amount(len(data.bridges), 'further pair looks', 'further pairs look')} alike across groups")
    text = sentence("{}. No picture is in two splits.", "; ".join(parts))
    return [Finding("note", "Pictures that are there more than once", text)]


def _leaks(quarantine: pd.DataFrame) -> list[Finding]:
    leaked = quarantine["reason"].isin(LEAKED).sum()
    if not leaked:
        return []
    text = (
        "{} left out because the same picture, or another of its group, is held back for checking. A model would have "
        "been examined on what it had already seen."
    )
    return [
        Finding("note", "Kept from leaking into the test", sentence(text, amount(leaked, "image was", "images were")))
    ]
