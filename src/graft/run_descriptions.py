"""What a run is, how it was trained, how it compares and how to use it: Markdown for MLflow's description of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from graft.run_parameters import parameters
from graft.trained import TrainedModel

MINUS, ENDS = "\u2212", ("", "_low", "_high")
KINDS = {
    "baseline": "a network trained from scratch",
    "finetune": "a pretrained network, fine-tuned",
    "svm": "a support vector machine on the features of a frozen pretrained network",
}
WEIGHTS = {
    "imagenet": "trained on ImageNet, as distributed with Keras",
    "source": "trained in this project on the source images of `pretrain` in params.yaml",
    "random": "drawn at random",
}
RATES = {  # by phase
    "scratch": "train.learning_rate",
    "frozen": "finetune.learning_rate",
    "unfrozen": "finetune.unfrozen_learning_rate",
    "whole": "finetune.unfrozen_learning_rate",
}
PHASES = {
    "scratch": "all layers",
    "frozen": "the head on the frozen base",
    "unfrozen": "the layers after the cut and the head",
    "whole": "the whole base and the head",
}


def describe_run(model: TrainedModel, run_id: str = "RUN_ID") -> str:
    """About twenty lines for people who look at one run of many.

    Args:
        model: of the run, with its row of the leaderboard; what the row lacks is not told of.
        run_id: of its MLflow run.
    """
    values = parameters(model.journal)
    lines = [*_accuracies(model.row), *_comparing(model.row), *_making(model, values), _training(model, values)]
    parts = [
        f"**{model.name}** is {KINDS[_kind(model)]}. {_summary(model.row)}".rstrip(),  # all that is seen at first
        "\n".join(f"- {line}" for line in lines),
        _using(model, run_id),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(model: TrainedModel) -> str:
    return str(model.journal.header["kind"])


def _final(row: Mapping[str, Any]) -> tuple[str, str]:
    """The split whose figures to quote, and its columns' prefix."""
    return ("test", "test") if row.get("test_accuracy") is not None else ("validation", "val")


def _summary(row: Mapping[str, Any]) -> str:
    """How good it is, and whether that differs from the champion."""
    said = []
    split, prefix = _final(row)
    value, low, high = (row.get(f"{prefix}_accuracy{end}") for end in ENDS)
    if value is not None:
        of = f"{_number(row.get(f'n_{split}'))}{split} images"
        said.append(f"Of {of} it recognises **{_percent(value)}** ({_interval(low, high)}).")
    verdict = row.get("verdict")
    if verdict == "champion":
        said.append("Validation chose it as the champion of its comparison.")
    elif verdict == "not distinguishable":
        said.append("It is not distinguishable from the champion.")
    elif verdict is not None:
        said.append(f"It is {verdict} than the champion.")
    return " ".join(said)


def _making(model: TrainedModel, values: Mapping[str, str]) -> list[str]:
    """What it consists of and what it was shown."""
    lines = []
    if _kind(model) == "baseline":
        count = _number(model.row.get("parameters"))
        size = f", {count}parameters" if count else ""
        lines.append(f"**Network**: input {values['input_size']} px{size}.")
    else:
        weights = WEIGHTS.get(values["base.weights"], f"read from the file `{values['base.weights']}`")
        base = f"{values['base.application']}, width {values['base.width']}, input {values['base.input_size']} px"
        lines.append(f"**Base**: {base}; its weights were {weights}.")
        lines.append(_cut(_kind(model), values))
    shown = f"images of {values['data.image_size']} px" if "data.image_size" in values else "images"
    views = values.get("augment.views", "1")
    augmented = f", {views} augmented views of each training image" if int(views) > 1 else ", without augmentation"
    return [*lines, f"**Data**: {shown}{augmented}; seed {values['seed']}."]


