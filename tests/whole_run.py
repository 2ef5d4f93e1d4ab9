"""The whole pipeline on a few images in one process: `python whole_run.py FOLDER [--shuffled]`.

The environment of the process is what is on trial. With --shuffled the system lists folders in another order each time.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import yaml
from networks_on_trial import learnable_digits, tiny_params
from PIL import Image
from test_pipeline import run_pipeline

from graft.params import Params


def small_params() -> Params:
    """Every stage once: a network, a base with its SVM, and their curves."""
    values = tiny_params().model_dump(mode="json")
    values["data"] |= {"source": "folder", "path": "photos", "image_size": 32}
    values["backbones"].pop("mobilenet")
    values["train"]["repeats"] = 2
    values["curve"] = {"backbones": ["vgg16"], "baselines": ["cnn"], "per_class": [2], "seeds": 1}
    return Params.model_validate(values)


def write_photos(folder: Path) -> None:
    """Twenty digits of each of three classes, in the order of their numbers."""
    for index, (pixels, label) in enumerate(zip(*learnable_digits(16), strict=True)):
        path = folder / f"digit {label}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


class _Shuffled:
    """As os.scandir gives it, in an order of chance."""

    def __init__(self, entries: Any) -> None:
        with entries:
            self._entries = list(entries)
        random.SystemRandom().shuffle(self._entries)

    def __iter__(self) -> _Shuffled:
        return self

    def __next__(self) -> Any:
        if not self._entries:
            raise StopIteration
        return self._entries.pop()

    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give no more."""
        self._entries.clear()


def shuffle_listings() -> None:
    """From now on folders are listed in an order of chance."""
    scandir, listdir = os.scandir, os.listdir

    def listed(path: Any = ".") -> list[Any]:
        names = listdir(path)
        random.SystemRandom().shuffle(names)
        return names

    os.scandir = lambda path=".": _Shuffled(scandir(path))  # type: ignore[assignment]
    os.listdir = listed


def main(root: Path, *, shuffled: bool) -> None:
    """Make the workspace from its photos to its runs."""
    root.mkdir(parents=True)
    os.chdir(root)
    os.environ["DVC_ROOT"] = str(root)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    params = small_params()
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    write_photos(Path("photos"))
    if shuffled:
        shuffle_listings()
    run_pipeline(root, params)


if __name__ == "__main__":
    main(Path(sys.argv[1]), shuffled="--shuffled" in sys.argv)
