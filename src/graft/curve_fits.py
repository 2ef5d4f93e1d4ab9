"""The fits of a learning curve: from which labelled images each learns, and their results, kept as they come."""

from __future__ import annotations

import gc
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from graft.artifacts import Manifest
from graft.comparison_sections import Curve
from graft.curve_files import ALL, PREDICTION_COLUMNS, PREDICTIONS, write_curve
from graft.errors import GraftError
from graft.feature_sets import FeatureSet, Selected
from graft.storage import new_folder, read_json, read_table, write_json, write_table

SEED_STEP = 1000  # between the seeds of a curve; each fit takes a few from its own on


class CurveError(GraftError):
    """A fit of a learning curve failed; the message says which and why."""


@dataclass(frozen=True)
class Subset:
    """What one fit sees: some training images, and all that are held out.

    Attributes:
        manifest: of these images.
        features: of the same images, the pixels among them.
        all_images: how many training images there are to choose from.
    """

    manifest: Manifest
    features: FeatureSet
    all_images: int

    @property
    def train(self) -> np.ndarray:
        """Row numbers of all views of the training images, in the features' order."""
        return np.flatnonzero((self.features.index["split"] == "train").to_numpy())

    @property
    def held_out(self) -> np.ndarray:
        """Row numbers of the validation and test images, of the manifest and of the features alike."""
        return np.flatnonzero((self.manifest.rows["split"] != "train").to_numpy())

    @property
    def images(self) -> int:
        """How many training images were chosen."""
        return len(self.manifest.rows) - len(self.held_out)

    def repeated(self) -> FeatureSet:
        """The features with each training image so often that an epoch is about as long as one of all of them.

        Else a network would get fewer updates from fewer images, and the curve would show the want of both: from 50 of
        200 digits the small CNN has 90.2 % when its epochs are spent, 92.4 % after as many updates as from all.
        Copy c of an image is in view v + c when the first is in view v. Held-out rows keep their place.
        """
        index, views = self.features.index, self.features.views
        shown = [self.features.positions("train", view) for view in range(views)]
        copies = range(1, max(1, round(self.all_images / self.images)))
        further = [(view, shown[(view + copy) % views]) for copy in copies for view in range(views)]
        rows = np.concatenate([np.arange(len(index)), *(taken for _, taken in further)])
        seen_as = np.concatenate([index["view"], *(np.full(len(taken), view) for view, taken in further)])
        stored = {point: Selected(inputs, rows) for point, inputs in self.features.stored.items()}
        return FeatureSet(index.iloc[rows].assign(view=seen_as).reset_index(drop=True), stored, self.features.classes)


@dataclass(frozen=True)
class Fitted:
    """What came of a fit.

    Attributes:
        probabilities: of shape (held-out images, classes), in the order of Subset.held_out.
        epochs: trained ones; 0 for an SVM.
        seconds: of the training.
    """

    probabilities: np.ndarray
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Fit:
    """One point of a curve.

    Attributes:
        kind: baseline, frozen, finetune or svm.
        per_class: labelled images per class, or ALL.
        seed: of the choice of the images and of the training.
    """

    kind: str
    per_class: int
    seed: int

    @property
    def folder(self) -> str:
        """Name of the folder of a finished fit."""
        return f"{self.kind}-{self.per_class}-{self.seed}"

    def __str__(self) -> str:
        return f"{self.kind}, {'all' if self.per_class == ALL else self.per_class} images per class, seed {self.seed}"


FitOne = Callable[[Fit, Subset], Fitted | None]


def curve_sizes(wanted: Sequence[int | str], largest: int) -> list[int]:
    """Images per class, ascending and ALL last; a number that not even the largest class exceeds is ALL, once."""
    sizes = {ALL if size == "all" or int(size) >= largest else int(size) for size in wanted}
    return sorted(sizes - {ALL}) + [ALL] * (ALL in sizes)


