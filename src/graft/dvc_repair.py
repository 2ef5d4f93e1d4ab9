"""DVC's own files after it was killed: it writes dvc.lock and its list of locks in place, so that either can be torn.

A `dvc repro` that finds one of them torn refuses to start, and would do so for ever.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from graft.storage import new_file

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK, READERS, GUARD = "dvc.lock", "rwlock", "rwlock.lock"
STAGE = re.compile(r"^  \S", re.MULTILINE)  # where an entry of dvc.lock begins


def repair(root: Path) -> list[str]:
    """Make the files of a DVC project readable again that a killed `dvc` has torn; returns what was done.

    Of dvc.lock the stages stay that are whole. DVC restores the outputs of the others from its cache, by its memory of
    earlier runs, unless they change. Nothing is touched while another `dvc` command writes.

    Args:
        root: folder of dvc.yaml.
    """
    from dvc.lock import LockError, make_lock
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        tmp = Path(str(repo.tmp_dir))
        hardlink = repo.config["core"].get("hardlink_lock", False)
        try:
            with repo.lock, make_lock(str(tmp / GUARD), tmp_dir=str(tmp), hardlink_lock=hardlink):
                return [*_repair_readers(tmp / READERS), *_repair_lock(repo, root / LOCK)]
        except LockError:
            return []


def _repair_readers(path: Path) -> list[str]:
    """The list of what runs; without one DVC begins a new one, and whoever is in it died or has its own locks."""
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (ValueError, Invalid):
        path.unlink()
        return [f"{path} was torn, as by a killed dvc: it is removed, and DVC makes a new one"]
    return []


def _repair_lock(repo: Repo, path: Path) -> list[str]:
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException

    if not path.exists():
        return []
    try:
        Lockfile(repo, str(path)).load()
        return []
    except (DvcException, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8", errors="ignore")
    entries = [found.start() for found in STAGE.finditer(text)]
    while len(entries) > 1:  # what was torn is the end of it, or all after some place
        with new_file(path) as partial:
            partial.write_text(text[: entries[-1]], encoding="utf-8")
        with suppress(DvcException):
            Lockfile(repo, str(path)).load()
            return [f"{path} was torn, as by a killed dvc: its {len(entries) - 1} whole stages are kept"]
        entries.pop()
    path.unlink()
    return [f"{path} was torn, as by a killed dvc: it is removed, and `dvc repro` makes a new one"]
