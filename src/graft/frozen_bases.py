"""A frozen base as the features stage knows it: what it computes, and under which name the store keeps that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import backbones, extraction, inference, networks, runtime
from graft.feature_sets import SVM, TOP
from graft.sections import Backbone
from graft.store import FeatureStore, Space
from graft.svm_layers import Tap, layers_json, starts, taps_of, vector_length
from graft.weights import ARCHITECTURE, WEIGHTS, file_sha256, load_base

if TYPE_CHECKING:
    import keras

CODE = (backbones, extraction, inference, networks)  # the modules that shape a row


@dataclass(frozen=True)
class FrozenBase:
    """A base and all that its rows depend on beside the pixels.

    Attributes:
        model: the base.
        weights_sha256: of its weights' file.
        architecture_sha256: of its architecture's.
        row: its row of params.yaml.
        image_size: px per side of the prepared images.
        storage: float32 or float16, as which rows are kept.
    """

    model: keras.Model
    weights_sha256: str
    architecture_sha256: str
    row: Backbone
    image_size: int
    storage: str

    @classmethod
    def load(cls, source: Path, row: Backbone, image_size: int, storage: str) -> FrozenBase:
        """The base of a models/source folder.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        model = load_base(source)
        weights, architecture = (file_sha256(source / name) for name in (WEIGHTS, ARCHITECTURE))
        return cls(model, weights, architecture, row, image_size, storage)

    @property
    def taps(self) -> list[Tap]:
        """What the support vector machine stands on."""
        return taps_of(self.row.features)

    @property
    def depth(self) -> tuple[str, ...]:
        """Every point at which the base may be cut, and the top, in the order in which a pass reaches them.

        Among them the vectors of the support vector machine, after all from which they can be computed.
        """
        cuts = backbones.legal_cuts(self.model)
        before = starts(self.model, cuts, self.taps)[1:]
        return (*before, SVM, *cuts[len(before) :], TOP)

    def frozen_pass(self, start: str, ends: Sequence[str]) -> keras.Model:
        """As extraction.row_pass."""
        return extraction.row_pass(self.model, self.row, self.image_size, start, ends)

    def row_shape(self, point: str) -> tuple[int, ...]:
        """Of the rows at a point."""
        if point == TOP:
            return tuple(networks.pool(self.model.output, self.row.features.pooling).shape[1:])
        if point == SVM:
            return (vector_length(self.model, self.taps),)
        return tuple(self.model.get_layer(point).output.shape[1:])

    def made_by(self) -> dict[str, Any]:
        """How rows come about, wherever in the base they stand; where it is equal, they are, bit for bit."""
        return {
            "application": self.row.base.application,
            "weights_sha256": self.weights_sha256,
            "architecture_sha256": self.architecture_sha256,
            "input_size": self.row.base.input_size,
            "image_size": self.image_size,
            "batch_size": self.row.features.batch_size,
            "code_sha256": _code(),
            "machine": runtime.machine(),
        }

    def space(self, store: FeatureStore, point: str) -> Space:
        """Where the store keeps the rows at a point."""
        pooled: dict[str, dict[str, Any]] = {
            TOP: {"pooling": self.row.features.pooling},
            SVM: {"layers": layers_json(self.row.features)},
        }
        description = self.made_by() | {"point": point} | pooled.get(point, {})
        return store.space(description, self.row_shape(point), self.storage)


def _code() -> str:
    """A hash of the modules that shape a row, so that the store never mixes what two versions of them made."""
    sources = [Path(str(module.__file__)).read_bytes() for module in CODE]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()
