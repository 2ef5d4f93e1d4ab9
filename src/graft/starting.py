"""A first params.yaml for a person's own images, its sizes and batches chosen from what is there."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from graft.errors import GraftError
from graft.folders import split_folders
from graft.params import Params
from graft.scanning import Found, recognise, scan
from graft.sections import Data
from graft.sources import check_counts
from graft.storage import new_file

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # px; beyond 224 bases see no more
CACHE_BYTES = 4 * 2**30  # of one base's activations at its cut, which the number of views should respect
CUT_BYTES = 4 * 512 * 14 * 14  # of VGG16 at 224 px, the largest of the four
# Where phase 2 begins in each base, its pooling, the pixels it was trained on, and the fewest that leave a 3x3 map.
BACKBONES = (
    ("vgg16", "VGG16", "flatten", "block4_pool", 224, 96),
    ("resnet50", "ResNet50", "avg", "conv4_block6_out", 224, 96),
    ("inceptionv3", "InceptionV3", "avg", "mixed7", 299, 151),
    ("mobilenet", "MobileNet", "avg", "conv_pw_11_relu", 224, 96),
)


def write_params(source: Path, path: Path, *, weights: str = "imagenet", force: bool = False) -> str:
    """Look at a folder, table or archive and write a params.yaml for it; returns what to tell the user.

    Args:
        source: the images.
        path: of params.yaml.
        weights: imagenet, source or random, for every base.
        force: replace a file with changes that Git does not hold.

    Raises:
        GraftError: the images cannot be used, or the file has uncommitted changes.
    """
    if weights not in ("imagenet", "source", "random"):
        raise GraftError(f"WEIGHTS must be imagenet, source or random, received {weights!r}")
    if path.exists() and _uncommitted(path) and not force:
        raise GraftError(f"{path} has changes that Git does not hold; commit them, or say --force (make init FORCE=1)")
    kind, place, table = recognise(source)
    found = scan(Data.model_construct(source=kind, path=place, table=table))
    folders = split_folders(place) if kind == "folder" else None
    check_counts(found.counts, str(place), "predefined" if found.splits else "stratified", test=True, places=folders)
    values = choose(found, weights)
    values |= {"source": kind, "path": str(place), "table": table.model_dump()}
    template = jinja2.Template(
        resources.files("graft").joinpath("starting.yaml.j2").read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    text = template.render(found=found, **values)
    params = Params.model_validate(yaml.safe_load(text))  # before the old file goes
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return describe(place, found, values, params)


def choose(found: Found, weights: str) -> dict[str, Any]:
    """Sizes, batches, views, epochs and the split that suit the images; the names are those of the template."""
    side = min(found.median_width, found.median_height)
    image_size = max(size for size in SIZES if size <= max(side, SIZES[0]))
    width = 1 if weights == "imagenet" else 0.25
    # How many views of all images the activations at VGG16's cut would leave room for.
    room = CACHE_BYTES / (CUT_BYTES * width * (max(96, image_size) / 224) ** 2 * found.images)
    train_images = int(min(found.classes.values()) * 0.6)
    return {
        "weights": weights,
        "width": width,
        "image_size": image_size,
        "resize": "stretch" if found.median_width == found.median_height else "crop",
        "min_side": max(8, image_size // 7),
        "split": "predefined" if found.splits else "group" if enough_groups(found) else "stratified",
        "views": max(1, min(5, int(room))),
        "flip": not (found.grey > 0.5 and image_size <= 64),
        "class_weights": "balanced" if found.imbalance >= 2 else "none",
        "epochs": 20 if found.images < 5000 else 10 if found.images < 50000 else 5,
        "batch": 16 if found.images < 200 else 32 if found.images < 20000 else 64,
        "feature_batch": 32 if image_size > 96 else 64,
        "folds": max(2, min(5, train_images)),
        "backbones": [_backbone(*row, image_size=image_size, weights=weights) for row in BACKBONES],
    }


def enough_groups(found: Found) -> bool:
    """Whether each class has a group for each split, so that fractions of groups can be drawn."""
    return bool(found.groups) and all(found.groups[label] >= 3 for label in found.classes)


def _backbone(
    name: str, application: str, pooling: str, cut: str, trained: int, least: int, *, image_size: int, weights: str
) -> dict[str, Any]:
    """A row of the template: at full size what the base was trained on, else at least what leaves a 3x3 map."""
    size = trained if image_size == SIZES[-1] else max(least, image_size)
    return {
        "name": name,
        "application": application,
        "pooling": pooling,
        "cut": cut,
        "input_size": size,
        "source_epochs": 6 if name == "mobilenet" else 3,
        "source_rate": "2.0e-3" if name == "vgg16" else "8.0e-3",
        "learning_rate": "1.0e-3" if weights == "imagenet" else "3.0e-3",
        "unfrozen_learning_rate": "1.0e-4" if weights == "imagenet" else "1.0e-3",
    }


def describe(place: Path, found: Found, values: dict[str, Any], params: Params) -> str:
    """What was found and what was chosen, in a few lines."""
    classes = [f"{label}: {number:,}" for label, number in found.classes.items()]
    more = f" and {len(classes) - 12} more" if len(classes) > 12 else ""
    lines = [f"init: {found.images:,} images of {len(classes)} classes in {place}: {', '.join(classes[:12])}{more}"]
    if found.splits:
        lines.append("  its own splits: " + ", ".join(f"{name} {n:,}" for name, n in sorted(found.splits.items())))
    lines.append(
        f"  {found.median_width}x{found.median_height} px in the median, {min(found.widths)}x{min(found.heights)} to "
        f"{max(found.widths)}x{max(found.heights)} ({len(found.widths):,} looked at)"
    )
    if found.groups:
        few = "" if enough_groups(found) else "; too few in some class to be drawn by group, but they stay together"
        lines.append(f"  groups that it names: {found.groups.total():,}{few}")
    if found.rejects:
        listed = ", ".join(f"{number:,} {reason}" for reason, number in sorted(found.rejects.items()))
        lines.append(f"  not images, and left out: {listed}")
    lines += [
        f"  the largest class has {found.imbalance:.1f} times the images of the smallest: "
        f"class_weights {values['class_weights']}",
        f"  chosen: {values['split']} split, {values['image_size']} px, batches of {values['batch']}, "
        f"{values['views']} views, {values['weights']} weights",
        f"params.yaml describes {len(params.models())} models: {', '.join(params.models())}. "
        "Delete the rows you do not want, then `make repro`.",
    ]
    return "\n".join(lines)


def _uncommitted(path: Path) -> bool:
    """Whether Git does not hold the file as it is; also where there is no Git to ask."""
    command = ["git", "status", "--porcelain", "--", path.name]
    result = subprocess.run(command, cwd=path.resolve().parent, capture_output=True, text=True, check=False)
    return bool(result.returncode or result.stdout.strip())
