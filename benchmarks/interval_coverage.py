"""How often do intervals hold the true value, and tests their error, in simulated data where the truth is known?

    python benchmarks/interval_coverage.py --workers 4

A classifier's scores are normal around the image's class, noise within a group is alike, and probabilities are their
softmax. The truth is measured on 400,000 further images. Coverage in %, nominal 95; with 1,000 simulations its own
standard error is 0.7. Errors are of models that are equally good, at a level of 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from joblib import Parallel, delayed

from graft.comparison_sections import Compare
from graft.evaluation import METRICS, RATIOS, evaluate, evaluate_classes
from graft.metrics import classification_metrics
from graft.significance import holm, paired_difference

FURTHER = 400_000  # images on which the truth is measured
DIFFERENCE = "difference"
SHARED = 0.8  # of the noise, by a model and its rival
RIVALS = 8  # where many models are compared with one


@dataclass(frozen=True)
class Scenario:
    """A data set, a classifier of it and rivals.

    Attributes:
        sizes: images of each class, or groups of them.
        signal: by how many standard deviations the first model's score of the right class is raised.
        sharpness: by which scores are multiplied; equal to the signal, probabilities are calibrated.
        group: groups have 1 to so many images; 0: every image is its own.
        alike: share of the noise that is the same within a group.
        spread: of the signal, relative, from the first class to the last.
        worse: the rivals' signal, relative.
    """

    sizes: Sequence[int]
    signal: float
    sharpness: float
    group: int = 0
    alike: float = 0.5
    spread: float = 0.3
    worse: float = 0.9

    def draw(self, seed: int, rivals: int = 1) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
        """Labels (n,), probabilities (n, classes) of the model and of its rivals, groups (n,)."""
        generator = np.random.default_rng(seed)
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        groups = None
        if self.group:
            groups = np.repeat(np.arange(len(labels)), generator.integers(1, self.group + 1, len(labels)))
            labels = labels[groups]

        def noise() -> np.ndarray:
            own = generator.normal(size=(len(labels), len(self.sizes)))
            if groups is None:
                return own
            shared = generator.normal(size=(groups[-1] + 1, len(self.sizes)))[groups]
            return np.sqrt(self.alike) * shared + np.sqrt(1 - self.alike) * own

        first = noise()
        others = [np.sqrt(SHARED) * first + np.sqrt(1 - SHARED) * noise() for _ in range(rivals)]
        models = [self._probabilities(first, labels, 1.0)]
        return labels, models + [self._probabilities(other, labels, self.worse) for other in others], groups

    def _probabilities(self, scores: np.ndarray, labels: np.ndarray, worse: float) -> np.ndarray:
        signals = self.signal * worse * (1 + self.spread * np.linspace(-1, 1, len(self.sizes)))
        scores = scores.copy()
        scores[np.arange(len(labels)), labels] += signals[labels]
        powers = np.exp(self.sharpness * (scores - scores.max(axis=1, keepdims=True)))
        return powers / powers.sum(axis=1, keepdims=True)

    def truth(self, settings: Compare) -> dict[str, float]:
        """The values over all images there are: of METRICS, of the difference, and of each class."""
        factor = FURTHER // sum(self.sizes)
        whole = replace(self, sizes=[size * factor for size in self.sizes], group=0)
        labels, (first, second), _ = whole.draw(2**32)
        found = evaluate(labels, first, None, settings.model_copy(update={"resamples": 1}), 0)["value"].to_dict()
        found[DIFFERENCE] = found["accuracy"] - classification_metrics(labels, second)["accuracy"]
        return found | _flat(evaluate_classes(labels, first, None, settings, 0), "")


def _flat(table: pd.DataFrame, end: str) -> dict[str, float]:
    return {f"{name} {label}": table.loc[label, f"{name}{end}"] for name in RATIOS for label in table.index}


SCENARIOS = {
    "10 x 36, 96 %": Scenario([36] * 10, 4.0, 2.0),
    "10 x 36, 99.4 %": Scenario([36] * 10, 5.2, 2.0),
    "10 x 36, overconfident": Scenario([36] * 10, 4.0, 6.0),
    "10 x 36, calibrated": Scenario([36] * 10, 3.2, 3.2, spread=0.0),
    "10 x 10": Scenario([10] * 10, 3.0, 2.0),
    "30 x 3": Scenario([3] * 30, 3.5, 2.0),
    "2 x 75": Scenario([75] * 2, 1.8, 2.0),
    "200, 60, 20, 10": Scenario([200, 60, 20, 10], 2.6, 2.0),
    "5 x 400": Scenario([400] * 5, 3.2, 2.0),
    "4 x 15 groups of 1-8": Scenario([15] * 4, 2.6, 2.0, group=8),
    "10 x 20 groups of 1-4": Scenario([20] * 10, 3.2, 2.0, group=4),
    "2 x 10 groups of 1-8": Scenario([10] * 2, 1.8, 2.0, group=8),
}


def simulate(scenario: Scenario, settings: Compare, seed: int) -> dict[str, tuple[float, float]]:
    """Low and high of everything that the truth has."""
    labels, (first, second), groups = scenario.draw(seed)
    table = evaluate(labels, first, groups, settings, seed)
    classes = evaluate_classes(labels, first, groups, settings, seed)
    apart = paired_difference(labels, first, second, groups, settings, seed)
    found = {name: (table.loc[name, "low"], table.loc[name, "high"]) for name in METRICS}
    lows, highs = _flat(classes, "_low"), _flat(classes, "_high")
    return found | {DIFFERENCE: (apart.low, apart.high)} | {name: (lows[name], highs[name]) for name in lows}


def cover(scenario: Scenario, settings: Compare, simulations: int, workers: int = 1) -> dict[str, float]:
    """Shares of the simulations whose interval holds the truth; of precision, recall and f1 the mean over classes."""
    truth = scenario.truth(settings)
    runs = Parallel(workers)(delayed(simulate)(scenario, settings, seed) for seed in range(simulations))
    held = {}
    for name, value in truth.items():
        ends = np.array([run[name] for run in runs])
        ends = ends[np.isfinite(ends).all(axis=1)]
        held[name] = float(((ends[:, 0] <= value + 1e-12) & (value - 1e-12 <= ends[:, 1])).mean())
    overall = {name: held[name] for name in (*METRICS, DIFFERENCE)}
    return overall | {
        name: float(np.mean([held[key] for key in held if key.startswith(name + " ")])) for name in RATIOS
    }


def errors(scenario: Scenario, settings: Compare, simulations: int) -> tuple[float, float]:
    """How often a rival that is as good is called different, and any of RIVALS by Holm's adjusted p-values."""
    single = family = 0
    for seed in range(simulations):
        labels, (first, *others), groups = replace(scenario, worse=1.0).draw(seed, RIVALS)
        p_values = [paired_difference(labels, first, other, groups, settings, seed).p_value for other in others]
        single += p_values[0] < 1 - settings.confidence
        family += bool((holm(p_values) < 1 - settings.confidence).any())
    return single / simulations, family / simulations


def main(
    simulations: Annotated[int, typer.Option(help="Of each scenario.")] = 1000,
    resamples: Annotated[int, typer.Option(help="Of each bootstrap.")] = 1000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Print one row per scenario: what the intervals hold, and the errors of one test and of several."""
    settings = Compare(confidence=0.95, resamples=resamples, top_k=3, calibration_bins=15)
    columns = (*METRICS, DIFFERENCE, *RATIOS)
    print(f"| classes | {' | '.join((*columns, 'one error', f'any of {RIVALS}'))} |")
    print(f"| --- |{' ---: |' * (len(columns) + 2)}")
    for name, scenario in SCENARIOS.items():
        held = cover(scenario, settings, simulations, workers)
        wrong = errors(scenario, settings.model_copy(update={"resamples": 100}), simulations)
        figures = [*(held[column] for column in columns), *wrong]
        print(f"| {name} | {' | '.join(f'{100 * figure:.1f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
