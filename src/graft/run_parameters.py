"""The params of a trained model as MLflow holds them: flat, by stable names, and settled once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graft.journal import JournalRecord

MOST_VALUE = 6000  # characters that MLflow takes of a param


def start_parameters(header: Mapping[str, Any]) -> dict[str, str]:
    """Those of parameters that are known when the training starts: without what a grid will choose.

    MLflow refuses to change a param once it is logged.
    """
    params = header["params"]
    tuned, cuts = params.get("finetune", {}), params.get("features", {}).get("frozen_until")
    grids = [tuned.get("heads") or {}, tuned.get("tails") or {}, {"frozen_until"} if isinstance(cuts, list) else {}]
    open_names = {_chosen_name(name) for grid in grids for name in grid}
    return {name: value for name, value in flat(params).items() if name not in open_names}


def parameters(journal: JournalRecord) -> dict[str, str]:
    """The params under dotted names, the first epoch of later phases (unfrozen_from_epoch), how many candidates.

    Where a grid stands in place of a value, it is the chosen candidate's; phase 2 has a batch size of its own then.
    """
    starts: dict[str, str] = {}
    for epoch in journal.epochs:
        starts.setdefault(f"{epoch['phase']}_from_epoch", str(epoch["epoch"]))
    candidates = {"candidates": str(len(journal.candidates))} if journal.candidates else {}
    return flat(journal.header["params"]) | dict(list(starts.items())[1:]) | candidates | _chosen(journal)


def _chosen(journal: JournalRecord) -> dict[str, str]:
    """The values of the chosen candidates, under the names that a run without a grid has."""
    values = {
        _chosen_name(name): value
        for candidate in journal.candidates
        if candidate["chosen"]
        for name, value in candidate["params"].items()
    }
    return flat(values)


def _chosen_name(name: str) -> str:
    names = {"frozen_until": "features.frozen_until", "batch_size": "finetune.unfrozen_batch_size"}
    return names.get(name, f"finetune.{name}")


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names: text stays as it is; numbers, lists of them and the like are written as JSON.

    Of a list of mappings, such as the layers of a network, the place counts as a name: layers.00.Rescaling.scale.
    """
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        value = {f"{place:02d}": item for place, item in enumerate(value)}
    if not isinstance(value, Mapping) or (not value and prefix):
        text = value if isinstance(value, str) else json.dumps(value)
        return {prefix: text[:MOST_VALUE]}
    leaves: dict[str, str] = {}
    for name, item in value.items():
        leaves |= flat(item, f"{prefix}.{name}" if prefix else name)
    return leaves
