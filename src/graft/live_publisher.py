"""A journal to MLflow as it grows: the run of a training, its curves and what the machine does meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from graft.mlflow_server import (  # first: it settles what mlflow reads while it is imported
    MlflowClient,
    MlflowException,
    UnreachableError,
    connect,
    reachable,
    tracking_uri,
)

# isort: split
from mlflow.entities import Metric, Run

from graft.faults import reached
from graft.identified_runs import delete_run, epoch_metrics, is_complete, milliseconds, open_run, system_metrics
from graft.journal import JournalRecord, project_root
from graft.journal_records import parse_journal
from graft.storage import ArtifactError
from graft.trained import alone

MOST_METRICS = 1000  # that MLflow takes at once


class Publisher:
    """Brings the run of one training up to what its journal says.

    Args:
        file: the journal, open; it may be moved or deleted meanwhile.
        work: its folder, for messages.
        experiment: of MLflow, by name.
    """

    def __init__(self, file: BinaryIO, work: Path, experiment: str) -> None:
        self._file, self._work, self._experiment = file, work, experiment
        self._root = project_root()
        self._uri = tracking_uri(self._root)
        self._size = -1  # of what was read of the journal
        self._journal = self._read()
        self._client: MlflowClient | None = None
        self._run: Run | None = None  # the last that is known
        self._answered = False  # by the server, to the last that was said
        self._told = {"epochs": 0, "system": 0}

    @property
    def superfluous(self) -> bool:
        """Whether MLflow has all there is of this training, from another that was the same."""
        return self._run is not None and is_complete(self._run)

    def publish(self) -> None:
        """Tell what is new; after a failure the run is looked for again, for the server may be another one.

        Raises:
            UnreachableError: the server does not answer; another call tells the rest.
        """
        size, self._journal = self._size, self._read()
        if self._answered and size == self._size:
            return
        again, self._answered = not self._answered, False
        with reachable(self._uri):
            if again:
                self._open()
            if not self.superfluous:
                self._log()
        self._answered = True

    def finish(self, broken: str) -> None:
        """Tell the rest, and that the training is over.

        A run that track is about to complete is left alone where the last call was not answered.

        Args:
            broken: status of a run whose journal has no end: FAILED or KILLED.
        """
        self._journal = self._read()
        ended = self._journal.ended
        if self._run is None or self._client is None or (ended and not self._answered):
            return
        status = "FINISHED" if ended else broken
        moment = milliseconds(ended) if ended else round(time.time() * 1000)
        with suppress(UnreachableError, MlflowException), reachable(self._uri):  # nobody is left to be told
            self._log()
            self._client.set_terminated(self._run.info.run_id, status, end_time=moment)
            reached("publish end")

    def _read(self) -> JournalRecord:
        """The journal as far as it is written; as it was, where the next training of the same began it anew."""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._size:
            return self._journal
        try:
            journal = parse_journal(os.pread(self._file.fileno(), size, 0), self._work / "journal.jsonl")
        except ArtifactError:
            if self._size < 0:
                raise
            return self._journal
        if self._size >= 0 and journal.header != self._journal.header:
            return self._journal
        self._size = size
        return journal

    def _open(self) -> None:
        with alone(self._root):
            self._client, experiment = connect(self._uri, self._experiment, self._root)
            run = open_run(self._client, experiment, self._journal)
            if self._run is None and not is_complete(run) and self._is_ahead(self._client, run):
                delete_run(self._client, run)
                run = open_run(self._client, experiment, self._journal)
            if run.info.status != "RUNNING" and not is_complete(run):  # the attempt was interrupted and goes on
                self._client.update_run(run.info.run_id, "RUNNING")
                reached("publish resumption")
        if self._run is None or run.info.run_id != self._run.info.run_id:
            self._told = {"epochs": 0, "system": 0}
        self._run = run

    def _is_ahead(self, client: MlflowClient, run: Run) -> bool:
        """Whether a run has points that its journal has lost, as after a power cut: told again they would be double."""
        known = {_point(metric) for metric in (*epoch_metrics(self._journal), *system_metrics(self._journal))}
        curves = [name for name in run.data.metrics if name.startswith(("epoch/", "system/"))]
        told = (point for name in curves for point in client.get_metric_history(run.info.run_id, name))
        return any(_point(point) not in known for point in told)

    def _log(self) -> None:
        if self._client is None or self._run is None:
            return
        metrics = {"epochs": epoch_metrics(self._journal), "system": system_metrics(self._journal)}
        new: list[Metric] = [metric for name, known in metrics.items() for metric in known[self._told[name] :]]
        for first in range(0, len(new), MOST_METRICS):
            self._client.log_batch(self._run.info.run_id, new[first : first + MOST_METRICS])
            reached("publish curves")
        self._told = {name: len(known) for name, known in metrics.items()}


def _point(metric: Metric) -> tuple[str, int, int, float]:
    return metric.key, metric.step, metric.timestamp, metric.value
