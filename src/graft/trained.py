"""A trained model as the pipeline left it on the disk, and what a tracking server is told of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
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
RELATIVE = ("difference", "difference_low", "difference_high", "p_value", "p_adjusted", "rank", "of")
MISSING = "graft.missing"  # tag of a run some of whose files were gone when it was told of
MOST_NAME = 250  # characters that MLflow takes of a tag


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
        predictions: of the validation and test images, in a file.
        figures: of this model alone.
        report: of all models, a page; None where there is none.
        inputs: DVC's md5 of its data by path; code is not among them.
        outputs: the same of what its stage and the comparison wrote.
        row: of the leaderboard, with its `rank` and the number `of` rows.
        missing: which of these files and folders, or of the data set, are gone; nothing is told of them.
    """

    journal: JournalRecord
    metrics: Mapping[str, float]
    champion: bool
    folder: Path
    source: Path | None
    files: Sequence[Path]
    predictions: Path
    figures: Sequence[Path]
    report: Path | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    row: Mapping[str, Any]
    missing: Sequence[Path] = ()

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
        detached: whether that is so, or this is a copy: what it holds is not the project's own state.
    """

    root: Path
    prepared: Path
    data_report: Path
    listed: Sequence[str]
    experiment: str | None
    detached: bool


def read_project(params: Params, prepared: Path, data_report: Path) -> Project:
    """The project of the working directory."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return Project(
        root=project_root(),
        prepared=prepared,
        data_report=data_report,
        listed=tuple(params.models()),
        experiment=experiment,
        detached=experiment is not None or project_root() != Path.cwd().resolve(),
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
    params: Params, *, runs: Path, models: Path, leaderboard: Path, figures: Path, report: Path | None, lock: Path
) -> list[TrainedModel]:
    """The models that both the params and the leaderboard list, in the params' order.

    Args:
        params: list the models.
        runs: reports/runs, a folder for each model.
        models: a folder for each model, and `source` with one for each backbone.
        leaderboard: leaderboard.json.
        figures: holds a folder for each model that has figures.
        report: the page of all models; not told of where it is None or missing.
        lock: dvc.lock.

    Raises:
        ArtifactError: a file is missing or damaged, or a training did not come to its end.
    """
    rows = read_json(leaderboard)
    rows = {row["model"]: row | {"rank": place, "of": len(rows)} for place, row in enumerate(rows, start=1)}
    stages = _locked_stages(lock)
    page = report if report and report.exists() else None
    return [
        _read_model(rows[name], runs / name, models, figures / name, page, stages)
        for name in params.models()
        if name in rows
    ]


def _read_model(
    row: Mapping[str, Any], run: Path, models: Path, figures: Path, report: Path | None, stages: Mapping[str, Any]
) -> TrainedModel:
    journal = read_journal(run / "journal.jsonl")
    if not journal.complete:
        raise ArtifactError(f"{run / 'journal.jsonl'} has no end; `dvc repro` trains {row['model']} again")
    header = journal.header
    stage, comparison = stages.get(header["stage"], {}), stages.get("compare", {})
    return TrainedModel(
        journal=journal,
        metrics={  # type: no booleans
            name: value for name, value in row.items() if type(value) in (int, float) and name not in RELATIVE
        },
        champion=row["champion"],
        folder=models / row["model"],
        source=models / "source" / header["backbone"] if header["kind"] == "svm" else None,
        files=[run / "journal.jsonl", *(path for name in SEARCHES if (path := run / name).exists())],
        predictions=run / "predictions.parquet",
        figures=sorted(figures.glob("*")),
        report=report,
        inputs={path: md5 for path, md5 in _hashes(stage, "deps").items() if not path.endswith(".py")},
        outputs=_hashes(stages.get("prepare", {}), "outs") | _hashes(stage, "outs") | _hashes(comparison, "outs"),
        row=row,
    )


def _locked_stages(lock: Path) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = yaml.load(lock.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except FileNotFoundError:
        raise ArtifactError(f"{lock} is missing; `dvc repro` makes it") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArtifactError(f"{lock} is not valid YAML: {' '.join(str(error).split())}") from None
    return content["stages"]


def _hashes(stage: Mapping[str, Any], side: str) -> dict[str, str]:
    return {entry["path"]: str(entry["md5"]) for entry in stage.get(side, []) if "md5" in entry}


def describe_start(header: Mapping[str, Any]) -> dict[str, str]:
    """What runs are found and told apart by, as far as a journal's header settles it when the training starts."""
    facts = {
        **{name: header[name] for name in ("model", "kind", "backbone", "stage")},
        "git.dirty": None if header["commit"] is None else json.dumps(header["dirty"]),
        "mlflow.source.git.commit": header["commit"],
        "mlflow.source.name": header["stage"],
        "dvc.experiment": header["experiment"],
    }
    return {name: value for name, value in facts.items() if value is not None}


def describe(model: TrainedModel) -> dict[str, str]:
    """What runs are found and told apart by; of the code and the experiment, what was so when the training started."""
    chosen = ", ".join(one["name"] for one in model.journal.candidates if one["chosen"])
    hashes = {_tag_name(f"dvc.md5.{path}"): md5 for path, md5 in model.inputs.items()}
    return describe_start(model.journal.header) | ({"graft.chosen": chosen} if chosen else {}) | hashes


def _tag_name(text: str) -> str:
    """As MLflow takes it."""
    return re.sub(r"[^/\w.\- :]", "_", text)[:MOST_NAME]
