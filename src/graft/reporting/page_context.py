"""What the templates of the page are given, section by section; every name here is used by one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from graft import learning_curve
from graft.metrics import confusion
from graft.params import Params
from graft.reporting import answer, leaderboard
from graft.reporting.columns import SIGNS, Group, cells, column_groups
from graft.reporting.comparison import Comparison
from graft.reporting.feature_maps import class_styles, hardest_classes
from graft.reporting.filters import kernel_panels, learned_panels
from graft.reporting.slice_rows import SLICE_COLUMNS, slice_rows

KINDS = {
    "baseline": "network trained from scratch",
    "finetune": "fine-tuned backbone",
    "svm": "SVM on frozen features",
}
CURVE_KINDS = {
    "baseline": "from scratch",
    "frozen": "frozen base",
    "finetune": "fine-tuned",
    "svm": "SVM on frozen features",
}
SHORT_KINDS = {"baseline": "from scratch", "finetune": "fine-tuned", "svm": "SVM, frozen base"}
SCORES = {"linear_probe": "Linear probe", "logme": "LogME"}
SHOWN = 9  # figures of one sort that are seen without a click


def page_context(params: Params, comparison: Comparison, drawings: Mapping[str, str]) -> dict[str, Any]:
    """Everything but the data report and the figures themselves.

    Args:
        params: shown in full.
        comparison: what the page tells.
        drawings: whose names say which figures there are.
    """
    split, prefix = leaderboard.final_split(comparison.frame)
    rows = [_with_final(row, prefix) for row in leaderboard.as_records(comparison.frame)]
    return (
        _answer(params, comparison, rows, split, prefix)
        | _tables(params, comparison, rows, prefix)
        | _models(comparison, rows, drawings, split)
        | _filters(comparison)
        | _labels(params, comparison)
        | _bases(comparison, rows)
        | _again(params, comparison)
    )


def capitalised(words: str) -> str:
    """The words with a capital at the beginning."""
    return words[:1].upper() + words[1:]


def _with_final(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The row and, as accuracy, low and high, the figures to quote."""
    return row | {
        name: row[f"{prefix}_accuracy{end}"] for name, end in (("accuracy", ""), ("low", "_low"), ("high", "_high"))
    }


def _answer(
    params: Params, comparison: Comparison, rows: list[dict[str, Any]], split: str, prefix: str
) -> dict[str, Any]:
    champion = comparison.champion
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return {
        "rows": rows,
        "champion": rows[0],
        "best": [next(row for row in rows if row["kind"] == kind) for kind in KINDS if kind in kinds],
        "verdicts": answer.by_verdict(rows),
        "recommendation": answer.recommend(rows) if len(rows) > 1 else None,
        "withheld": answer.abstaining(comparison.coverage[champion.model], champion.abstain_below),
        "wanted": f"{100 * params.train.abstain_accuracy:g}\u00a0%",
        "wanted_share": params.train.abstain_accuracy,
        "timed": rows[0]["latency_ms"] is not None,
        "kinds": KINDS,
        "short_kinds": SHORT_KINDS,
        "split": split,
        "prefix": prefix,
        "samples": rows[0][f"n_{split}"],
        "margin": answer.MARGIN,
        "level": round(params.compare.confidence, 6),
        "confidence": f"{100 * params.compare.confidence:g}\u00a0%",
        "bins": params.compare.calibration_bins,
        "floor": min(row["low"] for row in rows),
        "shown": SHOWN,
    }


