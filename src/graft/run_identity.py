"""Which run a training is, where it writes, and whether another process has just come to the end of the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.storage import ArtifactError

if TYPE_CHECKING:
    from graft.journal import Journal
    from graft.operation_sections import Tracking


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is.

    Attributes:
        key: hash of the stage's command, parameters and inputs.
        model: name in the leaderboard.
        kind: baseline, finetune or svm.
        backbone: the row of `backbones`; None for a baseline.
        stage: name in dvc.yaml.
        params: the sections of params.yaml that shaped it.
    """

    key: str
    model: str
    kind: str
    backbone: str | None
    stage: str
    params: dict[str, Any]

    @contextmanager
    def recorded(self, machine: Mapping[str, str]) -> Iterator[Journal]:
        """The run's journal in its work folder, gone on with where an attempt on the same machine was interrupted.

        Waits while another process trains the same.
        """
        from graft.journal import Journal, work_folder

        journal = Journal.start(work_folder(self.key), asdict(self), machine)
        try:
            yield journal
        finally:
            journal.close()

    @contextmanager
    def followed(self, journal: Journal, tracking: Tracking) -> Iterator[None]:
        """Where asked for, MLflow follows the journal of a network meanwhile."""
        from graft.publisher_process import published_live

        follow = tracking.live and self.kind != "svm"  # which has no epochs
        with published_live(journal.folder, tracking.experiment) if follow else nullcontext():
            yield


@dataclass(frozen=True)
class RunPaths:
    """Where a training stage writes; history is None for models that are not trained by epochs."""

    model: Path
    run: Path
    metrics: Path
    history: Path | None


def is_written(paths: RunPaths, identity: RunIdentity) -> bool:
    """Whether another process, left behind by a `dvc repro` that was killed, has come to the end of this very training.

    DVC removes a stage's outputs before it runs it, so what is there now was written since then.
    """
    from graft.journal import read_journal

    outputs = [paths.model, paths.metrics, paths.run, *([paths.history] if paths.history else [])]
    if "DVC_STAGE" not in os.environ or not all(path.exists() for path in outputs):
        return False
    try:
        journal = read_journal(paths.run / "journal.jsonl")
    except ArtifactError:
        return False
    if not journal.complete or journal.header["key"] != identity.key:
        return False
    print(f"{identity.kind} {identity.model}: a process of an earlier dvc repro has just written it; kept as it is")
    return True
