"""One process at a time for each stage of a workspace, whichever `dvc repro` started it.

DVC's own lock ends with the `dvc` that holds it, while the stage that it started goes on: the next `dvc repro` would
remove that stage's outputs and start a second writer of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from graft.locks import locked

FOLDER = Path(".work/locks")  # of the working directory: an experiment in a copy has outputs of its own


def running_stage() -> str:
    """The name in dvc.yaml of the stage that this program is, also where it was started by hand."""
    rows = [argument for argument in sys.argv[1:2] if not argument.startswith("-")]
    return os.environ.get("DVC_STAGE") or "@".join([Path(sys.argv[0]).stem, *rows])


@contextmanager
def stage_lock(stage: str) -> Iterator[None]:
    """The only process of this stage in the working directory; waits, with a line that says for whom, where one runs.

    The system gives the lock up when the process and those forked from it have ended, however they end.

    Args:
        stage: of running_stage, such as finetune@vgg16.
    """
    path = (Path.cwd() / FOLDER / quote(stage, safe="@")).absolute()

    def waiting() -> str:
        with suppress(FileNotFoundError):  # it has ended just now
            return f"{stage}: process {path.read_text() or '?'} runs this stage here already; waiting for it to end"
        return f"{stage}: another process runs this stage here already; waiting for it to end"

    with locked(path, waiting):
        path.write_text(str(os.getpid()))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
