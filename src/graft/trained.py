"""A trained model as the pipeline left it on the disk, and what a tracking server is told of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graft.journal import JournalRecord, project_root, read_journal
from graft.params import Params
from graft.storage import ArtifactError, read_json

SEARCHES = ("candidates.csv", "search.csv")  # what a run that searched tells of it: heads and tails, an SVM's C
# Against the champion. A model that becomes it has none, and a tracking server would keep showing the last ones.
RELATIVE = ("difference", "difference_low", "difference_high", "p_value", "p_adjusted")


@dataclass(frozen=True)
class TrainedModel:
    """A model with its record.

    Attributes:
        journal: of its training.
        metrics: its row of the leaderboard, numbers only, without RELATIVE.
        champion: whether it leads the leaderboard.
        folder: models/<name>.
        source: models/source/<backbone> where the model is an SVM on that base; else None.
        files: what else is kept of the run, such as its journal.
        figures: of this model alone.
        inputs: DVC's md5 of its data by path; code is not among them.
    """

    journal: JournalRecord
    metrics: Mapping[str, float]
    champion: bool
    folder: Path
    source: Path | None
    files: Sequence[Path]
    figures: Sequence[Path]
    inputs: Mapping[str, str]

    @property
    def name(self) -> str:
        """As in the leaderboard."""
        return str(self.journal.header["model"])

    @property
    def key(self) -> str:
        """Which training this was: the hash of its command, params and inputs."""
        return str(self.journal.header["key"])


@dataclass(frozen=True)
class Project:
    """What the models have in common.

    Attributes:
        root: where stores lie; the original repository, also for an experiment in a copy.
        prepared: folder of the prepared data set.
        data_report: folder with what there is to know of it; may be empty.
        listed: names of the models that the params list.
        experiment: name of the DVC experiment that is running; None outside of one.
        detached: whether this is a copy, so that what it holds is not the project's own state.
    """

    root: Path
    prepared: Path
    data_report: Path
    listed: Sequence[str]
    experiment: str | None
    detached: bool


def read_project(params: Params, prepared: Path, data_report: Path) -> Project:
    """The project of the working directory."""
    return Project(
        root=project_root(),
        prepared=prepared,
        data_report=data_report,
        listed=tuple(params.models()),
        experiment=os.environ.get("DVC_EXP_NAME"),
        detached=project_root() != Path.cwd().resolve(),
    )


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """No other process of the project is in a block of this kind; it waits for its turn."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_trained_models(
    params: Params, *, runs: Path, models: Path, leaderboard: Path, figures: Path, lock: Path
) -> list[TrainedModel]:
    """The models that both the params and the leaderboard list, in the params' order.

    Args:
        params: list the models.
        runs: reports/runs, a folder for each model.
        models: a folder for each model, and `source` with one for each backbone.
        leaderboard: leaderboard.json.
        figures: holds a folder for each model that has figures.
        lock: dvc.lock.

    Raises:
        ArtifactError: a file is missing or damaged, or a training did not come to its end.
    """
    rows = {row["model"]: row for row in read_json(leaderboard)}
    stages = _locked_stages(lock)
    return [
        _read_model(rows[name], runs / name, models, figures / name, stages) for name in params.models() if name in rows
    ]


def _read_model(
    row: Mapping[str, Any], run: Path, models: Path, figures: Path, stages: Mapping[str, Any]
) -> TrainedModel:
    journal = read_journal(run / "journal.jsonl")
    if not journal.complete:
        raise ArtifactError(f"{run / 'journal.jsonl'} has no end; `dvc repro` trains {row['model']} again")
    header = journal.header
    return TrainedModel(
        journal=journal,
        metrics={  # type: no booleans
            name: value for name, value in row.items() if type(value) in (int, float) and name not in RELATIVE
        },
        champion=row["champion"],
        folder=models / row["model"],
        source=models / "source" / header["backbone"] if header["kind"] == "svm" else None,
        files=[run / "journal.jsonl", *(path for name in SEARCHES if (path := run / name).exists())],
        figures=sorted(figures.glob("*")),
        inputs=_data_hashes(stages.get(header["stage"], {})),
    )


def _locked_stages(lock: Path) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = yaml.load(lock.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except FileNotFoundError:
        raise ArtifactError(f"{lock} is missing; `dvc repro` makes it") from None
    return content["stages"]


def _data_hashes(stage: Mapping[str, Any]) -> dict[str, str]:
    return {dep["path"]: str(dep["md5"]) for dep in stage.get("deps", []) if not dep["path"].endswith(".py")}


def describe(model: TrainedModel) -> dict[str, str]:
    """What runs are found and told apart by; of the code and the experiment, what was so when the training started."""
    header = model.journal.header
    facts = {
        **{name: header[name] for name in ("model", "kind", "backbone", "stage")},
        "git.dirty": None if header["commit"] is None else json.dumps(header["dirty"]),
        "mlflow.source.git.commit": header["commit"],
        "mlflow.source.name": header["stage"],
        "dvc.experiment": header["experiment"],
        "graft.chosen": ", ".join(one["name"] for one in model.journal.candidates if one["chosen"]) or None,
        **{f"dvc.md5.{path}": md5 for path, md5 in model.inputs.items()},
    }
    return {name: value for name, value in facts.items() if value is not None}


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
    names = {"frozen_until": "features.frozen_until", "batch_size": "finetune.unfrozen_batch_size"}
    values = {
        names.get(name, f"finetune.{name}"): value
        for candidate in journal.candidates
        if candidate["chosen"]
        for name, value in candidate["params"].items()
    }
    return flat(values)


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names: text stays as it is; numbers, lists and the like are written as JSON."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    leaves: dict[str, str] = {}
    for name, item in value.items():
        leaves |= flat(item, f"{prefix}.{name}" if prefix else name)
    return leaves


def digest(paths: Sequence[Path]) -> str:
    """A hash of the files' names and contents."""
    hashes = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
