"""A finished project as `graft.stages.track` finds it, of models too small to have been trained."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graft.artifacts import Manifest, Predictions, write_manifest, write_predictions
from graft.calibration import Calibration, write_calibration
from graft.journal import Journal, lock_key
from graft.operation_sections import Tracking
from graft.params import Params
from graft.storage import write_json, write_table
from graft.trained import Project, TrainedModel, read_trained_models

CLASSES = ("0", "1", "2")
MD5 = "0123456789abcdef0123456789abcdef.dir"
TRACKING = Tracking(experiment="graft", registered_model="graft", live=False)


def train(
    root: Path,
    params: Params,
    name: str,
    *,
    epochs: dict[str, int] | None = None,
    candidates: Sequence[dict[str, Any]] = (),
    repeats: Sequence[dict[str, Any]] = (),
    before_end: Callable[[Path], object] | None = None,
) -> None:
    """What a training stage and compare leave of one model; called again, it is another training.

    before_end, if any, is called with the journal's file when all but the end is in it.
    """
    kind = params.models()[name]
    backbone = None if kind == "baseline" else name.removesuffix("-svm")
    stage = f"{kind}@{backbone or name}"
    if kind == "baseline":
        own: dict[str, Any] = params.baselines[name].model_dump(mode="json")
    else:
        own = params.backbones[name.removesuffix("-svm")].model_dump(mode="json", include={"base", "features", kind})
    entry = {
        "cmd": f"python -m graft.stages.{kind} {name}",
        "deps": [{"path": "data/prepared", "md5": MD5}, {"path": "src/graft/images.py", "md5": "1" * 32}],
        "params": {"params.yaml": {"seed": params.seed, "own": own}},
        "outs": [{"path": f"models/{name}", "md5": "2" * 32}, {"path": f"reports/runs/{name}", "md5": "3" * 32}],
    }
    _lock(root, stage, entry)
    header = {"key": lock_key(entry), "model": name, "kind": kind, "backbone": backbone, "stage": stage}
    journal = Journal.start(root / ".work" / name, {**header, "params": {"seed": params.seed, **own}})
    journal.system({"system/cpu_utilization_percentage": 50.0, "system/process_memory_megabytes": 300.5})
    number = 0
    for phase, count in (epochs if epochs is not None else _phases(kind)).items():
        for _ in range(count):
            number += 1
            journal.epoch(number, phase, {"loss": 2 / number, "val_loss": 2.1 / number, "val_accuracy": 1 - 1 / number})
    for candidate in candidates:
        journal.candidate(candidate)
    for repeat in repeats:
        journal.repeat(repeat)
    if before_end:
        before_end(root / ".work" / name / "journal.jsonl")
    journal.finish({"val_accuracy": 0.75}, {"train_seconds": 1.5})
    journal.move_to(root / "reports" / "runs" / name / "journal.jsonl")
    write_predictions(root / "reports" / "runs" / name / "predictions.parquet", _predictions(name))
    if candidates:
        rows = pd.DataFrame([{"name": candidate["name"]} for candidate in candidates])
        write_table(root / "reports" / "runs" / name / "candidates.csv", rows)
    if kind == "svm":
        write_table(root / "reports" / "runs" / name / "search.csv", pd.DataFrame({"C": [1.0], "mean_accuracy": [0.7]}))
        (root / "models" / "source" / name.removesuffix("-svm")).mkdir(parents=True, exist_ok=True)
        (root / "models" / "source" / name.removesuffix("-svm") / "card.json").write_text("{}")
    write_json(root / "models" / name / "classes.json", list(CLASSES))
    write_calibration(root / "models" / name, Calibration(1.0, None, 0.99))
    write_json(root / "models" / name / "input.json", {"image_size": 8, "resize": "stretch"})
    for figure in ("confusion", "curves"):
        path = root / "reports" / "figures" / name / f"{figure}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg"><text y="20">{name} {figure}</text></svg>')


def grid(count: int, *, chosen: int = 2, epochs: int = 3, phase: str = "frozen") -> list[dict[str, Any]]:
    """Candidates that differ by their learning rate, numbered from one; the second epoch is each one's best."""
    return [
        {
            "name": f"{'head' if phase == 'frozen' else 'tail'}-{number:02}",
            "phase": phase,
            "params": {"learning_rate": 0.5**number, "dropout": 0.0},
            "history": [_epoch(number, epoch, phase) for epoch in range(1, epochs + 1)],
            "chosen": number == chosen,
        }
        for number in range(1, count + 1)
    ]


