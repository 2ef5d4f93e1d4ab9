"""Answers of a trained model to image files on the disk; a file that is no picture gets its reason instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graft import runtime
from graft.images import ImageError
from graft.params import ParamsError
from graft.serving import BATCH, Classifier, load_classifier
from graft.storage import ArtifactError, read_json


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

    def as_record(self) -> dict[str, Any]:
        """JSON-ready, in the terms of the served model."""
        if self.predicted is None:
            return {"path": str(self.path), "reason": self.reason}
        name, probability = self.predicted
        record = {"path": str(self.path), "class": name, "probability": probability, "abstain": self.abstains}
        return record | {"probabilities": self.probabilities}


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
    if not (folder / "classes.json").exists():
        there = sorted(path.parent.name for path in models.glob("*/classes.json"))
        raise ParamsError(
            f"{models} has no model {name!r}; it has: {', '.join(there) or 'none'}; `dvc repro` makes them"
        )
    base = folder / "base.json"
    runtime.configure(0)  # nothing is random in a prediction
    return load_classifier(folder, models / "source" / read_json(base)["backbone"] if base.exists() else None)


def predict(classifier: Classifier, paths: Sequence[Path]) -> Iterator[Answer]:
    """One answer for each path, in their order; memory does not grow with their number."""
    for start in range(0, len(paths), BATCH):
        read = [(path, *_read(classifier, path)) for path in paths[start : start + BATCH]]
        images = [image for _, image, _ in read if image is not None]
        rows = iter(_answer_rows(classifier, images))
        for path, image, reason in read:
            if image is None:
                yield Answer(path, None, reason=reason)
            else:
                probabilities, abstains = next(rows)
                named = dict(zip(classifier.classes, probabilities.tolist(), strict=True))
                yield Answer(path, named, bool(abstains))


def _read(classifier: Classifier, path: Path) -> tuple[np.ndarray | None, str]:
    """The file's pixels, or None and why there are none."""
    try:
        return classifier.pixels(path.read_bytes()), ""
    except ImageError as error:
        return None, str(error)
    except OSError as error:
        return None, f"unreadable: {error.strerror or error}"


def _answer_rows(classifier: Classifier, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, bool]]:
    if not images:
        return []
    probabilities = classifier.probabilities(np.stack(images))
    return list(zip(probabilities, classifier.abstains(probabilities), strict=True))


def to_table(answers: Sequence[Answer]) -> str:
    """Path, class or `abstains`, probability, and what else there is to say, in columns for a terminal."""
    lines = [("path", "class", "probability", "")]
    for answer in answers:
        if answer.predicted is None:
            lines.append((str(answer.path), "-", "-", answer.reason))
            continue
        name, probability = answer.predicted
        said = ("abstains", f"most probable: {name}") if answer.abstains else (name, "")
        lines.append((str(answer.path), said[0], f"{100 * probability:.1f} %", said[1]))
    path, label, number, _ = (max(len(line[place]) for line in lines) for place in range(4))
    return "\n".join(f"{a:<{path}}  {b:<{label}}  {c:>{number}}  {d}".rstrip() for a, b, c, d in lines)


def rule(name: str, classifier: Classifier) -> str:
    """One line: which model answered, and when it abstains."""
    if classifier.abstain_below is None:
        return (
            f"{name} abstains always: of no confidence did validation show the accuracy that train.abstain_accuracy "
            "asks for; --abstain-below sets one by hand"
        )
    return f"{name} abstains below {100 * classifier.abstain_below:.1f} % of probability"
