"""The look inside a trained model: what it costs, how fast it is, what its network sees and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from graft.artifacts import read_images, read_manifest
from graft.comparison_sections import Inspect
from graft.costs import CostError, machine_multiply_adds, multiply_adds
from graft.latency import measure_speed
from graft.learned_filters import write_first_layer
from graft.looks import write_looks
from graft.network_filters import first_layer
from graft.network_looks import Sample, network_looks
from graft.serving import load_classifier
from graft.storage import read_json, write_json
from graft.weights import ARCHITECTURE, WEIGHTS, load_base

LEARNED = 12  # filters of the first layer that are shown beside their maps
EXAMINED = 512  # validation images among which those to be shown are chosen


def read_sample(prepared: Path) -> Sample:
    """The sample of a prepared folder.

    Raises:
        ArtifactError: the folder is incomplete or damaged.
    """
    manifest = read_manifest(prepared)
    positions = manifest.positions("validation")
    rows = positions[np.unique(np.linspace(0, len(positions) - 1, min(EXAMINED, len(positions))).round().astype(int))]
    images = read_images(prepared, manifest.rows)[rows]
    return Sample(images, manifest.labels[rows], manifest.rows["source"].iloc[rows].tolist(), manifest.classes)


def write_inside(out: Path, model: Path, source: Path | None, sample: Sample, settings: Inspect) -> None:
    """Write costs.json, timings.json and, of a network, looks.json and first_layer.json with their pictures, anew.

    Args:
        out: the folder.
        model: models/<name>.
        source: models/source/<backbone> for an SVM; None for a network.
        sample: what is looked at, and timed.
        settings: how much of it.
    """
    out.mkdir(parents=True)
    classifier = load_classifier(model, source)
    speed = measure_speed(classifier.probabilities, sample.images, settings.repeats)
    write_json(out / "timings.json", asdict(speed))
    files = [path for path in model.rglob("*") if path.is_file()]
    network = classifier.network
    if network is not None:
        counted = _counted(lambda: multiply_adds(network), model.name)
        write_looks(out, network_looks(network, classifier.probabilities, sample, settings))
        write_first_layer(out, first_layer(network, sample.images[0], LEARNED))
    elif source is not None:  # without which an SVM is not loaded
        files += [source / ARCHITECTURE, source / WEIGHTS]
        counted = _counted(lambda: _machine_costs(model, source), model.name)
    size = sum(path.stat().st_size for path in files)
    write_json(out / "costs.json", {"multiply_adds": counted, "model_bytes": size})
    print(f"inspect {model.name}: {speed.latency_ms:.1f} ms for one image, {speed.throughput:.0f} images a second")


def _machine_costs(model: Path, source: Path) -> int:
    from graft.extraction import described_pass
    from graft.svm import load_svm

    frozen = described_pass(load_base(source), read_json(model / "base.json"))
    return multiply_adds(frozen) + machine_multiply_adds(load_svm(model / "svm.skops"))


def _counted(count: Callable[[], int], name: str) -> int | None:
    """Multiply-adds; None, and a message, where the network has a layer whose cost is not known."""
    try:
        return count()
    except CostError as error:
        print(f"inspect {name}: {error}; its multiply-adds are left out")
        return None
