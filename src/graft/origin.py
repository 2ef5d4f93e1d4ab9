"""The state of the code and the DVC experiment in which a run starts."""

from __future__ import annotations

import os
import subprocess
from typing import Any

REWRITTEN = ("dvc.lock", "reports")  # by `dvc repro` itself, so their changes do not make a working tree dirty


def code_origin() -> dict[str, Any]:
    """Of the working directory, which is a git work tree in `dvc exp run --temp`, too.

    Returns:
        The git `commit` (None outside git), whether the working tree is `dirty` by more than REWRITTEN, and the name of
        the DVC `experiment` (or None).
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in REWRITTEN))),
        "experiment": os.environ.get("DVC_EXP_NAME"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
