"""Copies of a finished project as it was before some of its stages, and what interrupted stages leave in one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from tiny_project import TinyProject


def state_before(
    twin: TinyProject, root: Path, stages: Iterable[str], outputs: dict[str, Sequence[str]]
) -> TinyProject:
    """A copy of a finished project in which these stages have never run, and MLflow was told of nothing.

    Args:
        twin: that ran to its end.
        root: of the copy.
        stages: of dvc.yaml.
        outputs: of every stage, as paths from the project's folder on.
    """
    shutil.copytree(twin.root, root, symlinks=True, ignore=_left_out)
    lock = root / "dvc.lock"
    content = yaml.safe_load(lock.read_text(encoding="utf-8"))
    for stage in stages:
        content["stages"].pop(stage, None)
        for output in outputs[stage]:
            path = root / output
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if stage.startswith("features@"):
            shutil.rmtree(root / ".store" / "features", ignore_errors=True)
    lock.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return TinyProject(root, twin.settings)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy has not: DVC's memory of earlier runs and the archive of trainings are both called runs."""
    known = {"mlflow.db", "mlartifacts", "mlflow.db.partial"}
    if Path(folder).name in ("cache", ".store"):
        known |= {"runs"}
    return known & set(names)


def partial_files(root: Path) -> list[Path]:
    """Files of the project that have no final name yet."""
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", ".dvc", "mlartifacts", "src")]
        inside = any(_is_partial(part) for part in Path(place).relative_to(root).parts)
        found += [Path(place, name) for name in names if inside or _is_partial(name)]
    return found


def _is_partial(name: str) -> bool:
    return name.startswith(".") and ("partial" in name or name.endswith(".old"))
