"""Trainings in processes of their own that are interrupted where a test wants it; they start at once, by a fork.

Run as a script it imports everything once, and then forks for each line of its standard input; so it must have no
threads. What trains is an imitation of a network, or a real SVM, under runs.train_and_write.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from graft.checkpoints import Checkpoints
    from graft.runs import Training

REPEATS, EPOCHS = 3, 4
OUTPUTS = ("model", "run", "metrics.json", "history.csv")


class Forks:
    """The script, from outside; left, all its trainings are gone."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, workspace: Path, kind: str, **environment: str) -> int:
        """Begin a training.

        Args:
            workspace: its working directory, in which the outputs come to lie, and what it prints in log.txt.
            kind: baseline or svm.
            environment: variables such as GRAFT_FAULT, and PAUSE, the seconds that a baseline sleeps after its first
                epoch; without DVC_ROOT the workspace is that, too.
        """
        pid = int(self._asked(workspace=str(workspace), kind=kind, environment=environment))
        self._running.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit status of a training, as of subprocess."""
        self._running.discard(pid)
        return int(self._asked(wait=pid))

    def run(self, workspace: Path, kind: str, **environment: str) -> int:
        """start and wait."""
        return self.wait(self.start(workspace, kind, **environment))

    def _asked(self, **request: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        self._process.communicate()


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif not (answer := os.fork()):
            _child(**request)
        print(answer, flush=True)


def _child(workspace: str, kind: str, environment: dict[str, str]) -> None:
    """Train and end."""
    from graft import faults

    status = 1
    try:
        os.chdir(workspace)
        for descriptor in (1, 2):
            os.dup2(os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os.environ.update({"DVC_ROOT": workspace, **environment})
        faults._FAULTS = faults.Faults(os.environ)
        _train(kind)
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _train(kind: str) -> None:
    from test_runs import MANIFEST, params

    from graft.runs import RunIdentity, RunPaths, train_and_write

    identity = RunIdentity("k1", "vgg16", kind, "vgg16", f"{kind}@vgg16", {"seed": 1})
    model, run, metrics, history = map(Path, OUTPUTS)
    paths = RunPaths(model, run, metrics, history if kind == "baseline" else None)
    fit = imitation if kind == "baseline" else searched
    settings = params(repeats=REPEATS)
    train_and_write(fit, paths, identity, manifest=MANIFEST, params=settings, machine={"processor": "of the tests"})


def imitation(
    seed: int, publish: Callable[..., None], checkpoints: Checkpoints
) -> tuple[Training, Callable[[Path], None]]:
    """Two phases of EPOCHS, in which each epoch depends on all before it; every second one is kept."""
    import numpy as np

    from graft.runs import Training

    weights, history, seconds = np.full(3, float(seed)), list[dict[str, Any]](), {}
    for phase in ("frozen", "unfrozen"):
        place = checkpoints.phase(phase)
        records = list[dict[str, Any]]()
        if saved := place.load():
            (weights,), records = saved.arrays, saved.facts["history"]
        for record in records:
            publish(record["epoch"], phase, _metrics(record))
        first = len(history) + 1
        for epoch in range(first + len(records), first + EPOCHS):
            weights = np.sin(weights * 10 + np.random.default_rng((seed, epoch)).normal(size=3))
            loss = float(weights @ weights)
            numbers = {"loss": loss, "accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5, "learning_rate": 0.1}
            records.append({"epoch": epoch, "phase": phase, **numbers})
            publish(epoch, phase, numbers)
            if epoch == 1:
                time.sleep(float(os.environ.get("PAUSE", "0")))
            if epoch % 2 == 0:
                place.save(_saved(weights, records))
        history += records
        seconds[phase] = place.seconds
    chances = np.tile(weights.astype("float32") ** 2 + 0.1, 3)[:8].reshape(4, 2)
    candidate = {"name": "head-01", "phase": "frozen", "params": {"rate": 0.1}, "history": history, "chosen": True}
    training = Training(chances / chances.sum(axis=1, keepdims=True), 7, seconds, history, [candidate])
    return training, lambda folder: np.save(folder / "weights.npy", weights)


def _metrics(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("epoch", "phase")}


def _saved(weights: Any, records: list[dict[str, Any]]) -> Any:
    from graft.checkpoints import Saved

    return Saved([weights], {"history": records})


def searched(
    seed: int, publish: Callable[..., None], checkpoints: Checkpoints
) -> tuple[Training, Callable[[Path], None]]:
    """An SVM on two overlapping clouds."""
    import numpy as np

    from graft.runs import Training
    from graft.sections import Svm
    from graft.svm import fit_svm, save_svm

    random, labels = np.random.default_rng(0), np.arange(60) % 2
    features = random.normal(size=(60, 4)) + np.eye(2, 4)[labels]
    values = {"kernels": ["rbf", "linear"], "c": [0.1, 10.0], "folds": 3, "max_rows": 500}
    settings = Svm.model_validate(values | {"approximation": "linear", "components": 20})
    search = checkpoints.phase("search")
    machine = fit_svm(features, labels, np.arange(60), settings, seed, "none", search)
    chances = machine.model.predict_proba(features[:4]).astype("float32")
    training = Training(chances, 7, {"search": search.seconds}, tables={"search.csv": machine.search})
    return training, partial(_save_machine, machine.model, save_svm)


def _save_machine(model: Any, save: Callable[[Path, Any], None], folder: Path) -> None:
    save(folder / "svm.skops", model)


if __name__ == "__main__":
    import test_runs  # noqa: F401  # and with it nearly all that a training imports

    import graft.journal
    import graft.resources
    import graft.svm
    import graft.system_metrics  # noqa: F401

    _serve()
