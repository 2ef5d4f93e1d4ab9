"""Every training that was compared, kept small in the project, for tracking servers that hear of it later or anew.

What is kept is the journal, the row of the leaderboard and DVC's hashes of the files, which stay in DVC's cache. So a
run can be told of although its model was trained in a copy of the project that is gone, or was replaced since.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graft.dvc_cache import DvcCache
from graft.faults import reached
from graft.journal import FILE_NAME, read_journal
from graft.locks import locked
from graft.storage import ArtifactError, new_file, new_folder
from graft.trained import Project, TrainedModel

SCHEMA, RECORD = 1, "record.json"
KEPT_AS_IT_IS = ("metrics", "folder", "source", "predictions", "inputs", "outputs", "row")
OF_DATA = ("manifest.parquet", "classes.json")  # the list of images, without the images


class Record(BaseModel):
    """What is kept beside a journal; paths are of files and folders from the working directory on.

    Attributes:
        version: of this format.
        own: whether the project itself had the model; else a DVC experiment in a copy of it alone.
        experiment: name of the DVC experiment that compared it, if any.
        champion: whether it led that comparison.
        row: of the leaderboard.
        metrics: as TrainedModel has them.
        hashes: DVC's md5 of inputs and outputs by path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = Field(alias="schema")
    own: bool
    experiment: str | None
    champion: bool
    row: dict[str, Any]
    metrics: dict[str, int | float]
    inputs: dict[str, str]
    outputs: dict[str, str]
    folder: Path
    source: Path | None
    predictions: Path
    report: Path | None
    files: list[Path]
    figures: list[Path]
    prepared: Path
    data_report: Path


@dataclass(frozen=True)
class ArchivedRun:
    """A run of the archive; the folder holds its journal and its record."""

    folder: Path
    record: Record
    name: str

    @property
    def key(self) -> str:
        """As of the journal's header."""
        return self.folder.name


def keep(root: Path, model: TrainedModel, project: Project) -> None:
    """Keep what a tracking server would have to be told of a model; cheap where that is kept already.

    Only the project itself replaces what is kept of the same training, by what another comparison says of it.

    Args:
        root: where the archive lies; the original repository, also for an experiment in a copy.
        model: of the working directory, with all its files below that.
        project: of the working directory.

    Raises:
        ArtifactError: a file is not below the working directory.
    """
    record = _record(model, project).model_dump_json(by_alias=True, indent=1).encode()
    journal = next(path for path in model.files if path.name == FILE_NAME).read_bytes()
    folder = _archive(root) / model.key
    with locked(_archive(root) / ".lock"):
        kept = _read(folder) if (folder / RECORD).exists() else None
        if isinstance(kept, ArchivedRun):
            same = (folder / RECORD).read_bytes() == record and (folder / FILE_NAME).read_bytes() == journal
            if same or project.detached:
                return
            for name, content in ((FILE_NAME, journal), (RECORD, record)):  # at no moment is the run not there
                with new_file(folder / name) as file:
                    file.write_bytes(content)
                reached(f"publish {name} of the archive")
            return
        with new_folder(folder) as partial:
            (partial / FILE_NAME).write_bytes(journal)
            (partial / RECORD).write_bytes(record)
        reached("publish run of the archive")


def archived(root: Path) -> tuple[list[ArchivedRun], list[str]]:
    """All runs of the archive, the earliest training first, and what is wrong with those that cannot be read."""
    with locked(_archive(root) / ".lock"):
        found = [_read(folder) for folder in _archive(root).iterdir() if not folder.name.startswith(".")]
    runs = [one for one in found if isinstance(one, ArchivedRun)]
    runs.sort(key=lambda run: (read_journal(run.folder / FILE_NAME).header["started"], run.key))
    return runs, sorted(one for one in found if isinstance(one, str))


@contextmanager
def restored(run: ArchivedRun, cache: DvcCache) -> Iterator[TrainedModel]:
    """The run's model with its files, which lie below what is the working directory during the block.

    Of the model, `missing` lists what the cache no longer has; files, figures and report are those that it has. What
    was the project's own leads no leaderboard any more.
    """
    record = run.record
    with tempfile.TemporaryDirectory(prefix="graft-") as scratch, chdir(scratch):
        fetch = _Fetch(cache, record.inputs | record.outputs)
        journal = next(path for path in record.files if path.name == FILE_NAME)
        journal.parent.mkdir(parents=True)
        journal.write_bytes((run.folder / FILE_NAME).read_bytes())
        files = [journal, *fetch([path for path in record.files if path != journal])]
        figures, report = fetch(record.figures), fetch([record.report] if record.report else [])
        fetch([record.predictions, record.folder, *([record.source] if record.source else [])])
        fetch([record.prepared / name for name in OF_DATA], record.prepared)
        fetch([record.data_report] if record.data_report.as_posix() in record.outputs else [])
        yield TrainedModel(
            journal=read_journal(journal),
            champion=record.champion and not record.own,
            files=files,
            figures=figures,
            report=report[0] if report else None,
            missing=fetch.missing,
            **{name: getattr(record, name) for name in KEPT_AS_IT_IS},
        )


class _Fetch:
    """Writes what is called for to the working directory, and notes what the cache does not have."""

    def __init__(self, cache: DvcCache, hashes: Mapping[str, str]) -> None:
        self._cache, self._hashes = cache, hashes
        self.missing: list[Path] = []

    def __call__(self, paths: Sequence[Path], whole: Path | None = None) -> list[Path]:
        """The paths that are there now; `whole` is noted in place of those that are not."""
        had = [path for path in paths if self._cache.copy(path.as_posix(), self._hashes, path)]
        lost = [path for path in paths if path not in had]
        self.missing += [whole] if whole and lost else lost
        return had


def _archive(root: Path) -> Path:
    return root / ".store" / "runs"


def _record(model: TrainedModel, project: Project) -> Record:
    facts: Mapping[str, Any] = {
        "version": SCHEMA,
        "own": not project.detached,
        "experiment": project.experiment,
        **{name: getattr(model, name) for name in ("champion", "row", "metrics", "inputs", "outputs")},
        **{name: _below(getattr(model, name)) for name in ("folder", "predictions")},
        **{name: path and _below(path) for name, path in (("source", model.source), ("report", model.report))},
        "files": [_below(path) for path in model.files],
        "figures": [_below(path) for path in model.figures],
        "prepared": _below(project.prepared),
        "data_report": _below(project.data_report),
    }
    return Record(**facts)


def _below(path: Path) -> Path:
    """The path from the working directory on."""
    try:
        return Path(os.path.abspath(path)).relative_to(Path.cwd())  # not resolved: DVC may link files to its cache
    except ValueError:
        raise ArtifactError(f"files of a model must lie below {Path.cwd()}, received {path}") from None


def _read(folder: Path) -> ArchivedRun | str:
    """A run of the archive, or what is wrong with it."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        journal = read_journal(folder / FILE_NAME)
    except FileNotFoundError:
        return f"{folder / RECORD} is missing"
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        return f"{folder / RECORD} is damaged: {place}: {first['msg']}"
    except ArtifactError as error:
        return str(error)
    if journal.header["key"] != folder.name or not journal.complete:
        received = f"{'a whole' if journal.complete else 'an unfinished'} one of {journal.header['key']}"
        return f"{folder / FILE_NAME} must be the whole journal of {folder.name}, received {received}"
    return ArchivedRun(folder, record, str(journal.header["model"]))