def _tables(params: Params, comparison: Comparison, rows: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    groups = column_groups(_told(comparison, rows, params.compare.top_k), prefix, params.compare.top_k)
    own = comparison.classes[comparison.classes["model"] == comparison.champion.model]
    classes = leaderboard.as_records(own)
    found = [row for row in classes if row["recall"] is not None]
    slices = slice_rows(comparison.slices)
    return {
        "groups": groups,
        "cells": cells,
        "signs": SIGNS,
        "meanings": _meanings(groups),
        "cost_group": next((group for group in groups if group.title == "Cost"), None),
        "classes": classes,
        "worst_class": min(found, key=lambda row: row["recall"]) if len(found) > 1 else None,
        "slices": slices,
        "all_slices": len(comparison.slices),
        "slice_columns": [column for column in SLICE_COLUMNS if any(row[column.name] is not None for row in slices)],
        "weak": [row for row in slices if row["worse"]],
        "suspects": len(comparison.suspects),
        "suspect_tiles": comparison.suspect_tiles,
    }


def _told(comparison: Comparison, rows: list[dict[str, Any]], top_k: int) -> list[dict[str, Any]]:
    """The rows without what is 1 by definition: top-k accuracy where there are no more classes than that."""
    if top_k < len(comparison.classes_in_order):
        return rows
    return [row | dict.fromkeys(("val_top_k_accuracy", "test_top_k_accuracy")) for row in rows]


def _meanings(groups: list[Group]) -> list[tuple[str, str]]:
    """Of each heading once: validation and test columns are called the same."""
    meanings = {column.title: capitalised(column.meaning) + "." for group in groups for column in group.columns}
    if any(group.verdict for group in groups):
        meanings["Verdict"] = (
            "Worse or better: the corrected p is small enough. Else these images cannot tell, even where the interval "
            "of the difference leaves out 0: of so many comparisons, some do so by chance."
        )
    return list(meanings.items())


def _models(
    comparison: Comparison, rows: list[dict[str, Any]], drawings: Mapping[str, str], split: str
) -> dict[str, Any]:
    classes = comparison.classes_in_order
    picked = hardest_classes(comparison)
    frontier = [row for row in sorted(rows, key=lambda row: row["latency_ms"] or 0.0) if row["pareto"]]
    return {
        "curved": [row for row in rows if f"{row['model']}/curves.svg" in drawings],
        "confusions": {
            name: answer.frequent_confusions(confusion(*run.predictions.split(split)), classes)
            for name, run in comparison.runs.items()
        },
        "mistakes": comparison.mistakes,
        "doubts": comparison.doubts,
        "maps": [name for name in comparison.maps if f"maps/{name}-pca.svg" in drawings],
        "map_legend": [(name, *reversed(class_styles(classes, picked)[name])) for name in picked],
        "picked_classes": len(picked),
        "hidden_classes": len(classes) - len(picked),
        "looks": [(row, looks) for row in rows if (looks := comparison.runs[row["model"]].looks)],
        "frontier": [row["model"] for row in frontier],
        "frontier_rows": frontier,
        "machine": comparison.provenance.machine.get("processor", "this machine"),
    }


def _filters(comparison: Comparison) -> dict[str, Any]:
    picture = comparison.picture
    layers = {model: run.first_layer for model, run in comparison.runs.items() if run.first_layer is not None}
    return {
        "picture": picture,
        "kernels": kernel_panels(picture.pixels) if picture is not None else [],
        "first_layers": layers,
        "learned": {model: learned_panels(layer) for model, layer in layers.items()},
        "learner": next(iter(layers), None),
    }


def _labels(params: Params, comparison: Comparison) -> dict[str, Any]:
    curve = comparison.curve
    if curve is None or curve.empty:
        return {"sizes": []}
    sizes = curve[["per_class", "images"]].drop_duplicates("per_class").sort_values("images")["per_class"].tolist()
    lines: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in leaderboard.as_records(curve):
        lines.setdefault((row["model"], row["kind"]), {})[row["per_class"]] = row
    return {
        "sizes": sizes,
        "conclusions": [
            re.sub(r"(?<= )-(?=\d)", "\u2212", re.sub(r"(?<=\d)%", "\u00a0%", one))
            for one in learning_curve.conclusions(curve, params.compare.confidence)
        ],
        "seeds": int(curve["seeds"].max()),
        "curve_table": [{"model": model, "kind": kind, "cells": found} for (model, kind), found in lines.items()],
        "curve_kinds": CURVE_KINDS,
        "curve_bases": list(dict.fromkeys(curve["model"][curve["kind"] != "baseline"])),
    }


def _bases(comparison: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    finals = {(row["backbone"], row["kind"]): row["accuracy"] for row in rows}
    transfer = leaderboard.as_records(comparison.transfer)
    n = len(transfer)
    return {
        "transfer": [
            row | {kind: finals.get((row["backbone"], kind)) for kind in ("finetune", "svm")} for row in transfer
        ],
        "agreements": [
            (score, found)
            for score in SCORES
            if (found := [c for c in comparison.correlations if c.score == score and c.coefficient is not None])
        ],
        "least_p": min(1.0, 2 / math.factorial(n)) if 1 < n < 20 else None,
        "score_names": SCORES,
    }


def _again(params: Params, comparison: Comparison) -> dict[str, Any]:
    weights: pd.DataFrame = comparison.provenance.weights
    return {
        "provenance": comparison.provenance,
        "weights": leaderboard.as_records(weights),
        "weight_columns": list(weights.columns),
        "seed": params.seed,
        "params": yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100),
    }
