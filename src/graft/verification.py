"""The whole pipeline run once more in a second workspace, and its results held against those that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from graft.errors import GraftError
from graft.lockfile import LAST_RESULT, stale_stages
from graft.params import load_params
from graft.provenance import read_provenance
from graft.second_workspace import reproduce
from graft.storage import read_json
from graft.workspace_differences import differences, pipeline_outputs, result_files

FOLDER = Path(".work") / "verify"  # which Git and DVC ignore
UP = ".."
# The second workspace has no Git of its own, and of caches an empty one beside this file, whatever the checkout names.
CONFIG = "[core]\n    no_scm = true\n[cache]\n    dir = cache\n"


@dataclass(frozen=True)
class Verified:
    """What came of a verification.

    Attributes:
        stages: that ran once more.
        models: how many of them trained a model.
        files: how many files of results were compared.
        differences: of each file that differs, the first, in the order in which the pipeline makes them.
        machines: what made the results that are here, where it is not what this process has.
        workspace: the second one; None where it was deleted, because nothing differs.
    """

    stages: Sequence[str]
    models: int
    files: int
    differences: Sequence[str]
    machines: Sequence[str]
    workspace: Path | None

    def described(self) -> str:
        """In one line, or, where something differs, in a few."""
        if not self.differences:
            return f"{self.models} models, {self.files:,} files: identical"
        first, *others = self.differences
        return "\n".join(
            [
                f"{first} (here against once more)",
                *([f"{len(others):,} more of {self.files:,} files differ"] if others else []),
                *(f"what is here was made with another {machine}" for machine in self.machines),
                f"the second workspace is kept: {self.workspace}",
            ]
        )


def verify(root: Path, into: Path | None = None, stages: Sequence[str] = ()) -> Verified:
    """Run the pipeline of a finished workspace once more, from nothing, and compare all results.

    The second workspace holds the checkout as it is, committed or not. It has a store and a database of runs of its own
    and takes nothing from a cache of DVC's; the project's own runs, registry and lock stay as they are. Data that Git
    does not hold is linked to.

    Args:
        root: of the workspace.
        into: the folder for the second workspace, which must be empty or absent; None: a temporary one below FOLDER.
        stages: such as svm@vgg16, which run with all that they need; none: all but track, which makes no result.

    Raises:
        GraftError: the workspace is not finished, a stage is unknown, the folder is not empty, or the second run
            failed; what it has written is kept then.
    """
    outputs = _finished_outputs(root)
    unknown = [stage for stage in stages if stage not in outputs]
    if unknown:
        raise GraftError(f"verify: stages must be among {', '.join(outputs)}, received {', '.join(unknown)}")
    folder = _new_folder(root, into)
    workspace = copy_workspace(root, folder, outputs)
    machines = _other_machine(root)
    print("".join(f"verify: what is here was made with another {machine}\n" for machine in machines), end="")
    print(f"verify: running the pipeline once more in {workspace}", flush=True)
    _run(workspace, stages or [LAST_RESULT])
    ran = [stage for stage in outputs if stage in _locked_stages(workspace)]
    found = list(differences(root, workspace, stages=ran))
    verified = Verified(
        stages=ran,
        models=sum(any(output.startswith("reports/runs/") for output in outputs[stage]) for stage in ran),
        files=len({name for stage in ran for output in outputs[stage] for name in result_files(root, output)}),
        differences=found,
        machines=machines,
        workspace=workspace if found else None,
    )
    if not found:
        shutil.rmtree(folder)
    return verified


def _finished_outputs(root: Path) -> dict[str, list[str]]:
    """The outputs by stage of a pipeline that has run.

    Raises:
        GraftError: a stage would run again, or an output is not there.
    """
    stale = stale_stages(root)
    if stale:
        raise GraftError(
            f"verify: the workspace must be finished, but `dvc repro` would run {', '.join(stale)}; let it do so first"
        )
    outputs = pipeline_outputs(root)
    absent = next((path for listed in outputs.values() for path in listed if not (root / path).exists()), None)
    if absent:
        raise GraftError(
            f"verify: the workspace must be finished, but {absent} is not there; `dvc checkout` brings it from the "
            "cache, `dvc repro` makes it"
        )
    return outputs


def _new_folder(root: Path, into: Path | None) -> Path:
    if into is None:
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=root.resolve() / FOLDER))
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise GraftError(f"verify: {into} must be an empty folder or absent, received one with something in it")
    into.mkdir(parents=True, exist_ok=True)
    return into.resolve()


def copy_workspace(root: Path, folder: Path, outputs: Mapping[str, Sequence[str]]) -> Path:
    """Copy what Git holds or would hold, without results, into a folder; returns the second workspace's root.

    It lies as many folders deep as the pipeline's relative paths lead up, so that they stay inside of the folder.

    Raises:
        GraftError: root is no checkout of Git.
    """
    made = {output for listed in outputs.values() for output in listed} | {"dvc.lock"}
    sources = _sources(root, made)
    ups = max((Path(written).parts.count(UP) for written in sources), default=0)
    workspace = folder.joinpath(*root.resolve().parts[-1 - ups :])
    for name in _tracked(root):
        path = Path(name)
        if made.isdisjoint({name, *map(str, path.parents)}) and (root / path).is_file():
            (workspace / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, workspace / path)
    for written, source in sources.items():
        place = Path(os.path.normpath(workspace / written))
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
    config = workspace / ".dvc" / "config.local"
    config.write_text(CONFIG, encoding="utf-8")
    return workspace


def _sources(root: Path, made: set[str]) -> dict[str, Path]:
    """What the pipeline reads and makes no part of, by relative path as dvc.yaml names it; absolute ones stay."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        paths = [(dep.def_path, Path(dep.fs_path)) for stage in repo.index.stages for dep in stage.deps]
    results = [root.resolve() / output for output in made]
    return {
        written: path
        for written, path in paths
        if not Path(written).is_absolute()
        # Neither an output nor a folder of some, through a link to which the second run would write into the first.
        and not any(path.is_relative_to(result) or result.is_relative_to(path) for result in results)
    }


def _tracked(root: Path) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise GraftError(f"{root} must be a checkout of Git: {result.stderr.strip()}")
    return [name for name in result.stdout.split("\0") if name]


def _run(workspace: Path, targets: Sequence[str]) -> None:
    """`dvc repro` that keeps nothing in a cache, with this process's Python and nothing else of it."""
    ended = reproduce(workspace, ["--no-run-cache", "--no-commit", *targets])
    if ended:
        raise GraftError(f"verify: the second run ended with {ended}, see above; its workspace is kept: {workspace}")


def _locked_stages(workspace: Path) -> set[str]:
    return set(yaml.load((workspace / "dvc.lock").read_text(encoding="utf-8"), yaml.CSafeLoader)["stages"])


def _other_machine(root: Path) -> list[str]:
    """What made the results that are here, where that is not what this process has: processor, system, threads."""
    then = read_json(root / "reports" / "model_card.json")["environment"]["machine"]
    now = read_provenance(load_params(root / "params.yaml"), root, root / "dvc.lock").machine
    return [f"{name} {then.get(name)}, now {now[name]}" for name in now if now[name] != then.get(name)]
