"""What the registry shows of a version; nothing of it decides anything."""

from __future__ import annotations

from graft.trained import TrainedModel

SHOWN = {"validation": "val_accuracy", "test": "test_accuracy"}


def shown_facts(model: TrainedModel) -> dict[str, str]:
    """Tags: model, kind, and the accuracies that there are."""
    facts = {"model": model.name, "kind": str(model.journal.header["kind"])}
    return facts | {name: f"{model.metrics[name]:.6g}" for name in SHOWN.values() if name in model.metrics}


def describe_version(model: TrainedModel, confidence: float) -> str:
    """Markdown with the accuracies that there are.

    Args:
        model: of the version.
        confidence: of the intervals.
    """
    rows = [
        f"| {split} | {_percent(model, name)} | {_percent(model, f'{name}_low')} to {_percent(model, f'{name}_high')} |"
        for split, name in SHOWN.items()
        if name in model.metrics
    ]
    return "\n".join(
        [
            f"**{model.name}** ({model.journal.header['kind']}), training `{model.key[:12]}`",
            "",
            f"| images | accuracy | {100 * confidence:g} % interval |",
            "|---|---|---|",
            *rows,
            "",
            "Validation images chose this model and decide whether it is the champion (tag `graft.gate`). "
            "Test images are shown and never used for that.",
        ]
    )


def _percent(model: TrainedModel, name: str) -> str:
    value = model.metrics.get(name)
    return "-" if value is None else f"{100 * value:.1f} %"
