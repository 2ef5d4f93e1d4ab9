"""The work of an unfinished stage: a folder outside its outputs, held by one process, kept until the stage is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from graft.finished_work import put_away, take_back
from graft.locks import locked
from graft.machines import describe_machine
from graft.run_keys import work_folder
from graft.storage import ArtifactError, read_json, write_json

LOCK, MACHINE = "lock", "machine.json"
PIXELS = ("numpy", "pillow", "opencv-python-headless", "matplotlib")  # that decode, draw and scale images


@contextmanager
def unfinished(key: str, packages: Sequence[str] = PIXELS) -> Iterator[Path]:
    """The work folder of a run, alone; put away when the block ends without an error, kept otherwise.

    What another machine left in it, or other versions of the packages, is deleted: one half of a result must not come
    from here and one from there. Waits while another process works in it: a stage that outlived its `dvc repro`, or a
    parallel experiment with the same key.

    Args:
        key: as run_keys.run_key, so that changed parameters, inputs or code never go on from what is kept.
        packages: whose versions decide the bits of the work.
    """
    folder = work_folder(key)
    take_back(folder)
    with locked(folder / LOCK, f"another process works on the same ({folder}); waiting for it to end"):
        _keep_own(folder, describe_machine(packages))
        yield folder
        put_away(folder)


def _keep_own(folder: Path, machine: Mapping[str, str]) -> None:
    if (path := folder / MACHINE).exists():
        try:
            left = read_json(path)
        except ArtifactError as error:
            left = f"{error}"
        if left == machine:
            return
        names = [name for name in machine if not isinstance(left, dict) or left.get(name) != machine[name]]
        print(f"{folder}: what an interrupted run left is not gone on with: {', '.join(names)} differ", flush=True)
    for other in folder.iterdir():
        if other.is_dir() and not other.is_symlink():
            shutil.rmtree(other)
        elif other.name != LOCK:
            other.unlink()
    write_json(path, dict(machine))
