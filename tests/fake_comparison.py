"""A made-up comparison: plausible numbers by plain NumPy, none of them by the modules that measure real models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from fake_runs import DIGITS, fake_history
from PIL import Image

from graft.artifacts import Predictions
from graft.learned_filters import FirstLayer, LearnedFilter
from graft.looks import Look, Tile
from graft.params import Params
from graft.provenance import Provenance
from graft.rank_correlation import RankCorrelation
from graft.reporting.comparison import Comparison, Picture, Run

METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier"),
    *("top_k_accuracy", "roc_auc", "average_precision", "calibration_error"),
)
SCALE = {"finetune": 0.05, "svm": 0.04, "baseline": 0.05}
COSTS = {"baseline": (1.9, 21e6, 1.4e6), "finetune": (9.0, 160e6, 3.7e6), "svm": (7.5, 150e6, 4.2e6)}


def fake_comparison(
    params: Params,
    *,
    classes: Sequence[str] = DIGITS,
    per_class: int = 36,
    test: bool = True,
    bare: bool = False,
    curve: bool = True,
    alike: bool = False,
    champion: str | None = None,
    repeats: int = 1,
) -> Comparison:
    """Everything that the pages tell of the models of the params.

    Args:
        params: lists the models.
        classes: their names.
        per_class: images of each class in a split.
        test: whether there is a test split.
        bare: leaves out all that may be missing: costs, looks, curve, transferability, slices and suspects.
        curve: whether accuracy against labelled images was measured.
        alike: every model predicts nearly the same, so that none can be told from the champion.
        champion: the model that is to win; else the first backbone, or the first model.
        repeats: trainings of every model.
    """
    models = params.models()
    first = champion or next((name for name, kind in models.items() if kind == "finetune"), next(iter(models)))
    order = [first, *(name for name in models if name != first)]
    split = "test" if test else "validation"
    runs = {
        name: _run(name, models[name], place, classes, per_class, test, bare, alike, repeats)
        for place, name in enumerate(order)
    }
    frame = _frame(runs, split, params.compare.top_k, bare)
    best = runs[first].predictions
    backbones = [] if bare else list(params.backbones)
    transfer, correlations = _transfer(backbones, frame)
    reliability = {name: _reliability(run.predictions, split) for name, run in runs.items()}
    return Comparison(
        frame=frame,
        runs=runs,
        classes=_classes(runs, split),
        slices=_slices(best, split, bare),
        suspects=_suspects(best, bare),
        reliability=reliability,
        coverage={name: _coverage(run.predictions, split) for name, run in runs.items()},
        curve=_curve(params) if curve and not bare else None,
        transfer=transfer,
        correlations=correlations,
        maps={name: _map(classes, number) for number, name in enumerate(backbones)},
        mistakes=[] if bare else [_tile(k, "7", "9", f"{99 - 4 * k} %") for k in range(9)],
        doubts=[] if bare else [_tile(k, "3", "3", f"{31 + 2 * k} %") for k in range(12)],
        suspect_tiles=[] if bare else [_tile(k, "7", "1", "7, or 1?") for k in range(14)],
        provenance=_provenance(params, bare),
        picture=None if bare else Picture(_pixels(4), "validation image folder/0004.png of class 7"),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _predictions(classes: Sequence[str], per_class: int, test: bool, skill: float, seed: int) -> Predictions:
    splits = ("validation", "test") if test else ("validation",)
    rows = pd.DataFrame(
        [(f"{split}-{k}-{number}", split, name) for split in splits for k in range(per_class)
         for number, name in enumerate(classes)],
        columns=["image_id", "split", "label"],
    )  # fmt: skip
    actual = np.tile(np.arange(len(classes)), per_class * len(splits))
    hard = np.random.default_rng(0).normal(0, 1, len(actual))  # the same images are hard for every model
    own = np.random.default_rng(seed + 1)
    logits = own.normal(0, 1, (len(actual), len(classes)))
    logits[np.arange(len(actual)), actual] += skill + 1.6 * hard
    logits[np.arange(len(actual)), (actual + 1) % len(classes)] += 1.5 * (hard < -1)
    return Predictions(rows, _softmax(logits * 1.3), tuple(classes), temperature=1.3)


def _run(
    name: str, kind: str, place: int, classes: Sequence[str], per_class: int, test: bool, bare: bool, alike: bool,
    repeats: int,
) -> Run:  # fmt: skip
    skill = 5.2 + 0.4 * np.log(len(classes)) - (0.02 if alike else 0.25) * place
    predictions = _predictions(classes, per_class, test, skill, place)
    latency, operations, size = COSTS[kind]
    latency *= 1 + 0.35 * (place % 5)
    history = fake_history({"train": 24} if kind == "baseline" else {"frozen": 14, "unfrozen": 9}, place)
    seconds = 7.3 * (place + 1) ** 1.2
    timings = {"train_seconds": seconds}
    if kind == "finetune":
        timings |= {"frozen_seconds": 0.3 * seconds, "unfrozen_seconds": 0.7 * seconds}
    costs: dict[str, float | None] = dict.fromkeys(
        ("multiply_adds", "model_bytes", "latency_ms", "latency_ms_low", "latency_ms_high", "throughput")
    )
    if not bare:
        costs = {"multiply_adds": operations * (1 + place / 4), "model_bytes": size * (1 + place / 3)}
        costs |= {"latency_ms": latency, "latency_ms_low": 0.94 * latency, "latency_ms_high": 1.09 * latency}
        costs |= {"throughput": 4200 / latency}
    return Run(
        model=name,
        kind=kind,
        backbone=None if kind == "baseline" else name.removesuffix("-svm"),
        predictions=predictions,
        history=None if kind == "svm" else history,
        parameters=120_000 * (place + 1),
        timings=timings,
        repeats=[
            _predictions(classes, per_class, test, skill - 0.1 * seed, 100 * seed + place) for seed in range(1, repeats)
        ],
        costs=costs,
        abstain_below=None if place == 3 else 0.55 + 0.03 * (place % 6),
        looks=() if bare or kind == "svm" else _looks(place),
        first_layer=None if bare or kind == "svm" else _first_layer(place),
    )


def _pixels(number: int, side: int = 32) -> np.ndarray:
    """A small picture: a blurred blot whose place and colour depend on the number."""
    y, x = np.mgrid[:side, :side] / side
    blot = np.exp(-((x - 0.3 - 0.05 * (number % 9)) ** 2 + (y - 0.5) ** 2) * 25)
    return np.stack([blot * 255, blot * (40 * number % 255), 60 + 150 * (1 - blot)], axis=-1).astype(np.uint8)


def _square(number: int, side: int = 32) -> bytes:
    content = io.BytesIO()
    Image.fromarray(_pixels(number, side)).save(content, "PNG")
    return content.getvalue()


def _first_layer(place: int) -> FirstLayer:
    """Filters in colours, or in grey, of several sizes."""
    side, channels = 3 + 2 * (place % 3), 3 if place % 2 else 1
    weights = np.random.default_rng(place).normal(size=(6, side, side, channels))
    filters = [LearnedFilter(number, one, _square(number, 16)) for number, one in enumerate(weights)]
    return FirstLayer("conv1", 8, (16, 16), channels == 1, filters)


def _tile(number: int, true: str, predicted: str, caption: str) -> Tile:
    return Tile(_square(number), caption, f"folder/{number:04d}.png", true, predicted)


def _looks(place: int) -> list[Look]:
    maps = [Tile(_square(k + place, 24), f"block{k // 6 + 1}" if k % 6 == 0 else "") for k in range(18)]
    heat = [Tile(_square(k, 64), "" if k % 2 else f"actual {k}", "", f"{k}", f"{k}") for k in range(12)]
    filters = [Tile(_square(k, 9), "") for k in range(24)]
    return [
        Look("filters", "First-layer filters", "What the first layer reacts to.", filters),
        Look("feature_maps", "Feature maps", "One image through the blocks of the network.", maps, 6),
        Look("grad_cam", "Grad-CAM", "Where the evidence for the predicted class lies.", heat, 6),
    ]


def _measured(labels: np.ndarray, probabilities: np.ndarray, top_k: int) -> dict[str, float]:
    n = len(labels)
    right = probabilities.argmax(axis=1) == labels
    given = probabilities[np.arange(n), labels]
    one_hot = np.eye(probabilities.shape[1])[labels]
    accuracy = float(right.mean())
    order = (probabilities > given[:, None]).sum(axis=1)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "macro_f1": accuracy - 0.002,
        "log_loss": float(-np.log(given.clip(1e-9)).mean()),
        "brier": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        "top_k_accuracy": float((order < top_k).mean()),
        "roc_auc": 1 - (1 - accuracy) / 6,
        "average_precision": 1 - (1 - accuracy) / 2,
        "calibration_error": float(abs(probabilities.max(axis=1).mean() - accuracy)) + 0.012,
    }


def _around(value: float, margin: float, most: float = 1.0) -> tuple[float, float]:
    return max(0.0, value - margin), min(most, value + margin)


def _columns(prefix: str, run: Run, split: str, top_k: int) -> dict[str, float]:
    labels, probabilities = run.predictions.split(split)
    if not len(labels):
        names = [*METRICS, "calibration_error_before", "accuracy_mean"]
        return {f"{prefix}_{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
    values = _measured(labels, probabilities, top_k)
    values["calibration_error_before"] = 1.8 * values["calibration_error"]
    row = {}
    for name, value in values.items():
        margin = 1.96 * np.sqrt(max(1e-5, min(value, 1) * abs(1 - min(value, 1))) / len(labels))
        low, high = _around(value, float(margin), 9.0 if name in ("log_loss", "brier") else 1.0)
        row |= {f"{prefix}_{name}": value, f"{prefix}_{name}_low": low, f"{prefix}_{name}_high": high}
    seeds = [values["accuracy"], *(_measured(*one.split(split), top_k)["accuracy"] for one in run.repeats)]
    spread = 4.3 * float(np.std(seeds, ddof=1)) / np.sqrt(len(seeds)) if len(seeds) > 1 else np.nan
    mean = float(np.mean(seeds))
    ends = (mean, mean - spread, mean + spread)
    return row | {f"{prefix}_accuracy_mean{end}": v for end, v in zip(("", "_low", "_high"), ends, strict=True)}


def _frame(runs: dict[str, Run], split: str, top_k: int, bare: bool) -> pd.DataFrame:
    champion = next(iter(runs.values()))
    rows: list[dict[str, Any]] = []
    for place, run in enumerate(runs.values()):
        row: dict[str, Any] = {"model": run.model, "kind": run.kind, "backbone": run.backbone, "champion": not place}
        row |= _columns("val", run, "validation", top_k) | _columns("test", run, "test", top_k)
        row |= {"temperature": run.predictions.temperature, "abstain_below": run.abstain_below}
        row |= _versus(champion, run, split, place) | {"repeats": 1 + len(run.repeats), "parameters": run.parameters}
        row |= dict(run.costs) | {"train_seconds": run.train_seconds, "pareto": False}
        row |= {name: run.timings.get(name) for name in ("frozen_seconds", "unfrozen_seconds")}
        row |= {"feature_seconds": None if bare or not run.backbone else 3.1}
        row |= {"logme": None if bare or not run.backbone else 1.4 - 0.1 * place}
        row |= {"linear_probe": None if bare or not run.backbone else 0.94 - 0.02 * place}
        row |= {f"n_{name}": len(run.predictions.split(name)[0]) for name in ("validation", "test")}
        rows.append(row)
    frame = pd.DataFrame(rows)
    if not bare:
        prefix = "test" if split == "test" else "val"
        accuracy, latency = frame[f"{prefix}_accuracy"], frame["latency_ms"]
        frame["pareto"] = [
            not ((accuracy >= a) & (latency <= t) & ((accuracy > a) | (latency < t))).any()
            for a, t in zip(accuracy, latency, strict=True)
        ]
    return frame


def _versus(champion: Run, run: Run, split: str, place: int) -> dict[str, Any]:
    names = ("difference", "difference_low", "difference_high", "p_value", "p_adjusted")
    if not place:
        return dict.fromkeys(names, np.nan) | {"verdict": "champion"}
    labels, first = champion.predictions.split(split)
    wins = (first.argmax(axis=1) == labels).astype(int) - (run.predictions.split(split)[1].argmax(axis=1) == labels)
    difference, margin = float(wins.mean()), 1.96 * float(wins.std()) / np.sqrt(len(wins))
    verdict = "not distinguishable" if difference < 1.25 * margin else "worse"
    p_value = 0.3 if verdict != "worse" else 0.0004
    values = (difference, difference - margin, difference + margin, p_value, min(1.0, 3 * p_value))
    return dict(zip(names, values, strict=True)) | {"verdict": verdict}


def _classes(runs: dict[str, Run], split: str) -> pd.DataFrame:
    rows = []
    for run in runs.values():
        labels, probabilities = run.predictions.split(split)
        predicted = probabilities.argmax(axis=1)
        for number, name in enumerate(run.predictions.classes):
            both = int(((labels == number) & (predicted == number)).sum())
            n, said = int((labels == number).sum()), int((predicted == number).sum())
            row: dict[str, Any] = {"model": run.model, "label": name, "n": n}
            for measure, value in (
                ("precision", both / said if said else np.nan),
                ("recall", both / n if n else np.nan),
                ("f1", 2 * both / (n + said) if n + said else np.nan),
            ):
                low, high = _around(value, 0.06)
                row |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def _reliability(predictions: Predictions, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    labels, probabilities = predictions.split(split)
    sharper = probabilities**1.6
    return _bins(labels, sharper / sharper.sum(axis=1, keepdims=True)), _bins(labels, probabilities)


def _bins(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * 15).astype(int), 14)
    return pd.DataFrame(
        [
            (k / 15, (k + 1) / 15, int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
            for k in range(15)
            if (here := place == k).any()
        ],
        columns=["low", "high", "n", "confidence", "accuracy"],
    )


def _coverage(predictions: Predictions, split: str) -> pd.DataFrame:
    labels, probabilities = predictions.split(split)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    rows = []
    for threshold in np.unique(confidence):
        kept = confidence >= threshold
        accuracy, n = float(right[kept].mean()), int(kept.sum())
        rows.append((float(threshold), n / len(labels), n, accuracy, *_around(accuracy, 0.3 / np.sqrt(n))))
    return pd.DataFrame(rows, columns=["threshold", "coverage", "n", "accuracy", "low", "high"])


SLICES = [("class", "8"), ("class", "9"), ("brightness", "darkest quarter (3 to 40)"), ("image size", "small"),
          ("camera", "A&B")]  # fmt: skip


def _slices(predictions: Predictions, split: str, bare: bool) -> pd.DataFrame:
    labels, _ = predictions.split(split)
    metrics = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    rows: list[dict[str, Any]] = []
    for place, (name, value) in enumerate([] if bare else SLICES):
        accuracy, n = 0.8 + 0.03 * place, max(1, len(labels) // (6 + place))
        row: dict[str, Any] = {"slice": name, "value": value, "n": n, "share": n / len(labels)}
        row |= dict.fromkeys(metrics, np.nan if name == "class" else 0.8)
        row |= {"accuracy": accuracy, "accuracy_low": accuracy - 0.08, "accuracy_high": accuracy + 0.06}
        row |= {"rest_accuracy": 0.95, "difference": accuracy - 0.95, "p_value": 0.001 * 9**place / 2}
        rows.append(row | {"p_adjusted": min(1.0, 0.005 * 9**place), "worse": place == 0})
    ends = ["rest_accuracy", "difference", "p_value", "p_adjusted", "worse"]
    return pd.DataFrame(rows, columns=["slice", "value", "n", "share", *metrics, *ends])


def _suspects(predictions: Predictions, bare: bool) -> pd.DataFrame:
    names = predictions.classes
    rows = [
        (f"id{k}", f"folder/{k:04d}.png", ("train", "test")[k % 2], names[k % len(names)], names[(k + 1) % len(names)],
         0.02 + 0.01 * k, 0.95 - 0.01 * k, 0.03 + 0.01 * k, "vgg16")
        for k in range(0 if bare else 14)
    ]  # fmt: skip
    columns = ["image_id", "source", "split", "label", "suggested", "probability_of_label"]
    return pd.DataFrame(rows, columns=[*columns, "probability_of_suggested", "score", "judged_by"])


def _curve(params: Params) -> pd.DataFrame:
    rows = []
    gains = {"baseline": 0.52, "frozen": 0.2, "finetune": 0.26, "svm": 0.22}
    ceilings = {"baseline": 0.975, "frozen": 0.92, "finetune": 0.982, "svm": 0.935}
    names = [(name, ("baseline",)) for name in params.baselines]
    names += [(name, ("frozen", "finetune", "svm")) for name in params.backbones]
    for place, (name, kinds) in enumerate(names):
        for kind in kinds:
            for images, size in ((5, 5), (10, 10), (20, 20), (50, 50), (108, -1)):
                accuracy = ceilings[kind] - 0.012 * place - gains[kind] * 5 / images - 0.01 * (5 / images) * place
                margin = 0.05 * np.sqrt(5 / images)
                point = (accuracy, *_around(accuracy, margin), 2.5 + images / 9, accuracy + 0.01)
                by_seed = {seed: accuracy + 0.01 * (seed - 1) for seed in range(3)}
                rows.append((name, kind, size, 10 * images, 3, *point, by_seed))
    columns = ["model", "kind", "per_class", "images", "seeds", "accuracy", "low", "high", "seconds"]
    columns += ["validation_accuracy", "by_seed"]
    return pd.DataFrame(rows, columns=columns)


def _transfer(backbones: Sequence[str], frame: pd.DataFrame) -> tuple[pd.DataFrame, list[RankCorrelation]]:
    columns = ["backbone", "logme", "linear_probe", "linear_probe_low", "linear_probe_high", "seconds"]
    rows = [
        (name, 1.4 - 0.15 * place, 0.93 - 0.03 * place, 0.9 - 0.03 * place, 0.96 - 0.03 * place, 0.8)
        for place, name in enumerate(backbones)
    ]
    n = len(backbones)
    defined = n > 2
    correlations = [
        RankCorrelation(score, kind, 0.67 if defined else None, 0.33 if defined else None, n)
        for score in ("logme", "linear_probe")
        for kind in ("finetune", "svm")
    ]
    return pd.DataFrame(rows, columns=columns), correlations if n else []


def _map(classes: Sequence[str], seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    number = np.arange(600) % len(classes)
    angle = 2 * np.pi * number / len(classes)
    centre = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pca, tsne = (
        scale * (centre * (1 + (number % 3) / 3)[:, None] + generator.normal(0, spread, (600, 2)))
        for scale, spread in ((3, 0.35), (40, 0.13))
    )
    return pd.DataFrame(
        {
            "image_id": [f"m{k}" for k in range(600)],
            "split": np.where(np.arange(600) % 3 == 0, "test", "train"),
            "label": np.asarray(classes, object)[number],
            "pca_x": pca[:, 0],
            "pca_y": pca[:, 1],
            "tsne_x": tsne[:, 0],
            "tsne_y": tsne[:, 1],
        }
    )


def _provenance(params: Params, bare: bool) -> Provenance:
    weights = pd.DataFrame(
        [(name, "trained here on rendered characters", "as this project") for name in params.backbones],
        columns=["backbone", "weights", "licence"],
    )
    return Provenance(
        commit=None if bare else "3e0d64d8f7a1b2c3d4e5f60718293a4b5c6d7e8f",
        dirty=not bare,
        data={} if bare else {"data/prepared": "0123456789abcdef0123456789abcdef.dir"},
        versions={"Python": "3.11.9", "keras": "3.15.1", "tensorflow": "2.21.0"},
        machine={"processor": "x86_64", "threads": "4", "system": "Linux"},
        weights=weights,
    )