def _epoch(number: int, epoch: int, phase: str) -> dict[str, Any]:
    loss = number + abs(epoch - 2) / 4
    accuracies = {"accuracy": 1 - 1 / (number + epoch), "val_accuracy": 1 / (number + epoch)}
    losses = {"loss": loss / 2, "val_loss": loss}
    return {"epoch": epoch, "phase": phase, **losses, **accuracies, "learning_rate": 0.5**number}


def repeat(number: int, epochs: int = 3) -> dict[str, Any]:
    """One of the trainings after the first, which is number 1."""
    history = [_epoch(number, epoch, "frozen") for epoch in range(1, epochs + 1)]
    final = {"val_accuracy": 0.7 + number / 100, "val_log_loss": 0.5}
    return {"name": f"repeat-{number:02}", "seed": 1000 * (number - 1), "history": history, "metrics": final}


def _predictions(name: str) -> Predictions:
    """Of the images of prepare that are not for training; each model is sure of something else."""
    rows = _rows()[["image_id", "split", "label"]].query("split != 'train'").reset_index(drop=True)
    probabilities = np.random.default_rng(len(name)).dirichlet(np.ones(len(CLASSES)), len(rows))
    return Predictions(rows, probabilities, CLASSES)


def _phases(kind: str) -> dict[str, int]:
    return {"baseline": {"train": 3}, "finetune": {"frozen": 2, "unfrozen": 3}, "svm": {}}[kind]


def _lock(root: Path, stage: str, entry: dict[str, Any]) -> None:
    path = root / "dvc.lock"  # JSON is YAML
    content = json.loads(path.read_text()) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"][stage] = entry
    path.write_text(json.dumps(content))


def compare(root: Path, params: Params, champion: str, *, low: float = 0.6) -> None:
    """The leaderboard, without test figures for the champion's rivals."""
    rows = [
        {
            **{"model": name, "kind": kind, "backbone": None, "champion": name == champion},
            **{"val_accuracy": 0.75, "test_accuracy": 0.7 if name == champion else None, "test_accuracy_low": low},
            **{"parameters": 1000 + number, "train_seconds": 1.5, "n_test": 30},
        }
        for number, (name, kind) in enumerate(params.models().items())
    ]
    write_json(root / "reports" / "leaderboard.json", rows)
    (root / "reports" / "index.html").write_text(f"<!doctype html><title>{champion} {low}</title>")


def prepare(root: Path) -> None:
    """A prepared data set's list of images, and what there is to know of them."""
    rows = _rows()
    group = rows["image_id"]
    manifest = Manifest(rows.assign(group=group, source=group, width=8, height=8), CLASSES)
    write_manifest(root / "data" / "prepared", manifest)
    write_table(root / "reports" / "data" / "counts.csv", rows.groupby("label", as_index=False).size())


def _rows() -> pd.DataFrame:
    ids, splits = [f"i{number}" for number in range(12)], ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    return pd.DataFrame({"image_id": ids, "label": np.tile(CLASSES, 4), "split": splits})


def project(root: Path, params: Params, **changes: Any) -> Project:
    """The project at root, which is also the working directory."""
    facts = {"experiment": None, "detached": False}
    return Project(root, Path("data/prepared"), Path("reports/data"), tuple(params.models()), **{**facts, **changes})


def commit(root: Path) -> str:
    """Everything in the folder as another commit of its repository, made where it is missing; returns its hash."""
    identity = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in ("init -q", "add -A", "commit -q --allow-empty -m another"):
        subprocess.run(["git", *command.split()], cwd=root, check=True, env=os.environ | identity)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()


def trained(root: Path, params: Params) -> list[TrainedModel]:
    """As the track stage reads them."""
    return read_trained_models(
        params,
        runs=root / "reports" / "runs",
        models=root / "models",
        leaderboard=root / "reports" / "leaderboard.json",
        figures=root / "reports" / "figures",
        report=root / "reports" / "index.html",
        lock=root / "dvc.lock",
    )


def finished_project(root: Path, params: Params, champion: str) -> None:
    """All models of the params, trained and compared."""
    prepare(root)
    for name in params.models():
        train(root, params, name)
    compare(root, params, champion)


def change(params: Params, **paths: Any) -> Params:
    """The params with other values at paths, in which two underscores stand for a dot."""
    content = params.model_dump()
    for path, value in paths.items():
        *parents, last = path.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
    return Params.model_validate(content)
