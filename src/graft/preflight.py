"""What can be known to be wrong before any training: it refuses, and never shapes an output."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from graft import runtime, sources, splits
from graft.errors import GraftError
from graft.journal import project_root
from graft.params import Params, ParamsError
from graft.sections import KEYWORD_WEIGHTS


def check_before_training(params: Params) -> None:
    """Refuse params that would fail after hours of training, naming the key, and work that does not fit here.

    Building every base takes seconds; params that passed are remembered, so that each stage may call this.

    Raises:
        ParamsError: a base, a cut, a layer or weights that a row asks for cannot be had, or a class of the data is too
            small; the message starts with the key.
        ResourceError: as resource_checks.check_resources.
    """
    from graft.resource_checks import check_resources

    check_data(params)
    passed = project_root() / ".work" / "checked" / _digest(params)
    if not passed.exists():
        check_models(params)
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    check_resources(params)


def _digest(params: Params) -> str:
    """What check_models depends on: rows, weights files as they are now, where Keras looks for its own."""
    rows = params.model_dump_json(include={"data", "backbones", "baselines"})
    files = [row.base.depends_on.stat() for row in params.backbones.values() if row.base.depends_on.exists()]
    states = [(state.st_size, state.st_mtime_ns) for state in files]
    known = (version("keras"), os.environ.get("KERAS_HOME"), states, rows)
    return hashlib.sha256(repr(known).encode()).hexdigest()


@contextmanager
def _key(name: str) -> Iterator[None]:
    """Errors of the block become errors of a key of params.yaml."""
    try:
        yield
    except GraftError as error:
        raise ParamsError(f"{name}: {error}") from error


def check_data(params: Params) -> None:
    """Refuse missing paths, folders whose classes are too small, and folds that are too many, by listing alone.

    Raises:
        ParamsError: as said; the message starts with the key.
    """
    _check_path("data.path", params.data.path)
    _check_path("pretrain.path", params.pretrain.path)
    for name, row in params.backbones.items():
        if row.base.weights in KEYWORD_WEIGHTS:  # a file of weights is asked for with the models
            _check_path(f"backbones.{name}.base.depends_on", row.base.depends_on)
    most = params.data.train_per_class
    per_class = {} if most is None else {"any": most}
    data = params.data
    with tempfile.TemporaryDirectory() as scratch:
        if data.source in ("folder", "table"):  # an archive would have to be unpacked: prepare does, once
            with _key("data"):
                counts = sources.check_source(data, Path(scratch), data.split, data.test != "none")
                per_class = splits.training_counts(counts, data, params.seed) or per_class
        used = any(row.base.weights == "source" for row in params.backbones.values())
        if params.pretrain.source == "folder" and used:
            with _key("pretrain.path"):
                sources.check_source(params.pretrain, Path(scratch), "stratified", False)
    for name, row in params.backbones.items():
        for label, images in per_class.items():
            if row.svm.folds > images:
                raise ParamsError(
                    f"backbones.{name}.svm.folds must not exceed the training images of a class, "
                    f"received {row.svm.folds} where class {label!r} has {images}"
                )


def _check_path(key: str, path: Path) -> None:
    """Refuse a path that is not there, or that an experiment in a copy of the repository would not have."""
    if not path.exists():
        raise ParamsError(f"{key}: {path} does not exist")
    command = ["git", "check-ignore", "--quiet", str(path)]
    if path.is_absolute() or path.with_name(f"{path.name}.dvc").exists():
        return
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        raise ParamsError(
            f"{key}: {path} is ignored by Git, so that `dvc exp run --temp` would not find it; "
            f"name it absolutely ({path.resolve()}) or `dvc add` it"
        )


def check_models(params: Params) -> None:
    """Build every base with its weights and every baseline.

    Raises:
        ParamsError: one cannot be built, cut or loaded; the message starts with the key.
    """
    runtime.configure(params.seed)
    from graft import backbones, svm_layers
    from graft.baselines import build_cnn
    from graft.weights import obtain_base

    for name, row in params.backbones.items():  # names first: they are checked at once, weights may be downloads
        with _key(f"backbones.{name}.base.application"):
            backbones.application(row.base.application)
    for name, row in params.backbones.items():
        with _key(f"backbones.{name}.base"):
            base = obtain_base(row.base)
        with _key(f"backbones.{name}.features"):
            for layer in row.features.cuts:
                backbones.check_cut(base, layer)
            svm_layers.check_layers(base, row.features.svm_layers)
    for name, baseline in params.baselines.items():
        with _key(f"baselines.{name}"):
            build_cnn(baseline, params.data.image_size, classes=2)
