"""The champion's model card (Mitchell et al. 2019): the same facts as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from graft.metrics import confusion
from graft.params import Params
from graft.reporting import answer, card_wording, leaderboard, markdown
from graft.reporting.comparison import Comparison, Run
from graft.reporting.page import DataReport

WEAKEST = 5  # classes that are told of
CONFUSED = 3  # classes that one is taken for
SLICE = ("slice", "value", "n", "accuracy", "accuracy_low", "accuracy_high", "difference", "p_adjusted")
SECTIONS = {"baseline": (), "finetune": ("base", "features", "finetune"), "svm": ("base", "features", "svm")}


def build_card(params: Params, comparison: Comparison, data: DataReport) -> dict[str, Any]:
    """Everything that the card tells, JSON-ready; numbers are not rounded, and what is unknown is None.

    Args:
        params: of the comparison.
        comparison: its champion is the subject.
        data: from page.read_data_report.
    """
    run = comparison.champion
    rows = leaderboard.as_records(comparison.frame)
    split, prefix = leaderboard.final_split(comparison.frame)
    card = {
        "model": _model(params, run),
        "training": _training(params, run),
        "data": _data(params, comparison, data),
        "metrics": _metrics(params, rows[0], split),
        "classes": _classes(comparison),
        "weaknesses": _weaknesses(comparison, split),
        "slices": _slices(comparison.slices),
        "suspects": len(comparison.suspects),
        "calibration": _calibration(params, comparison, rows[0], prefix),
        "comparison": [_versus(row, prefix) for row in rows[1:]],
        "costs": {name: rows[0][name] for name in card_wording.COST_NAMES},
        "weights": _weights(comparison, run),
        "environment": {
            "commit": comparison.provenance.commit,
            "dirty": comparison.provenance.dirty,
            "versions": dict(comparison.provenance.versions),
            "machine": dict(comparison.provenance.machine),
        },
    }
    return card | {"intended_use": card_wording.intended_use(card), "out_of_scope": card_wording.out_of_scope(card)}


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card of build_card for people: rounded, with intervals."""
    environment = Environment(
        loader=PackageLoader("graft", "reporting"),
        autoescape=False,  # of HTML; the filter `plain` keeps names from being Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": markdown.escaped, "table": markdown.table}
    environment.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return environment.get_template("model_card.md.j2").render(card=card, said=card_wording)


def _model(params: Params, run: Run) -> dict[str, Any]:
    backbone = params.backbones[run.backbone] if run.backbone else None
    return {
        "name": run.model,
        "kind": run.kind,
        "backbone": run.backbone,
        "application": backbone.base.application if backbone else None,
        "width": backbone.base.width if backbone else None,
        "image_size": params.data.image_size,
        "resize": params.data.resize,
        "parameters": run.parameters,
    }


def _training(params: Params, run: Run) -> dict[str, Any]:
    if run.backbone is None:
        recipe = params.baselines[run.model].model_dump(mode="json")
    else:
        recipe = params.backbones[run.backbone].model_dump(mode="json", include=set(SECTIONS[run.kind]))
    shared = params.model_dump(mode="json", include={"seed", "augment", "train"})
    epochs = {} if run.history is None else run.history.groupby("phase", sort=False).size().to_dict()
    return {
        "epochs": {str(phase): int(count) for phase, count in epochs.items()},
        "seconds": dict(run.timings),
        "trainings": 1 + len(run.repeats),
        "recipe": recipe,
        "shared": shared,
    }


def _data(params: Params, comparison: Comparison, data: DataReport) -> dict[str, Any]:
    splits = data.columns[1:]
    return {
        "source": params.data.source,
        "path": str(params.data.path),
        "classes": list(comparison.classes_in_order),
        "counts": [{"class": row[0], **dict(zip(splits, map(int, row[1:]), strict=True))} for row in data.counts],
        "totals": dict(zip(splits, data.totals(), strict=True)),
        "quarantined": dict(data.reasons),
        "md5": dict(comparison.provenance.data),
    }


def _metrics(params: Params, row: Mapping[str, Any], split: str) -> dict[str, Any]:
    measured: dict[str, Any] = {"confidence": params.compare.confidence, "top_k": params.compare.top_k, "final": split}
    for name, prefix in (("validation", "val"), ("test", "test")):
        if not row[f"n_{name}"]:
            measured[name] = None
            continue
        values = {metric: _with_ends(row, f"{prefix}_{metric}") for metric in leaderboard.METRICS}
        measured[name] = {"n": row[f"n_{name}"], **values}
        if row["repeats"] > 1:
            measured[name]["accuracy_mean"] = _with_ends(row, f"{prefix}_accuracy_mean")
    return measured


def _with_ends(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def _classes(comparison: Comparison) -> list[dict[str, Any]]:
    own = comparison.classes[comparison.classes["model"] == comparison.champion.model]
    return leaderboard.as_records(own.drop(columns="model"))


def _weaknesses(comparison: Comparison, split: str) -> list[dict[str, Any]]:
    """The classes of the lowest F1 below one, lowest first, with what their images are most often taken for."""
    names = comparison.classes_in_order
    counts = confusion(*comparison.champion.predictions.split(split))
    table = pd.DataFrame(_classes(comparison)).dropna(subset=["f1"])
    worst = table[table["f1"] < 1].sort_values("f1", kind="stable").head(WEAKEST)
    weaknesses = []
    for row in leaderboard.as_records(worst):
        own = counts[names.index(row["label"])].copy()
        own[names.index(row["label"])] = 0
        others = [place for place in (-own).argsort(kind="stable")[:CONFUSED] if own[place]]
        weaknesses.append({**row, "taken_for": {names[place]: int(own[place]) for place in others}})
    return weaknesses


def _slices(slices: pd.DataFrame) -> dict[str, Any]:
    """How many there are, and those on which the model is worse than elsewhere."""
    worse = slices[slices["worse"].astype(bool)]
    return {"looked_at": len(slices), "worse": leaderboard.as_records(worse[list(SLICE)])}


def _calibration(params: Params, comparison: Comparison, row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    run = comparison.champion
    answers = answer.abstaining(comparison.coverage[run.model], run.abstain_below)
    return {
        "temperature": row["temperature"],
        "error_before": _with_ends(row, f"{prefix}_calibration_error_before"),
        "error_after": _with_ends(row, f"{prefix}_calibration_error"),
        "abstain_below": run.abstain_below,
        "abstain_accuracy": params.train.abstain_accuracy,
        "answered": {"share": answers.share, "n": answers.n},
        "accuracy_of_answers": {"value": answers.accuracy, "low": answers.low, "high": answers.high},
    }


def _versus(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    against = {name: row[name] for name in ("difference", "difference_low", "difference_high", "p_adjusted", "verdict")}
    return {"model": row["model"], "kind": row["kind"], "accuracy": row[f"{prefix}_accuracy"], **against}


def _weights(comparison: Comparison, run: Run) -> dict[str, Any] | None:
    table = comparison.provenance.weights
    own = leaderboard.as_records(table[table["backbone"] == run.backbone])
    return own[0] if own else None
