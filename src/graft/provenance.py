"""From what a comparison was made: code, data, packages, machine, and whose weights the bases began with."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from graft.origin import code_origin
from graft.params import Params
from graft.sections import Base, Pretrain
from graft.storage import ArtifactError

PACKAGES = (  # of the two TensorFlows one alone is installed
    *("tensorflow", "tensorflow-cpu", "keras", "scikit-learn", "numpy", "pandas", "scipy"),
    *("pillow", "dvc", "mlflow", "cleanlab"),
)
WEIGHT_COLUMNS = ("backbone", "application", "weights", "from", "licence")

# By how a name of keras.applications begins, the first that fits; as keras.io or the authors' repositories state it.
LICENCES = (
    (("VGG",), "CC BY 4.0, as published by the Visual Geometry Group of Oxford"),
    (("ResNet50V2", "ResNet101V2", "ResNet152V2"), "BSD, as published by Facebook (fb.resnet.torch)"),
    (("ResNet",), "MIT, as published by Kaiming He and others"),
    (("Xception",), "MIT, as published by the author of Keras"),
    (("DenseNet",), "BSD-3-Clause, as published by Zhuang Liu and others"),
    (("ConvNeXt",), "MIT, as published by Meta (facebookresearch/ConvNeXt)"),
    (("Inception", "MobileNet", "NASNet", "EfficientNet"), "Apache-2.0, as published by Google"),
)
UNKNOWN = "not known here: ask who published them"
IMAGENET = "the images of ImageNet are for non-commercial research, so check before commercial use"
GLYPHS = "glyphs rendered from the DejaVu, STIX and Computer Modern fonts that matplotlib ships"


@dataclass(frozen=True)
class Provenance:
    """From what a comparison was made.

    Attributes:
        commit: of the project; None outside of Git.
        dirty: whether the working tree had other changes than those that `dvc repro` makes.
        data: DVC's md5 by path, of the source and of the prepared images.
        versions: of Python and of the packages that compute something, by name.
        machine: processor, threads, operating system.
        weights: one row per backbone: where the base's weights come from and their licence, for people.
    """

    commit: str | None
    dirty: bool
    data: Mapping[str, str]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    weights: pd.DataFrame


def read_provenance(params: Params, root: Path, lock: Path) -> Provenance:
    """Of the working directory and of this process; packages and machine are those that compare, and trained if alike.

    Args:
        params: name the bases.
        root: of the project; data below it is named from there on.
        lock: dvc.lock; where there is none, no hash of data is known.

    Raises:
        ArtifactError: the lock is no lock of DVC's.
    """
    origin = code_origin()
    return Provenance(
        commit=origin["commit"],
        dirty=origin["dirty"],
        data=_data_hashes(root, lock),
        versions=_versions(),
        machine=_machine(),
        weights=_weights(params),
    )


def _data_hashes(root: Path, lock: Path) -> dict[str, str]:
    """By path, what `prepare` read and wrote, without code and reports."""
    if not lock.exists():
        return {}
    try:
        content = yaml.load(lock.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArtifactError(f"{lock} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("stages"), Mapping):
        raise ArtifactError(f"{lock} must list stages, as `dvc repro` writes them")
    stage = content["stages"].get("prepare", {})
    entries = [*stage.get("deps", []), *stage.get("outs", [])]
    hashes = {_from(root, entry["path"]): str(entry["md5"]) for entry in entries if "md5" in entry}
    return {path: md5 for path, md5 in hashes.items() if not path.startswith(("src/", "reports/"))}


def _from(root: Path, path: str) -> str:
    with suppress(ValueError):
        return Path(path).relative_to(root.resolve()).as_posix()
    return path


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": named[1] if named else platform.processor() or platform.machine(),
        "threads": str(threads),
    }


def _weights(params: Params) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, backbone in params.backbones.items():
        begun, licence = _origin_of(backbone.base, params.pretrain)
        facts = {"backbone": name, "application": backbone.base.application, "weights": backbone.base.weights}
        rows.append(facts | {"from": begun, "licence": licence})
    return pd.DataFrame(rows, columns=list(WEIGHT_COLUMNS))


def _origin_of(base: Base, pretrain: Pretrain) -> tuple[str, str]:
    """Where a base's weights come from and under which licence, in words."""
    if base.weights == "imagenet":
        return "trained on ImageNet, as distributed with Keras", f"{_published(base.application)}; {IMAGENET}"
    if base.weights == "random":
        return "drawn at random", "nobody's work, so none is needed"
    if base.weights == "source" and pretrain.source == "glyphs":
        return f"trained here, on {GLYPHS}", "your own; the fonts are free to use"
    if base.weights == "source":
        return (
            f"trained here, on the images of {pretrain.path}",
            f"your own, as far as the images of {pretrain.path} are",
        )
    return f"the file {base.weights}", UNKNOWN


def _published(application: str) -> str:
    return next((licence for begins, licence in LICENCES if application.startswith(begins)), UNKNOWN)
