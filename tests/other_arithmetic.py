"""What trained networks answer in this process's arithmetic: `python other_arithmetic.py WORKSPACE BATCH OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from graft.artifacts import read_images, read_manifest
from graft.inference import apply_model


def main(root: Path, batch: int, out: Path) -> None:
    """Write each network's probabilities (n, classes) of all prepared images, in the environment as it is."""
    rows = read_manifest(root / "data/prepared").rows
    images = read_images(root / "data/prepared", rows)
    answers = {}
    for path in (root / "models").glob("*/model.keras"):
        network = keras.saving.load_model(path, compile=False)
        batches = [outputs[0] for outputs in apply_model(network, images, np.arange(len(rows)), batch)]
        answers[path.parent.name] = np.concatenate(batches)
    np.savez(out, **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
