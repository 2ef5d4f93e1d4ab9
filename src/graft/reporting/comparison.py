"""What a comparison of trained models holds: the leaderboard and everything that the pages tell beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from graft.artifacts import Predictions
from graft.learned_filters import FirstLayer
from graft.looks import Look, Tile
from graft.provenance import Provenance
from graft.rank_correlation import RankCorrelation


@dataclass(frozen=True)
class Run:
    """What one trained model left for the comparison.

    Attributes:
        model: as in Params.models.
        kind: baseline, finetune or svm.
        backbone: the row of params.yaml under backbones; None for a baseline.
        predictions: for the validation and test images, calibrated.
        history: one row per epoch; None for models that are not trained by epochs.
        parameters: number of trained and frozen weights.
        timings: seconds of training by phase (`train_seconds` is their sum), what it cost when it was done.
        repeats: predictions of the further trainings from other seeds, none where train.repeats is 1.
        costs: multiply_adds and model_bytes; latency_ms with latency_ms_low and _high (quartiles), and throughput
            (images a second); missing ones are None.
        abstain_below: confidence under which a prediction abstains; None: it always does.
        looks: of the look inside; empty for SVMs.
        first_layer: of a network with a convolution, what its filters make of Comparison.picture; else None.
    """

    model: str
    kind: str
    backbone: str | None
    predictions: Predictions
    history: pd.DataFrame | None
    parameters: int
    timings: Mapping[str, float]
    repeats: Sequence[Predictions] = ()
    costs: Mapping[str, float | None] = field(default_factory=dict)
    abstain_below: float | None = None
    looks: Sequence[Look] = ()
    first_layer: FirstLayer | None = None

    @property
    def train_seconds(self) -> float:
        """Of all phases together."""
        return self.timings["train_seconds"]


@dataclass(frozen=True)
class Picture:
    """The image to which every filter is applied.

    Attributes:
        pixels: RGB 0..255 (h, w, 3).
        words: what it is, such as "validation image 4.png of class bee".
    """

    pixels: np.ndarray
    words: str


@dataclass(frozen=True)
class Comparison:
    """Everything that is told of the models; the final split is test, or validation where there is none.

    Attributes:
        frame: the leaderboard: one row per model with leaderboard.COLUMNS, the champion first.
        runs: by model, in the order of the frame.
        classes: one row per model and class of the final split: model, label, n, and precision, recall and f1, each
            with _low and _high.
        slices: one row per slice of the final split, of the champion; as slices.evaluate_slices.
        suspects: possible label errors, the most suspicious first; as suspects.find_suspects.
        reliability: by model, before and after calibration, the bins of the final split; as reliability.bins.
        coverage: by model, of the final split; as reliability.coverage_curve.
        curve: accuracy against labelled images, as learning_curve.summarise; None where the curve is off.
        transfer: one row per backbone: backbone, logme, linear_probe, linear_probe_low, linear_probe_high, seconds.
        correlations: of those scores with the final accuracies.
        maps: by backbone, image_id, split, label, pca_x, pca_y, tsne_x and tsne_y of some images.
        mistakes: images of the final split that the champion got wrong, most confident first.
        doubts: images that it got right, least confident first.
        suspect_tiles: pictures of the first suspects, in their order.
        provenance: what it was made from.
        picture: to which filters are applied; None where none is shown.
    """

    frame: pd.DataFrame
    runs: Mapping[str, Run]
    classes: pd.DataFrame
    slices: pd.DataFrame
    suspects: pd.DataFrame
    reliability: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]
    coverage: Mapping[str, pd.DataFrame]
    curve: pd.DataFrame | None
    transfer: pd.DataFrame
    correlations: Sequence[RankCorrelation]
    maps: Mapping[str, pd.DataFrame]
    mistakes: Sequence[Tile]
    doubts: Sequence[Tile]
    suspect_tiles: Sequence[Tile]
    provenance: Provenance
    picture: Picture | None = None

    @property
    def champion(self) -> Run:
        """The model that validation chose."""
        return self.runs[str(self.frame["model"].iloc[0])]

    @property
    def classes_in_order(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.champion.predictions.classes
