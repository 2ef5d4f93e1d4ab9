"""One base under each way of pooling and each head, everything else equal, by the pipeline's own stages.

For each variant the row's input size, pooling and hidden units are put into the params of a second workspace, and DVC
runs `finetune` and `svm` there with all that they need. The second workspace has a cache of its own: what one variant
shares with the others is computed once (data, views, source weights, activations at the cut), and a variant that was
trained before is brought back, so that an interrupted call goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import yaml

from graft import map_sizes
from graft.ablation_tables import Outcome, ablation_table
from graft.ablation_text import to_markdown
from graft.artifacts import Manifest, read_manifest, read_predictions
from graft.errors import GraftError
from graft.locks import locked
from graft.origin import code_origin
from graft.params import Params, load_params, row
from graft.second_workspace import reproduce
from graft.sections import Backbone, Pooling
from graft.storage import new_file, read_json, write_table
from graft.verification import copy_workspace
from graft.weights import read_card
from graft.workspace_differences import pipeline_outputs

FOLDER = Path(".work") / "ablation"  # which Git and DVC ignore
SMALLEST_SIDE = 3  # of a last map: Flatten and every global pooling make the same vector of a 1x1 map
KEPT = (".dvc", ".store", ".work", "dvc.lock")  # of the second workspace from call to call: caches and unfinished work


class AblationError(GraftError):
    """What was asked for cannot be compared."""


@dataclass(frozen=True)
class Variant:
    """What is trained.

    Attributes:
        backbone: the row.
        input_size: px.
        map_shape: height, width and channels of the base's last map.
        pooling: of that map to a vector.
        hidden_units: of the head; 0: no hidden layer.
        with_svm: whether an SVM is fitted, too; it has no hidden layer, so one of the heads is enough.
    """

    backbone: str
    input_size: int
    map_shape: tuple[int, int, int]
    pooling: str
    hidden_units: int
    with_svm: bool

    def __str__(self) -> str:
        height, width, channels = self.map_shape
        hidden = f", {self.hidden_units} hidden units" if self.hidden_units else ""
        return f"{self.backbone} at {self.input_size} px, {self.pooling} of {height}x{width}x{channels}{hidden}"

    @property
    def targets(self) -> list[str]:
        """The stages of dvc.yaml that make its models."""
        return [f"finetune@{self.backbone}", *([f"svm@{self.backbone}"] if self.with_svm else [])]


def ablate(
    params_file: Path,
    root: Path,
    reports: Path,
    *,
    backbones: Sequence[str],
    poolings: Sequence[str],
    hidden_units: Sequence[int],
    input_size: int | None = None,
) -> pd.DataFrame:
    """Train every variant and write reports/ablation.csv and ablation.md; returns the table of ablation_table.

    The project's own params, outputs, cache and MLflow runs stay as they are. Source weights are those that the row
    gets at the variant's input size: a row with `weights: source` is trained on its source task at that size.

    Args:
        params_file: the project's; its rows, data, seed and `train.repeats` hold for every variant.
        root: of the project.
        reports: where to write.
        backbones: rows of the params.
        poolings: each of flatten, avg, max and min.
        hidden_units: of the heads' hidden layer, 0 for none.
        input_size: of every base; None: of each as map_sizes.input_for_map.

    Raises:
        ParamsError: a backbone is no row.
        AblationError: nothing is left to compare, a pooling is unknown, a last map is too small, or a stage failed.
        BackboneError: a base cannot be built at the size.
    """
    params, values = load_params(params_file), yaml.safe_load(params_file.read_text(encoding="utf-8"))
    planned = list(plan_variants(params, backbones, poolings, hidden_units, input_size))
    with locked(root / FOLDER / "lock", waiting="ablation: waiting for another one in this project"):
        workspace = _workspace(root)
        outcomes: list[Outcome] = []
        for number, variant in enumerate(planned, start=1):
            print(f"ablation: {variant}, {number} of {len(planned)}", flush=True)
            _train(workspace, variant_params(values, variant), variant)
            outcomes += _outcomes(workspace, params, variant)
        manifest = read_manifest(workspace / "data" / "prepared")
    return _write(reports, outcomes, manifest, params)


def _write(reports: Path, outcomes: Sequence[Outcome], manifest: Manifest, params: Params) -> pd.DataFrame:
    origin = code_origin()
    table = ablation_table(outcomes, manifest, params.compare, params.seed)
    table = table.assign(commit=origin["commit"], dirty=origin["dirty"])
    write_table(reports / "ablation.csv", table)
    with new_file(reports / "ablation.md") as partial:
        partial.write_text(to_markdown(table, params.compare.confidence), encoding="utf-8")
    return table


def plan_variants(
    params: Params,
    backbones: Sequence[str],
    poolings: Sequence[str],
    hidden_units: Sequence[int],
    input_size: int | None,
) -> Iterator[Variant]:
    """Every combination, base by base, so that what a base's variants share is computed just before.

    Raises:
        ParamsError, AblationError, BackboneError: as of ablate.
    """
    if unknown := [pooling for pooling in poolings if pooling not in get_args(Pooling)]:
        raise AblationError(f"pooling must be among {', '.join(get_args(Pooling))}, received {', '.join(unknown)}")
    if any(units < 0 for units in hidden_units):
        raise AblationError(f"hidden units must be 0 (no hidden layer) or more, received {min(hidden_units)}")
    if not backbones or not poolings or not hidden_units:
        raise AblationError("there must be a backbone, a pooling and a head to train, received none of one of them")
    rows = {name: row(params.backbones, name, "backbones") for name in backbones}
    sizes = {name: _size(name, backbone, input_size) for name, backbone in rows.items()}  # all, before any training
    for name, (size, shape) in sizes.items():
        for pooling in dict.fromkeys(poolings):
            for number, units in enumerate(dict.fromkeys(hidden_units)):
                yield Variant(name, size, shape, pooling, units, with_svm=number == 0)


def _size(name: str, backbone: Backbone, asked: int | None) -> tuple[int, tuple[int, int, int]]:
    size = asked or map_sizes.input_for_map(backbone.base, SMALLEST_SIDE)
    shape = map_sizes.map_shape(backbone.base, size)
    if min(shape[:2]) < SMALLEST_SIDE:
        needed = map_sizes.input_for_map(backbone.base, SMALLEST_SIDE)
        raise AblationError(
            f"the last map of {name} must be at least {SMALLEST_SIDE}x{SMALLEST_SIDE} for poolings to differ, "
            f"received {shape[0]}x{shape[1]} at input size {size}; it is large enough from {needed} px on"
        )
    return size, shape


def _workspace(root: Path) -> Path:
    """The second workspace with the checkout as it is now, and of earlier calls what KEPT names alone."""
    outputs = pipeline_outputs(root)
    folder = root / FOLDER / "workspace"
    folder.mkdir(parents=True, exist_ok=True)
    for before in folder.rglob("dvc.yaml"):
        for path in before.parent.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return copy_workspace(root, folder.resolve(), outputs)


def variant_params(values: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """The content of a params.yaml with one row, changed in what the variant says; MLflow follows no training live."""
    base_row = values["backbones"][variant.backbone]
    finetune = base_row["finetune"] | {"hidden_units": variant.hidden_units}
    if finetune["heads"] is not None:
        finetune["heads"] = finetune["heads"] | {"hidden_units": [variant.hidden_units]}
    changed = base_row | {
        "base": base_row["base"] | {"input_size": variant.input_size},
        "features": base_row["features"] | {"pooling": variant.pooling, "svm_layers": ["top"]},
        "finetune": finetune,
    }
    return {
        **values,
        "backbones": {variant.backbone: changed},
        "baselines": {},
        "curve": values["curve"] | {"backbones": [], "baselines": []},
        "tracking": values["tracking"] | {"live": False},
    }


def _train(workspace: Path, values: Mapping[str, Any], variant: Variant) -> None:
    with new_file(workspace / "params.yaml") as partial:
        partial.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    ended = reproduce(workspace, variant.targets)
    if ended:
        raise AblationError(
            f"{variant} failed: `dvc repro {' '.join(variant.targets)}` ended with {ended}, see above; "
            f"its workspace is {workspace}, and the next call goes on from what is done"
        )


def _outcomes(workspace: Path, params: Params, variant: Variant) -> Iterator[Outcome]:
    """What the trainings of a variant left, before those of the next one replace it."""
    name, reports = variant.backbone, workspace / "reports"
    manifest = read_manifest(workspace / "data" / "prepared")
    card = read_card(workspace / "models" / "source" / name)
    features = read_json(reports / "rows" / name / "features" / "timings.json")["feature_seconds"]
    models = {"finetune": name, "svm": f"{name}-svm"} if variant.with_svm else {"finetune": name}
    for kind, model in models.items():
        run = reports / "runs" / model
        files = [run / "predictions.parquet", *sorted((run / "repeats").glob("*.parquet"))]
        yield Outcome(
            backbone=name,
            application=params.backbones[name].base.application,
            kind=kind,
            pooling=variant.pooling,
            hidden_units=variant.hidden_units if kind == "finetune" else None,
            input_size=variant.input_size,
            map_shape=variant.map_shape,
            source_accuracy=card.get("source_val_accuracy"),
            head_parameters=read_json(run / "summary.json")["parameters"] - card["parameters"],
            predictions=[read_predictions(file, manifest=manifest) for file in files],
            train_seconds=read_json(run / "timings.json")["train_seconds"],
            feature_seconds=features,
        )
