"""Answers of a trained model to image files on the disk; a file that is no picture gets its reason instead."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import joblib
import numpy as np

from graft import runtime
from graft.images import ImageError
from graft.operation_sections import Serve
from graft.params import ParamsError
from graft.serving import BATCH, Classifier, load_classifier
from graft.storage import ArtifactError, read_json

AHEAD = 2  # batches that are read and decoded before the model needs them

Read = tuple[np.ndarray | None, str]  # a file's pixels, or None and why there are none


@dataclass(frozen=True)
class Answer:
    """What a model says of one file.

    Attributes:
        path: as it was given.
        probabilities: calibrated, by class; None where the file could not be read as a picture.
        abstains: whether the most probable class is too unsure to be an answer.
        reason: why the file could not be read; else empty.
    """

    path: Path
    probabilities: dict[str, float] | None
    abstains: bool = False
    reason: str = ""

    @property
    def predicted(self) -> tuple[str, float] | None:
        """The most probable class, the first of equals, and its probability."""
        return max(self.probabilities.items(), key=lambda item: item[1]) if self.probabilities else None


def champion(leaderboard: Path) -> str:
    """The name of the model that validation chose.

    Raises:
        ArtifactError: there is no leaderboard, or it names no champion.
    """
    for row in read_json(leaderboard):
        if row["champion"]:
            return str(row["model"])
    raise ArtifactError(f"{leaderboard} must name a champion; `dvc repro` makes it anew")


def load_model(name: str, models: Path) -> Classifier:
    """The classifier models/<name>, an SVM with its base from models/source; TensorFlow is set up for it.

    Raises:
        ParamsError: there is no such model; the message lists those there are.
        ArtifactError: one of its files is missing or damaged.
    """
    folder = models / name
    there = sorted(path.parent.name for path in models.glob("*/classes.json"))
    if name not in there:  # ../other among them
        raise ParamsError(
            f"{models} has no model {name!r}; it has: {', '.join(there) or 'none'}; `dvc repro` makes them"
        )
    base = folder / "base.json"
    runtime.configure(0)  # nothing is random in a prediction
    return load_classifier(folder, models / "source" / read_json(base)["backbone"] if base.exists() else None)


def predict(classifier: Classifier, paths: Iterable[str | Path], limits: Serve) -> Iterator[Answer]:
    """One answer for each path, in their order; memory does not grow with their number.

    Files are read and decoded in threads while the model runs. Every batch has the size of the first, since another
    shape would cost the model another trace; the last is padded.

    Args:
        classifier: the model.
        paths: of files; a file above the limits is not read.
        limits: max_image_mb and max_pixels count.
    """
    waiting, batches = iter(paths), deque[list[tuple[Path, Future[Read]]]]()
    size = 0
    pool = ThreadPoolExecutor(joblib.cpu_count())  # of those that this process may use
    try:
        while True:
            while len(batches) < AHEAD and (chunk := [Path(path) for path in islice(waiting, BATCH)]):
                batches.append([(path, pool.submit(_read, classifier, path, limits)) for path in chunk])
            if not batches:
                return
            read = [(path, *future.result()) for path, future in batches.popleft()]
            size = size or len(read)
            yield from _answers(classifier, read, size)
    finally:
        pool.shutdown(cancel_futures=True)


def _read(classifier: Classifier, path: Path, limits: Serve) -> Read:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            return None, "unreadable: not a regular file"
        if status.st_size > limits.max_image_mb * 10**6:
            allowed = f"serve.max_image_mb allows {limits.max_image_mb:g} MB"
            return None, f"too-large: the file has {status.st_size:,} bytes; {allowed}"
        return classifier.pixels(path.read_bytes(), max_pixels=limits.max_pixels), ""
    except ImageError as error:
        return None, str(error)
    except OSError as error:
        return None, f"unreadable: {error.strerror or error}"


def _answers(
    classifier: Classifier, read: Sequence[tuple[Path, np.ndarray | None, str]], size: int
) -> Iterator[Answer]:
    """The batch's answers; the model is given `size` images where there are fewer."""
    images = [image for _, image, _ in read if image is not None]
    rows: Iterator[tuple[np.ndarray, bool]] = iter(())
    if images:
        padded = np.stack(images + images[-1:] * (size - len(images)))
        probabilities = classifier.probabilities(padded)[: len(images)]
        rows = zip(probabilities, classifier.abstains(probabilities), strict=True)
    for path, image, reason in read:
        if image is None:
            yield Answer(path, None, reason=reason)
        else:
            row, abstains = next(rows)
            yield Answer(path, dict(zip(classifier.classes, row.tolist(), strict=True)), bool(abstains))


def rule(name: str, classifier: Classifier) -> str:
    """One line: which model answered, and when it abstains."""
    if classifier.abstain_below is None:
        return (
            f"{name} abstains always: of no confidence did validation show the accuracy that train.abstain_accuracy "
            "asks for; --abstain-below sets one by hand"
        )
    return f"{name} abstains below {100 * classifier.abstain_below:.1f} % of probability"
