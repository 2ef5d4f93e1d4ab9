"""All runs of the project to a tracking server that knows some of them or none, for instance a new one."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from graft.mlflow_server import (  # first: it settles what mlflow reads while it is imported
    MOST_RUNS,
    MlflowClient,
    UnreachableError,
    connect,
    reachable,
    shown,
    tracking_uri,
)

# isort: split
from mlflow.entities import Run

from graft import run_archive, tracking
from graft.dvc_cache import DvcCache, open_cache
from graft.errors import GraftError
from graft.faults import reached
from graft.identified_runs import COMPLETE, EXPERIMENT, KEY, REMOVED, STATE, SUPERSEDED, is_complete, open_run
from graft.journal import project_root
from graft.nested_runs import tag_nested
from graft.params import Params, load_params
from graft.run_archive import ArchivedRun
from graft.storage import ArtifactError
from graft.trained import MISSING, Project, TrainedModel, alone, read_project, read_trained_models

PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")


def sync() -> str:
    """Tell the tracking server of every run of the project that it does not have whole; returns what was done.

    The models of the working directory are told of as the track stage does, the archive's other runs as what the
    project no longer has, or as an experiment's. A second call changes nothing.

    Raises:
        UnreachableError: the server does not answer; what it was told before stays, and another call does the rest.
        GraftError: the working directory is not a project's.
    """
    root, params, paths = project_root(), load_params(PARAMS), _track_paths()
    project = read_project(params, paths.pop("prepared"), paths.pop("data_report"))
    with open_cache(root) as cache:
        uri = tracking_uri(root)
        try:
            with reachable(uri):
                call = _Call(*connect(uri, params.tracking.experiment, root), params, project)
                call.tell_of_working_directory(paths)
                call.tell_of_archive(cache)
        except UnreachableError as error:
            raise UnreachableError(f"{error}; nothing is lost, run `graft sync` when it is back") from None
    return f"sync: {call.summary()} at {shown(uri)}"


class _Call:
    """One look at the server's runs, what is done about them, and how many were in which state."""

    def __init__(self, client: MlflowClient, experiment: str, params: Params, project: Project) -> None:
        self._client, self._experiment, self._params, self._project = client, experiment, params, project
        self._before = self._runs()
        self._done: set[str] = set()  # keys
        self._counts = Counter[str]()

    def tell_of_working_directory(self, paths: Mapping[str, Path]) -> None:
        """Of its models, if it is finished; a pipeline that runs just now does that itself at its end."""
        try:
            models = read_trained_models(self._params, **paths)
        except ArtifactError as error:
            print(f"sync: the working directory has no finished pipeline, so the archive's runs alone: {error}")
            return
        tracking.publish(models, self._params, self._project)
        for model in models:
            self._count(model.key)

    def tell_of_archive(self, cache: DvcCache) -> None:
        """Of all that was not told of yet."""
        runs, damaged = run_archive.archived(self._project.root)
        for what in damaged:
            print(f"sync: a run of the archive is left out: {what}")
        for run in runs:
            if run.key not in self._done:
                self._tell_of(run, cache)

    def summary(self) -> str:
        """The counts in words."""
        counts = self._counts
        runs = f"{len(self._done)} runs, {counts['there']} were there, {counts['created']} created"
        lacking = f", {counts['lacking']} without a model, which DVC's cache does not have" if counts["lacking"] else ""
        return f"{runs}, {counts['completed']} completed{lacking}"

    def _runs(self) -> dict[str, Run]:
        """By key, a complete one where there is one."""
        found = self._client.search_runs([self._experiment], f"tags.`{KEY}` != ''", max_results=MOST_RUNS)
        return {run.data.tags[KEY]: run for run in sorted(found, key=is_complete)}

    def _count(self, key: str) -> None:
        before = self._before.get(key)
        self._counts["created" if before is None else "there" if is_complete(before) else "completed"] += 1
        self._done.add(key)

    def _tell_of(self, archived: ArchivedRun, cache: DvcCache) -> None:
        run = self._before.get(archived.key)
        if run is None or not is_complete(run) or MISSING in run.data.tags:
            with run_archive.restored(archived, cache) as model:
                run = self._complete(archived, model, run)
        if run.data.tags.get(STATE) == EXPERIMENT and archived.record.own:
            state = {STATE: SUPERSEDED if archived.name in self._project.listed else REMOVED}
            tag_nested(self._client, run, state)
            self._client.set_tag(run.info.run_id, STATE, state[STATE])
            reached("publish state")
        self._count(archived.key)

    def _complete(self, archived: ArchivedRun, model: TrainedModel, before: Run | None) -> Run:
        """The run with all that the cache has; what it has not is noted first, in case that this call breaks off."""
        missing = ", ".join(path.as_posix() for path in model.missing)
        self._counts["lacking"] += not {model.folder, model.source}.isdisjoint(model.missing)
        if before is not None and is_complete(before):
            if before.data.tags[MISSING] == missing:
                return before
            before.data.tags[COMPLETE] = "false"  # for the count, too
            self._client.set_tag(before.info.run_id, COMPLETE, "false")
            reached("publish lack")
        with alone(self._project.root):
            run = open_run(self._client, self._experiment, model.journal)
            if missing:
                self._client.set_tag(run.info.run_id, MISSING, missing)
                reached("publish missing files")
        record = archived.record
        project = replace(self._project, prepared=record.prepared, data_report=record.data_report, detached=True)
        tracking.publish([model], self._params, project)
        print(f"sync: {archived.name} of {model.journal.header['started']}{f', without {missing}' if missing else ''}")
        return self._client.get_run(run.info.run_id)


def _track_paths() -> dict[str, Path]:
    """The paths that dvc.yaml gives the track stage, by option."""
    try:
        command = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]["track"]["cmd"]
    except (FileNotFoundError, KeyError, TypeError, UnicodeDecodeError, yaml.YAMLError):
        raise GraftError(f"{PIPELINE.absolute()} must have a stage track; run from the project's top folder") from None
    words = shlex.split(command)
    options = itertools.pairwise(words)
    return {name.removeprefix("--").replace("-", "_"): Path(path) for name, path in options if name.startswith("--")}
