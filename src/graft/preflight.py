"""What can be known to be wrong before any training: it refuses, and never shapes an output."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from graft import runtime, sources
from graft.errors import GraftError
from graft.journal import project_root
from graft.params import Params, ParamsError


def check_before_training(params: Params) -> None:
    """Refuse params that would fail after hours of training, naming the key.

    Building every base takes seconds; params that passed are remembered, so that each stage may call this.

    Raises:
        ParamsError: a base, a cut, a layer or weights that a row asks for cannot be had, or a class of the data is too
            small; the message starts with the key.
    """
    check_data(params)
    passed = project_root() / ".work" / "checked" / _digest(params)
    if not passed.exists():
        check_models(params)
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()


def _digest(params: Params) -> str:
    """What check_models depends on."""
    rows = params.model_dump_json(include={"data", "backbones", "baselines"})
    return hashlib.sha256(f"{version('keras')} {rows}".encode()).hexdigest()


@contextmanager
def _key(name: str) -> Iterator[None]:
    """Errors of the block become errors of a key of params.yaml."""
    try:
        yield
    except GraftError as error:
        raise ParamsError(f"{name}: {error}") from error


def check_data(params: Params) -> None:
    """Refuse folders that are missing or whose classes are too small, and folds that are too many, by listing alone.

    Raises:
        ParamsError: as said; the message starts with the key.
    """
    if params.data.source == "folder":
        with _key("data.path"):
            sources.check_folder(params.data.path, test=params.data.test != "none")
    if params.pretrain.source == "folder" and any(row.base.weights == "source" for row in params.backbones.values()):
        with _key("pretrain.path"):
            sources.check_folder(params.pretrain.path)
    most = params.data.train_per_class
    for name, row in params.backbones.items():
        if most is not None and row.svm.folds > most:
            raise ParamsError(
                f"backbones.{name}.svm.folds must not exceed data.train_per_class ({most}), received {row.svm.folds}"
            )


def check_models(params: Params) -> None:
    """Build every base with its weights and every baseline.

    Raises:
        ParamsError: one cannot be built, cut or loaded; the message starts with the key.
    """
    runtime.configure(params.seed)
    from graft import backbones, networks
    from graft.weights import obtain_base

    for name, row in params.backbones.items():  # names first: they are checked at once, weights may be downloads
        with _key(f"backbones.{name}.base.application"):
            backbones.application(row.base.application)
    for name, row in params.backbones.items():
        with _key(f"backbones.{name}.base"):
            base = obtain_base(row.base)
        with _key(f"backbones.{name}.features"):
            if row.features.frozen_until != "none":
                backbones.check_cut(base, row.features.frozen_until)
    for name, baseline in params.baselines.items():
        with _key(f"baselines.{name}"):
            networks.build_cnn(baseline, params.data.image_size, classes=2)
