"""Outputs of stages as DVC's cache keeps them, also those that a later run, or a deleted copy, no longer shows."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from graft.errors import GraftError

FOLDER = ".dir"  # by which the hash of a folder's listing ends


class DvcCache:
    """The local cache of a DVC project; it is read alone, and remotes are not asked."""

    def __init__(self, objects: Any) -> None:
        self._objects = objects

    def copy(self, path: str, hashes: Mapping[str, str], target: Path) -> bool:
        """Write an output, or a file or folder inside of one, to target: whole, or not at all.

        Copies belong to the caller alone, whatever links the cache makes, and their contents are checked.

        Args:
            path: of what is wanted, as in dvc.lock.
            hashes: DVC's md5 by path of the outputs among which it is.
            target: of the file or folder; nothing may be there.

        Returns:
            Whether all of it was there; it is not where DVC cleaned up, or knows no such path.
        """
        output = next((name for name in (path, *map(str, PurePosixPath(path).parents)) if name in hashes), None)
        if output is None:
            return False
        listed = self._listing(hashes[output])
        if listed is None:
            return False
        inside = PurePosixPath(path).relative_to(output)
        wanted = {name: md5 for name, md5 in listed.items() if name == inside or inside in name.parents}
        if wanted and all(self._copy_file(md5, target / name.relative_to(inside)) for name, md5 in wanted.items()):
            return True
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        return False

    def _listing(self, md5: str) -> dict[PurePosixPath, str] | None:
        """The hashes of an output's files by their paths inside of it, which is `.` for a file; None: not there."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        if not md5.endswith(FOLDER):
            return {PurePosixPath(): md5}
        if not _is_whole(self._path(md5), md5):
            return None
        tree = Tree.load(self._objects, HashInfo("md5", md5))
        return {PurePosixPath(*key): entry.value for key, _, entry in tree}

    def _copy_file(self, md5: str, target: Path) -> bool:
        source = self._path(md5)
        if not _is_whole(source, md5):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)  # without the cache's modes, which forbid writing
        return True

    def _path(self, md5: str) -> Path:
        return Path(self._objects.oid_to_path(md5))


def _is_whole(path: Path, md5: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == md5.removesuffix(FOLDER)
    except FileNotFoundError:
        return False


@contextmanager
def open_cache(root: Path) -> Iterator[DvcCache]:
    """The cache of the DVC project at root, wherever its configuration puts it; no lock of DVC's is taken.

    Raises:
        GraftError: there is no DVC project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo(str(root))
    except DvcException as error:
        raise GraftError(f"{root} must be a DVC project, received a folder without one: {error}") from None
    with repo:
        yield DvcCache(repo.cache.local)
