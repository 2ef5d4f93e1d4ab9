"""The key by which a run is known before it starts, and where its unfinished work lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_key(stage: str, root: Path) -> str:
    """The identity of the run that a stage of dvc.yaml would be now: a hash of its command, parameters and inputs.

    It is the same before the stage starts, while it runs and, by lock_key, afterwards. Inputs are hashed through DVC's
    own cache of hashes; nothing is written and no lock is taken, so it may be called from inside `dvc repro`.

    Args:
        stage: as in the environment's DVC_STAGE, such as finetune@vgg16.
        root: the folder of dvc.yaml; in `dvc exp run --temp` the working directory, not DVC_ROOT.
    """
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    with Repo(str(root)) as repo:
        loaded = repo.stage.load_one(str(root / "dvc.yaml"), stage)
        loaded.save_deps()  # in memory: hashes the inputs and reads the parameters
        return lock_key(to_single_stage_lockfile(loaded))


def lock_key(entry: Mapping[str, Any]) -> str:
    """run_key of a stage's entry in dvc.lock."""
    identity = {
        "cmd": entry["cmd"],
        "deps": {dep["path"]: dep["md5"] for dep in entry.get("deps", [])},
        "params": entry.get("params", {}),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def project_root() -> Path:
    """Where stores and unfinished work lie: the original repository, also for an experiment that runs in a copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def work_folder(key: str) -> Path:
    """The folder of an unfinished run; outside the outputs, which DVC deletes before a rerun."""
    return project_root() / ".work" / key
