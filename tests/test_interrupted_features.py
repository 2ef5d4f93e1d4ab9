"""Activations whose computing was interrupted in every way end as the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from interrupted import contents, ends
from test_features import CUT, Workshop

from graft import spaces
from graft.feature_sets import TOP
from graft.features import Extraction
from graft.stages.features import _opened
from graft.store import FeatureStore

DISTINCT = 29  # views of twelve training and five validation images
# How an extraction ends: five views more in a segment of CUT, in one of TOP, and so on; then all of them in shards.
FAULTS = {  # with the exit status, and the views that are in the store at both points
    "write segment#3:kill": (-signal.SIGKILL, 5),
    "rename segment rows#4:kill": (-signal.SIGKILL, 5),
    "rename segment keys#6:kill": (-signal.SIGKILL, 15),
    "rename segment keys#4:term": (128 + signal.SIGTERM, 10),
    "write segment#5:int": (128 + signal.SIGINT, 10),
    "write segment#3:enospc": (1, 5),
    "rename segment rows#3:oom": (1, 5),
    "rename top.json#1:kill": (-signal.SIGKILL, DISTINCT),
}


def extract(workshop: Workshop, store: FeatureStore, name: str) -> Extraction:
    """Both points, in batches of five, of which each is a segment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "SEGMENT_SECONDS", 0.0)
        return workshop.extract(name, [CUT, TOP], store=store)[1]


def begin(folder: Path) -> None:
    """Extract with a store in a folder."""
    extract(Workshop(folder), FeatureStore(folder / "store", 10**9), "first")


def interrupt(folder: Path) -> None:
    """Extract once for each fault, in a fork of this process that meets it; for a process of its own."""
    for number, fault in enumerate(FAULTS):
        work = partial(begin, folder / str(number))
        print(fault, ends(work, {"GRAFT_FAULT": fault}), flush=True)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store for each fault, in their order."""
    folder = tmp_path_factory.mktemp("interrupted")
    code = "import sys; from pathlib import Path; from test_interrupted_features import *; interrupt(Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parent,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert run.stdout.splitlines() == [f"{fault} {status}" for fault, (status, _) in FAULTS.items()], run.stderr
    return folder


@pytest.mark.slow
def test_a_store_gives_what_was_computed_before_the_interrupt_and_the_rest_is_computed(
    interrupted: Path, tmp_path: Path
) -> None:
    workshop = Workshop(tmp_path)
    extract(workshop, FeatureStore(tmp_path / "calm", 10**9), "undisturbed")
    for number, (fault, (_, kept)) in enumerate(FAULTS.items()):
        done = extract(workshop, FeatureStore(interrupted / str(number) / "store", 10**9), fault)
        assert done.reused == kept, fault
        assert done.reused + done.computed == DISTINCT
        assert contents(tmp_path / fault) == contents(tmp_path / "undisturbed"), fault


def test_what_an_interrupt_leaves_is_kept_also_where_the_store_is_full_or_may_hold_nothing(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    def interrupted(max_gb: float, work: Path | None) -> None:
        with _opened(tmp_path / "store", max_gb, work) as store:
            extract(workshop, store, "first")
            raise KeyboardInterrupt

    for max_gb, work in ((1e-9, None), (0, tmp_path / "work")):
        with pytest.raises(KeyboardInterrupt):
            interrupted(max_gb, work)
        with _opened(tmp_path / "store", max_gb, work) as store:
            assert extract(workshop, store, "second").computed == 0
        assert not FeatureStore(tmp_path / "store", 0).spaces()
