"""Whether dvc.lock tells what the pipeline of this checkout gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from graft.errors import GraftError

LAST_RESULT = "compare"  # track, the last stage, always runs
_SKIPPED = re.compile(r"^Stage '(?P<stage>[^']+)' didn't change, skipping$", re.MULTILINE)
_STOPPED = re.compile(r"failed to reproduce '([^']+)'")
_RUNS = re.compile(r"^(?:Running|Running callback|Re-running) stage '(?P<stage>[^']+)'", re.MULTILINE)


def stale_stages(root: Path) -> list[str]:
    """The stages up to compare that `dvc repro` would run, by DVC's own dry run; outputs need not be there.

    Raises:
        GraftError: DVC gave no such list, for instance because there is no pipeline here.
    """
    arguments = ["repro", "--dry", "--allow-missing", LAST_RESULT]
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    stopped = _STOPPED.findall(result.stderr)  # at a stage that would run and whose inputs are not there
    if result.returncode and not stopped:
        raise GraftError(f"`dvc {' '.join(arguments)}` in {root} failed: {result.stderr.strip()}")
    return list(dict.fromkeys([*_RUNS.findall(result.stdout), *stopped])) if stopped else parse_dry_run(result.stdout)


def parse_dry_run(output: str) -> list[str]:
    """Stages that a dry run says would run, in order.

    Raises:
        GraftError: the text names no stage at all, so that nothing was checked.
    """
    stale = [match["stage"] for match in _RUNS.finditer(output)]
    if not stale and not _SKIPPED.search(output):
        raise GraftError(f"a dry run of dvc repro must name its stages, received {output.strip()!r}")
    return stale