def _cut(kind: str, values: Mapping[str, str]) -> str:
    pooled = f"pooled by `{values['features.pooling']}`"
    if kind == "svm":
        layers = json.loads(values.get("features.svm_layers", '["top"]'))  # older runs had no choice
        further = [f"`{layer}`, pooled by `{values['features.svm_pooling']}`" for layer in layers if layer != "top"]
        named = [f"the top of the frozen base, {pooled}"] * ("top" in layers) + further
        return f"**Features**: {'; '.join(named)}."
    cut = values["features.frozen_until"]
    frozen = "nothing is frozen in the end" if cut == "none" else f"frozen up to `{cut}`"
    return f"**Cut**: {frozen}; the top is {pooled}."


def _training(model: TrainedModel, values: Mapping[str, str]) -> str:
    """How it was trained, and for how long."""
    said = []
    epochs = Counter(epoch["phase"] for epoch in model.journal.epochs)
    for phase, count in epochs.items():
        rate = f" at a learning rate of {values[RATES[phase]]}" if RATES.get(phase) in values else ""
        said.append(f"{count} epochs of {PHASES.get(phase, phase)}{rate}")
    if epochs:
        said = [f"{', then '.join(said)}; the epoch with the lowest validation loss was kept"]
    if _kind(model) == "svm":
        said.append("kernel and C were chosen by cross-validation on the training images")
    if "candidates" in values:
        said.append(f"validation chose among {values['candidates']} candidates, which are the runs under this one")
    said.append(f"{_duration(model.journal.timings['train_seconds'])} in all")
    text = "; ".join(said)
    return f"**Training**: {text[0].upper()}{text[1:]}."


def _accuracies(row: Mapping[str, Any]) -> list[str]:
    """What was measured on which images."""
    lines = []
    for name, prefix, use in (("Validation", "val", "models are chosen"), ("Test", "test", "nothing is chosen")):
        value, low, high = (row.get(f"{prefix}_accuracy{end}") for end in ENDS)
        if value is not None:
            images = f"{_number(row.get(f'n_{name.lower()}'))}images, by which {use}"
            lines.append(f"**{name} accuracy**: {_percent(value)} ({_interval(low, high)}) of {images}.")
    return lines


def _comparing(row: Mapping[str, Any]) -> list[str]:
    """Its place among the models of the comparison, and what other seeds gave."""
    lines = []
    if "rank" in row:
        lines.append(f"**Rank**: {row['rank']} of {row['of']} by validation accuracy.")
    split, prefix = _final(row)
    if row.get("difference") is not None:
        low, high = (_points(-row[name]) for name in ("difference_high", "difference_low"))
        gap = f"{_points(-row['difference'])} points on {split} ({low} to {high})"
        lines.append(f"**Against the champion**: {gap}, {_p_value(row['p_adjusted'])}: {row['verdict']}.")
    if row.get("repeats", 1) > 1:
        mean, low, high = (row[f"{prefix}_accuracy_mean{end}"] for end in ENDS)
        over = f"{_percent(mean)} on {split} on average ({_interval(low, high)})"
        lines.append(f"**{row['repeats']} trainings** from different seeds: {over}; the first of them is this model.")
    return lines


def _using(model: TrainedModel, run_id: str) -> str:
    """How to get an answer from it, and where to read more."""
    lines = [
        "```python",
        f'model = mlflow.pyfunc.load_model("runs:/{run_id}/model")',
        'model.predict(["photo.jpg"])',
        "```",
    ]
    if model.row.get("verdict") == "champion":
        lines += ["", '`make predict IMAGES="photo.jpg"` asks it, too, as long as it is the champion.']
    if model.report is not None:
        lines += ["", "The whole comparison: artifact `report/index.html`."]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} "


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def _points(difference: float) -> str:
    written = f"{100 * difference:+.1f}"
    return "0.0" if float(written) == 0 else written.replace("-", MINUS)


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.0005 else f"p = {value:.3f}" if value < 0.095 else f"p = {value:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"