def choose_subset(manifest: Manifest, features: FeatureSet, per_class: int, seed: int) -> Subset:
    """So many training images of each class, or as many as there are, and all images that are held out.

    The order in which a class's images are taken is drawn from the seed and each image's id alone: the same for every
    model, a smaller choice is part of a larger one, and no other image of the data set changes it. Images that belong
    together may be parted: what is chosen is trained on, and none of it is in another split.

    Args:
        manifest: of all images.
        features: of all images.
        per_class: how many, or ALL.
        seed: of the draw.
    """
    rows = manifest.rows
    train = rows.loc[rows["split"] == "train", ["image_id", "label"]]
    order = train["image_id"].map(lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    place = train.loc[order.sort_values().index].groupby("label").cumcount()
    taken = place.index if per_class == ALL else place.index[place < per_class]
    chosen = rows[(rows["split"] != "train") | rows.index.isin(taken)].reset_index(drop=True)
    kept = np.flatnonzero(features.index["image_id"].isin(chosen["image_id"]).to_numpy())
    stored = {point: Selected(inputs, kept) for point, inputs in features.stored.items()}
    index = features.index.iloc[kept].reset_index(drop=True)
    return Subset(Manifest(chosen, manifest.classes), FeatureSet(index, stored, features.classes), len(train))


def start_session(seed: int) -> None:
    """Forget the networks of the fit before, as far as Keras keeps them, and seed Python, NumPy and Keras."""
    import keras

    keras.utils.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)


def run_fits(
    name: str,
    kinds: Sequence[str],
    manifest: Manifest,
    features: FeatureSet,
    fit: FitOne,
    *,
    curve: Curve,
    seed: int,
    work: Path,
    out: Path,
) -> None:
    """Fit every kind at every size with every seed, and write what they predict for all held-out images.

    At every size validation, which chooses the epoch, is as large as for all, which flatters the smallest sizes.

    Args:
        name: the row of params.yaml, for messages.
        kinds: of the fits.
        manifest: of all images.
        features: of all images.
        fit: one fit; None where it cannot be made of so few images, which leaves it out of the curve.
        curve: sizes and number of seeds.
        seed: the first one, which with all images makes a fit the pipeline's own.
        work: holds finished fits, as unfinished.unfinished gives it: an interrupted call goes on with those.
        out: as curve_files.write_curve fills it.

    Raises:
        CurveError: a fit failed.
    """
    done = []
    for which, subset in _points(manifest, features, kinds, curve, seed):
        folder = work / which.folder
        if folder.exists() or _make(f"curve {name}: {which}", which, subset, fit, folder):
            done.append(folder)
    predictions = [read_table(folder / PREDICTIONS, PREDICTION_COLUMNS) for folder in done]
    fits = pd.DataFrame([read_json(folder / "fit.json") for folder in done])
    write_curve(out, pd.concat(predictions, ignore_index=True), fits)


def _points(
    manifest: Manifest, features: FeatureSet, kinds: Sequence[str], curve: Curve, seed: int
) -> Iterator[tuple[Fit, Subset]]:
    largest = int(manifest.rows.loc[manifest.rows["split"] == "train", "label"].value_counts().max())
    seeds = [(seed + number * SEED_STEP) % 2**32 for number in range(curve.seeds)]
    for size, each in itertools.product(curve_sizes(curve.per_class, largest), seeds):
        subset = choose_subset(manifest, features, size, each)
        yield from ((Fit(kind, size, each), subset) for kind in kinds)


def _make(title: str, which: Fit, subset: Subset, fit: FitOne, out: Path) -> bool:
    """Whether a fit could be made; what came of it is in its folder then."""
    try:
        fitted = fit(which, subset)
    except GraftError as error:
        raise CurveError(f"{title}: {error}") from error
    if fitted is None:
        print(f"{title}: left out, there are too few images", flush=True)
        return False
    rows = subset.manifest.rows.iloc[subset.held_out][["split", "image_id", "label"]].reset_index(drop=True)
    rows["predicted"] = np.array(subset.manifest.classes, object)[fitted.probabilities.argmax(axis=1)]
    rows = rows.assign(**asdict(which))[list(PREDICTION_COLUMNS)]
    with new_folder(out) as folder:
        write_table(folder / PREDICTIONS, rows)
        facts = {"images": subset.images, "epochs": fitted.epochs, "seconds": fitted.seconds}
        write_json(folder / "fit.json", asdict(which) | facts)
    validation = rows[rows["split"] == "validation"]
    accuracy = (validation["label"] == validation["predicted"]).mean()
    print(f"{title}: {subset.images} images, {fitted.seconds:.1f} s, validation accuracy {accuracy:.1%}", flush=True)
    return True
