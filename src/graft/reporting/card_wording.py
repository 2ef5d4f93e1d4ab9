"""What a model card says in sentences and in the cells of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graft.reporting import columns, text

FEW = 10  # final images of a class, below which nothing is known of it
LISTED = 30  # classes, beyond which a list names no more
KINDS = {
    "baseline": "a network trained from scratch",
    "finetune": "a pretrained network, fine-tuned",
    "svm": "a support vector machine on the features of a frozen pretrained network",
}
RESIZED = {
    "stretch": "stretched to {0} x {0} px",
    "crop": "cut to its central square and resized to {0} x {0} px",
    "pad": "padded to a square and resized to {0} x {0} px",
}
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log loss",
    "brier": "Brier score",
    "top_k_accuracy": "top-{k} accuracy",
    "roc_auc": "ROC AUC, one against the rest",
    "average_precision": "average precision",
    "calibration_error": "expected calibration error",
}
SHARES = ("accuracy", "balanced_accuracy", "top_k_accuracy", "calibration_error")
PER_CLASS = ("recall", "precision", "f1")
COST_NAMES = tuple(
    f"{column.name}{end}" for column in columns.COSTS for end in ("", "_low", "_high") if not end or column.ends
)


def percent(share: float) -> str:
    """93.6 %, or 99 % where there is nothing behind the point."""
    return f"{100 * share:.4g} %"


def listed(names: Sequence[str]) -> str:
    """a, b and c; of many names the first."""
    shown = [*names[:LISTED], f"{len(names) - LISTED} more"] if len(names) > LISTED else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def with_ends(measured: Mapping[str, Any]) -> str:
    """93.6 % (90.6–95.8 %); a dash where nothing was measured."""
    if measured["value"] is None:
        return "–"
    ends = "" if measured["low"] is None else f" ({text.interval(measured['low'], measured['high'])})"
    return text.percent(measured["value"]) + ends


def final(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics to quote."""
    measured: Mapping[str, Any] = card["metrics"][card["metrics"]["final"]]
    return measured


def abstaining(card: Mapping[str, Any]) -> str:
    """When the model gives no answer, and what that was worth on the final split."""
    calibration, split = card["calibration"], card["metrics"]["final"]
    wanted, below = percent(calibration["abstain_accuracy"]), calibration["abstain_below"]
    if below is None:
        return f"It abstains always: at no confidence were {wanted} of its answers right on validation."
    if below == 0:
        return f"It answers every image: on validation, {wanted} of all answers or more were right."
    rule = f"It abstains below {text.percent(below)}, so that on validation {wanted} of its answers are right."
    if not calibration["answered"]["n"]:
        return f"{rule} It answered no {split} image."
    right = with_ends(calibration["accuracy_of_answers"])
    answered = text.percent(calibration["answered"]["share"])
    return f"{rule} It answered {answered} of the {split} images, {right} of them rightly."


def intended_use(card: Mapping[str, Any]) -> list[str]:
    """For what the model was made and measured."""
    classes = card["data"]["classes"]
    uses = [
        f"To tell which of {len(classes)} classes an image shows: {listed(classes)}.",
        f"On images like the {card['data']['totals']['train']:,} that it was trained on.",
    ]
    if card["calibration"]["abstain_below"] is None:
        return [
            *uses,
            "To rank the classes for a person who decides, since it is never sure enough to answer by itself.",
        ]
    if card["calibration"]["abstain_below"] > 0:
        uses.append("Together with a person who looks at the images on which it abstains.")
    return uses


def out_of_scope(card: Mapping[str, Any]) -> list[str]:
    """What the figures say nothing of, or what the model cannot do by its making."""
    model, augment = card["model"], card["training"]["shared"]["augment"]
    cases = [
        "Images that show none of its classes: each gets one of them; how often it abstains there is not known.",
        "Images unlike those it was trained on, such as of another camera or style: these figures do not hold there.",
        f"What cannot be seen once an image is {RESIZED[model['resize']].format(model['image_size'])}.",
    ]
    if augment["views"] > 1 and augment["horizontal_flip"]:
        cases.append("Telling an image from its mirror image: it was trained on both.")
    if augment["views"] > 1 and augment["rotation"] < 0.5:
        cases.append(
            f"Images turned by more than {360 * augment['rotation']:.0f} degrees: it was trained on none such."
        )
    few = [row["label"] for row in card["classes"] if row["n"] < FEW]
    if few:
        cases.append(f"Claims about {listed(few)}: fewer than {FEW} {card['metrics']['final']} images show it.")
    return cases


