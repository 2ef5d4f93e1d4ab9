"""Trained models to MLflow: one run for each, however often it is told so, whoever began it and wherever that ended.

A run is known by its journal's key: the same command, params and inputs are the same run, also where a stage was forced
to run again. Its tag graft.state says whether the project still has it: `current`, `superseded` by a newer run of the
same model, `removed` with the model's row of params.yaml, of an `experiment` of DVC, or in `training`.
Projects that share a server therefore need MLflow experiments of different names.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from graft.mlflow_server import (  # first: it settles what mlflow reads while it is imported
    MOST_RUNS,
    MlflowClient,
    UnreachableError,
    collided,
    connect,
    default_tracking_uri,
    reachable,
    shown,
    tracking_uri,
)

# isort: split
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from graft import run_archive
from graft.faults import reached
from graft.identified_runs import (
    COMPLETE,
    CURRENT,
    EXPERIMENT,
    KEY,
    REMOVED,
    STATE,
    SUPERSEDED,
    find_run,
    is_complete,
    keep_one,
    open_run,
)
from graft.nested_runs import tag_nested
from graft.operation_sections import Serve
from graft.params import Params
from graft.registry import Registered, register_champion
from graft.run_parts import CHAMPION, complete_run, refresh_run
from graft.trained import MISSING, Project, TrainedModel, alone

__all__ = ["Published", "UnreachableError", "default_tracking_uri", "publish"]

TRIES = 5  # at a run that another machine writes to or deletes meanwhile
LONGEST_WAIT = 60  # seconds until that machine has completed its own; it may have died


@dataclass(frozen=True)
class Published:
    """What a call did.

    Attributes:
        new: how many runs it completed.
        version: of the champion in the registry; None where there is no champion or it is an experiment's.
        alias: of that version, champion or challenger.
        reason: why it has that alias.
        uri: of the server, without a password.
    """

    new: int
    version: str | None
    alias: str | None
    reason: str
    uri: str


def publish(models: Sequence[TrainedModel], params: Params, project: Project) -> Published:
    """Bring MLflow up to date with the models; what is there and right is left alone.

    Raises:
        UnreachableError: what was published before stays, and another call does the rest.
    """
    for model in models:
        run_archive.keep(project.root, model, project)
    uri = tracking_uri(project.root)
    with alone(project.root), reachable(uri):
        client, experiment = connect(uri, params.tracking.experiment, project.root)
        publisher = _Publisher(client, experiment, project, params.serve)
        runs = {model.key: publisher.bring_up_to_date(model) for model in models}
        runs |= publisher.without_duplicates()
        reached("publish all runs")
        new = len(publisher.completed)
        if not project.detached:
            publisher.retire({model.name for model in models})
            for model in models:
                if model.champion:
                    done = _register(client, runs[model.key], model, params, project)
                    return Published(new, done.version, done.alias, done.reason, shown(uri))
    return Published(new, None, None, "", shown(uri))


def _register(client: MlflowClient, run: Run, model: TrainedModel, params: Params, project: Project) -> Registered:
    for tries_left in reversed(range(TRIES)):
        try:
            return register_champion(client, run, model, params, project.prepared)
        except MlflowException as error:
            if not (tries_left and collided(error)):
                raise
            time.sleep(random.uniform(0.5, 2))
    raise AssertionError  # the last try returns or raises


class _Publisher:
    """One call's view of the runs that the project has, or that are in training, and what it does about them."""

    def __init__(self, client: MlflowClient, experiment: str, project: Project, limits: Serve) -> None:
        self._client, self._experiment, self._project, self._limits = client, experiment, project, limits
        self._known = self._known_runs()
        self.completed: list[str] = []  # keys

    def _known_runs(self) -> dict[str, Run]:
        """By key, one of each."""
        past = " and ".join(f"tags.`{STATE}` != '{state}'" for state in (SUPERSEDED, REMOVED, EXPERIMENT))
        by_key: dict[str, list[Run]] = {}
        for run in self._client.search_runs(
            [self._experiment], f"tags.`{KEY}` != '' and {past}", max_results=MOST_RUNS
        ):
            by_key.setdefault(run.data.tags[KEY], []).append(run)
        return {key: keep_one(self._client, runs) for key, runs in by_key.items()}

    def bring_up_to_date(self, model: TrainedModel) -> Run:
        """The model's run, complete; a copy of the project changes nothing of one that was so before."""
        run = self._known.pop(model.key, None)
        if run is None or not is_complete(run) or self._can_fill(run, model):
            run = self._complete(model)
        if not self._project.detached:
            if run.data.tags.get(COMPLETE) != "true":  # as projects of before this tag have them
                run = complete_run(self._client, run, model, self._project, self._limits)
            refresh_run(self._client, run, model)
        return run

    def _can_fill(self, run: Run, model: TrainedModel) -> bool:
        """Whether a run that sync told of without some of its files can have them now."""
        return MISSING in run.data.tags and is_complete(run) and not model.missing

    def _complete(self, model: TrainedModel) -> Run:
        for tries_left in reversed(range(TRIES)):
            run = open_run(self._client, self._experiment, model.journal)
            if self._can_fill(run, model):
                self._client.set_tag(run.info.run_id, COMPLETE, "false")
                reached("publish lack")
                run = open_run(self._client, self._experiment, model.journal)
            elif is_complete(run):
                break
            try:
                run = complete_run(self._client, run, model, self._project, self._limits)
                if MISSING in run.data.tags and not model.missing:
                    self._client.delete_tag(run.info.run_id, MISSING)
            except MlflowException:
                if not tries_left:
                    raise
                self._let_another_finish(run)
                continue
            self.completed.append(model.key)
            break
        return run

    def _let_another_finish(self, run: Run) -> None:
        """Another machine told of the same at the same moment: wait for it, rather than fight about the same rows.

        Where it had a run of its own and kept that, this one is deleted; that is to be completed then.
        """
        active = self._client.get_run(run.info.run_id).info.lifecycle_stage == "active"  # no server, no answer: raises
        deadline = time.monotonic() + (random.uniform(1, 3) if active else LONGEST_WAIT)
        while time.monotonic() < deadline:
            kept = find_run(self._client, self._experiment, run.data.tags[KEY])
            if kept is None or is_complete(kept):
                return
            time.sleep(0.5)

    def without_duplicates(self) -> dict[str, Run]:
        """The runs that this call completed, by key, each the only one of it.

        An answer that came after its time has left another run, and so may another machine that completed the same.
        """
        found = {key: find_run(self._client, self._experiment, key) for key in self.completed}
        return {key: run for key, run in found.items() if run}

    def retire(self, trained: set[str]) -> None:
        """Mark the runs that the project no longer has; a listed model that waits for its training keeps its last."""
        listed = self._project.listed
        for run in self._known.values():
            tags = run.data.tags
            name = tags.get("model", "")  # people can take tags away
            if tags[STATE] != CURRENT or (name not in trained and name in listed):
                continue
            state = SUPERSEDED if name in listed else REMOVED
            tag_nested(self._client, run, {STATE: state})
            reached("publish state of nested runs")
            self._client.log_batch(run.info.run_id, tags=[RunTag(STATE, state), RunTag(CHAMPION, "false")])
            reached("publish state")
