"""Fixtures that several test modules share."""

import os
import signal
from pathlib import Path

# As graft.runtime does for the stages: both must stand before anything imports TensorFlow.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background jobs have it, and what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Eight different 12x10 px photos of each of three classes, which differ by their strongest colour."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(["ants", "bees", "wasps"]):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(0, 100, (10, 12, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def photographs() -> Path:
    """The hymenoptera photos beside the checkout: train/ and val/ of ants and bees."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymenoptera"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder
