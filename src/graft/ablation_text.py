"""An ablation of pooling in words: the lecture's rule judged by the numbers, and the table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from graft.ablation_tables import ends

LECTURE = {"VGG": "flatten", "ResNet": "avg", "Inception": "avg"}  # by what an application's name begins with
WORDS = {"flatten": "Flatten", "avg": "average pooling"}


def lecture_rule(application: str) -> str | None:
    """The pooling that the lecture on transfer learning asks for behind such a base; None where it names none.

    Flatten behind VGG, whose own classifier is of dense layers; global average pooling behind ResNet and Inception,
    whose own is.
    """
    return next((pooling for start, pooling in LECTURE.items() if application.startswith(start)), None)


def verdicts(table: pd.DataFrame, confidence: float) -> dict[str, str]:
    """One sentence for each base for which Flatten was set against average pooling.

    A comparison decides where its adjusted p-value is below 1 - confidence, and, of several seeds, the interval of the
    mean difference over the seeds lies on the same side of zero.

    Args:
        table: as ablation_tables.ablation_table.
        confidence: of its intervals.
    """
    compared = table[(table["pooling"] == "flatten") & table["pooling_p_value"].notna()]
    return {
        str(name): _verdict(str(name), _records(rows), confidence)
        for name, rows in compared.groupby("backbone", sort=False)
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _verdict(name: str, rows: Sequence[Mapping[str, Any]], confidence: float) -> str:
    better = [_better(row, confidence) for row in rows]
    application, split = rows[0]["application"], rows[0]["split"]
    told = (
        f"Flatten is better in {better.count('flatten')}, average pooling in {better.count('avg')} of {len(rows)} "
        f"comparisons on {rows[0][f'n_{split}']:,} {split} images"
    )
    rule = lecture_rule(application)
    if rule is None:
        return f"{name}: the lecture has no rule for {application}; {told}."
    against = {"flatten": "avg", "avg": "flatten"}[rule]
    outcome = _outcome(better.count(rule), better.count(against))
    return f"{name}: the lecture's rule, {WORDS[rule]}, is {outcome}; {told}."


def _better(row: Mapping[str, Any], confidence: float) -> str | None:
    """Which of flatten and avg a comparison decides for, if it does."""
    if row["pooling_p_adjusted"] >= 1 - confidence:
        return None
    ahead = row["pooling_difference"] > 0
    if row["repeats"] > 1:
        low, high = row["pooling_difference_mean_low"], row["pooling_difference_mean_high"]
        if not (low > 0 if ahead else high < 0):
            return None
    return "flatten" if ahead else "avg"


def _outcome(supporting: int, contradicting: int) -> str:
    if supporting and contradicting:
        return "supported with one head and contradicted with another"
    if supporting or contradicting:
        return "supported" if supporting else "contradicted"
    return "not decided by these images"


def to_markdown(table: pd.DataFrame, confidence: float) -> str:
    """The table for people: how to read it, one sentence for each base, and every variant.

    Args:
        table: as ablation_tables.ablation_table, with the columns commit and dirty.
        confidence: of its intervals.
    """
    rows = _records(table)
    seeds = rows[0]["repeats"] > 1
    names = [
        *("base", "head", "pooling", "input", "last map", "vector", "numbers behind the base", "validation", "test"),
        *("against avg", "p (Holm)", "against no hidden layer", "p (Holm)", *(["over the seeds"] if seeds else [])),
        "seconds",
    ]
    lines = [
        *_explanation(rows[0], confidence),
        "",
        *(f"* {sentence}" for sentence in verdicts(table, confidence).values()),
        *_sources(rows),
        "",
        f"| {' | '.join(names)} |",
        f"| {' | '.join(['---'] * 3 + ['---:'] * (len(names) - 3))} |",
        *_lines(rows),
    ]
    return "\n".join(lines) + "\n"


def _explanation(row: Mapping[str, Any], confidence: float) -> Iterator[str]:
    tested = f" and {row['n_test']:,} test" if row["n_test"] else ""
    yield f"Accuracy on {row['n_validation']:,} validation{tested} images with its {100 * confidence:g} % interval."
    yield f"Differences in points, on the same {row['split']} images: against average pooling under the same head, and"
    yield "against the same pooling without a hidden layer, with interval and McNemar's exact p, in brackets corrected"
    yield "by Holm over all such comparisons with this pooling, or with a hidden layer. Seconds are of the training."
    if row["repeats"] > 1:
        yield f"All of that is of the first of {row['repeats']} trainings; over their seeds: mean accuracy and mean"
        yield f"difference against avg, with Student's {100 * confidence:g} % interval."
    else:
        yield "Each was trained once; what another seed would change is in no interval: train.repeats measures it."
    yield f"Commit {row['commit'] or 'none'}{', with changes' if row['dirty'] else ''}."


def _sources(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is known of the bases themselves; one that learned nothing on its source says nothing about transfer."""
    found = {row["backbone"]: row["source_accuracy"] for row in rows if not math.isnan(row["source_accuracy"])}
    if found:
        told = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in found.items())
        yield f"* Accuracy of the bases on the validation images of their source task: {told}."


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        cells = [
            *(row["backbone"], _head(row), row["pooling"], f"{row['input_size']} px"),
            *(f"{row['map_height']}x{row['map_width']}", f"{row['vector_length']:,}", f"{row['head_parameters']:,}"),
            *(_share(row, f"{split}_accuracy") if row[f"n_{split}"] else "-" for split in ("validation", "test")),
            *_compared(row, "pooling"),
            *_compared(row, "hidden"),
            *([_over_seeds(row)] if row["repeats"] > 1 else []),
            f"{row['train_seconds']:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _head(row: Mapping[str, Any]) -> str:
    if row["kind"] == "svm":
        return "SVM"
    return f"{row['hidden_units']} hidden units" if row["hidden_units"] else "no hidden layer"


def _compared(row: Mapping[str, Any], factor: str) -> list[str]:
    p_value, adjusted = row[f"{factor}_p_value"], row[f"{factor}_p_adjusted"]
    if math.isnan(p_value):
        return ["", ""]
    return [_points(row, f"{factor}_difference"), f"{_p(p_value)} ({_p(adjusted)})"]


def _over_seeds(row: Mapping[str, Any]) -> str:
    mean, difference = _share(row, "accuracy_mean"), "pooling_difference_mean"
    return mean if math.isnan(row[difference]) else f"{mean}; {_points(row, difference)}"


def _share(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row[end] for end in ends(name))
    return f"{value:.1%} ({low:.1%}-{high:.1%})"


def _points(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (100 * row[end] for end in ends(name))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
