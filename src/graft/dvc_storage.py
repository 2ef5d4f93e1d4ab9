"""How DVC keeps the outputs: where its cache lies, whether it holds copies or links, and what of it nothing needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from graft.errors import GraftError

REMOVED = re.compile(r"^Removing (.+)$", re.MULTILINE)
COLLECT = (sys.executable, "-m", "dvc", "gc", "--workspace", "--all-branches", "--all-tags")


@dataclass(frozen=True)
class DvcStorage:
    """The local cache of a project.

    Attributes:
        folder: of the cache.
        copies: whether an output takes its bytes twice, in the working folder and here; not where it is a link.
    """

    folder: Path
    copies: bool


def dvc_storage(root: Path) -> DvcStorage | None:
    """The cache of the DVC project at root, as its configuration and its disks have it; None: there is no project.

    Which links the disks allow is found out by DVC itself, with a file of four bytes.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_objects.fs.generic import test_links

    try:
        repo = Repo(str(root))
    except DvcException:
        return None
    with repo:
        cache = repo.cache.local
        os.makedirs(cache.path, exist_ok=True)
        usable = test_links(cache.cache_types, cache.fs, cache.path, repo.fs, os.path.join(repo.tmp_dir, "link"))
        return DvcStorage(Path(repo.cache.repo.path).parents[1], not usable or usable[0] == "copy")


def is_running(root: Path) -> bool:
    """Whether a dvc command that is still alive reads or writes outputs of the project or of an experiment of it."""
    own = Path(".dvc/tmp/rwlock")
    copies = [*root.glob(".dvc/tmp/exps/*"), *root.glob(".dvc/tmp/exps/*/*")]  # of --queue, of --temp
    return any(_has_users(folder / own) for folder in (root, *copies))


def _has_users(path: Path) -> bool:
    import psutil

    try:
        users = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:  # being written
        return True
    writers = [user for user in users.get("write", {}).values() if user]
    readers = [user for several in users.get("read", {}).values() for user in several]
    return any(psutil.pid_exists(user["pid"]) for user in (*writers, *readers))


def unused(root: Path) -> list[Path]:
    """Files of the cache that nothing in the working folder, a branch or a tag needs, as `dvc gc` lists them.

    Raises:
        GraftError: dvc refused; the message is its own.
    """
    listed = _dvc(root, "--dry")
    return [path for name in REMOVED.findall(listed) if (path := Path(name)).exists()]


def collect(root: Path) -> None:
    """Delete what unused lists, by DVC.

    Raises:
        GraftError: dvc refused; the message is its own.
    """
    _dvc(root, "--force")


def _dvc(root: Path, option: str) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [*COLLECT, option]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        told = (run.stderr.strip() or run.stdout.strip()).removeprefix("ERROR: ")
        raise GraftError(f"`dvc {' '.join(COLLECT[3:])} {option}` failed in {root}: {told}")
    return run.stdout