def recipe(card: Mapping[str, Any]) -> str:
    """How the training went."""
    training, kind = card["training"], card["model"]["kind"]
    said = []
    if kind == "svm":
        said.append("Kernel and C were chosen by cross-validation on the training images.")
    if training["epochs"]:
        phases = [
            f"{count} epochs" + (f" ({phase})" if len(training["epochs"]) > 1 else "")
            for phase, count in training["epochs"].items()
        ]
        said.append(f"It was trained for {' and '.join(phases)}; the epoch with the lowest validation loss was kept.")
    said.append(f"That took {text.duration(training['seconds']['train_seconds'])}.")
    if training["trainings"] > 1:
        mean = final(card)["accuracy_mean"]
        seeds = f"Over {training['trainings']} trainings from different seeds"
        said.append(f"{seeds} the {card['metrics']['final']} accuracy is {with_ends(mean)} on average.")
    return " ".join(said)


def metric_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """Each metric of validation and, where there is one, of test, without a top-k accuracy that is 1 by definition."""
    measured = card["metrics"]
    names = [name for name in METRICS if name != "top_k_accuracy" or measured["top_k"] < len(card["data"]["classes"])]
    splits = [split for split in ("validation", "test") if measured[split]]
    return [
        [METRICS[name].format(k=measured["top_k"]), *(_metric(name, measured[split][name]) for split in splits)]
        for name in names
    ]


def _metric(name: str, measured: Mapping[str, Any]) -> str:
    if name in SHARES or measured["value"] is None:
        return with_ends(measured)
    ends = "" if measured["low"] is None else f" ({text.span(measured['low'], measured['high'])})"
    return f"{measured['value']:.3f}{ends}"


def count_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """Images of the first classes by what became of them."""
    return [[str(row["class"]), *(f"{n:,}" for n in list(row.values())[1:])] for row in card["data"]["counts"][:LISTED]]


def weakness_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """The weakest classes with what their images were taken for."""
    rows = []
    for row in card["weaknesses"]:
        cells = [with_ends({"value": row[m], "low": row[f"{m}_low"], "high": row[f"{m}_high"]}) for m in PER_CLASS]
        taken = ", ".join(f"{name} ({count})" for name, count in row["taken_for"].items()) or "–"
        rows.append([row["label"], taken, f"{row['n']:,}", *cells])
    return rows


def slice_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """The worst of the slices that are worse than the rest."""
    rows = []
    for row in card["slices"]["worse"][:LISTED]:
        accuracy = {"value": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
        cells = [f"{row['n']:,}", with_ends(accuracy), text.points(row["difference"])]
        rows.append([f"{row['slice']}: {row['value']}", *cells])
    return rows


def versus_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """The other models, how far they are behind, and whether that is established."""
    rows = []
    for row in card["comparison"]:
        low, high = text.points(row["difference_low"]), text.points(row["difference_high"])
        behind = f"{text.points(row['difference'])} ({low} to {high})"
        cells = [row["model"], row["verdict"], text.percent(row["accuracy"]), behind, text.p_value(row["p_adjusted"])]
        rows.append(cells)
    return rows


def equals(card: Mapping[str, Any]) -> list[str]:
    """The models that cannot be told from this one."""
    return [row["model"] for row in card["comparison"] if row["verdict"] == "not distinguishable"]


def cost_rows(card: Mapping[str, Any]) -> list[list[str]]:
    """What is known of the costs, and what each means."""
    rows = []
    for column in columns.COSTS:
        value = card["costs"][column.name]
        if value is not None:
            low, high = (card["costs"].get(f"{column.name}{end}") for end in ("_low", "_high"))
            ends = f" ({column.ends(low, high)})" if column.ends and low is not None and high is not None else ""
            rows.append([column.title, column.meaning, column.write(value) + ends])
    return rows
