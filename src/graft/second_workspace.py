"""DVC in a second workspace: apart from the project's caches, settings and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def environment(workspace: Path) -> dict[str, str]:
    """Of a command in a workspace that copy_workspace has made: this process's Python, and nothing else of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "PYTHONPATH"))}
    return own | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(workspace / ".dvc" / "tmp" / "site"),
        "GIT_CEILING_DIRECTORIES": str(workspace.parent),  # else Git would say that all of it is ignored
        "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def reproduce(workspace: Path, arguments: Sequence[str]) -> int:
    """Run `dvc repro` there; returns how it ended."""
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    return subprocess.run(command, cwd=workspace, env=environment(workspace), check=False).returncode
