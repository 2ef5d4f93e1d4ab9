"""A real project of two small networks that a real `dvc repro` runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graft.journal import JournalRecord, read_journal

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = (".dvc", ".dvcignore", ".gitignore", "data", "dvc.yaml", "params.yaml", "src")
MODELS = ("cnn", "small")
EPOCHS, PATIENCE = "baselines.small.train.epochs", "baselines.small.train.patience"  # params to change
IDENTITY = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
CLOSED = "http://127.0.0.1:9"  # the discard service, which nobody runs
VGG16 = """
base: {application: VGG16, input_size: 32, width: 0.25, weights: source, depends_on: data/embedded.md}
pretrain:
  {epochs: 3, learning_rate: 2.0e-3, batch_size: 16, patience: 3, optimizer: adamw, weight_decay: 1.0e-4,
   schedule: cosine, label_smoothing: 0.0}
features: {pooling: flatten, frozen_until: [block5_conv2, block5_conv1], svm_layers: [top],
  svm_pooling: avg, batch_size: 64}
finetune:
  {epochs: 3, learning_rate: 3.0e-3, unfrozen_epochs: 3, unfrozen_learning_rate: 1.0e-3, patience: 2,
   batch_size: 32, optimizer: adamw, weight_decay: 1.0e-4, schedule: constant, label_smoothing: 0.0, dropout: 0.3,
   hidden_units: 0, train_batch_normalization: false,
   heads: {learning_rate: [3.0e-3, 1.0e-2], dropout: [0.3], hidden_units: [0]},
   tails: {unfrozen_learning_rate: [1.0e-3], batch_size: [16, 32], halving: 2}}
svm: {kernels: [rbf], c: [1, 10], folds: 2, max_rows: 5000, approximation: nystroem, components: 1000}
"""
LONGEST = 300  # seconds for one command on a loaded machine


@dataclass(frozen=True)
class TinyProject:
    """A checkout of its own.

    Attributes:
        root: its folder.
        settings: environment variables of its commands; without an address it is tracked in its own database.
    """

    root: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def told(self, uri: str, **settings: str) -> TinyProject:
        """The same project with a tracking server, and what else of MLflow's variables its commands are to see."""
        return TinyProject(self.root, {"MLFLOW_TRACKING_URI": uri, **settings})

    @property
    def store(self) -> str:
        """The project's own database."""
        return f"sqlite:///{self.root.resolve() / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """Of its commands: nothing of this process's DVC and MLflow, and the project's own code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        own = {"PYTHONPATH": str(self.root / "src"), "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site")}
        return {**kept, **IDENTITY, **own, "DVC_NO_ANALYTICS": "1", **self.settings}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command of Python's modules, such as dvc, in a process group of its own; its output is one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[str], *, well: bool = True) -> str:
        """Wait for a started command; returns what it wrote."""
        try:
            output, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = f"no end in {LONGEST} s: {process.communicate()[0]}"
        assert not well or process.returncode == 0, output
        return output

    def dvc(self, *arguments: str) -> str:
        """Run DVC to its good end; returns what it wrote."""
        return self.end(self.start("dvc", *arguments))

    def run_queue(self, tasks: int, jobs: int) -> None:
        """Run the queued experiments to their good end, several at once.

        `dvc exp run --run-all` would wait for its workers, of which one at times misses that it shall end.
        """
        self.dvc("queue", "start", "--jobs", str(jobs))
        deadline = time.monotonic() + LONGEST
        try:
            while (status := self.dvc("queue", "status")).count("Success") < tasks:
                assert "Failed" not in status, status
                assert time.monotonic() < deadline, status
                time.sleep(2)
        finally:
            for file in (self.root / ".dvc/tmp/exps/celery").glob("*worker*.json"):
                with suppress(ProcessLookupError):
                    os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)

    def graft(self, *arguments: str) -> str:
        """Run the `graft` command to its good end; returns what it wrote."""
        return self.end(self.start("graft.cli", *arguments))

    def git(self, *arguments: str) -> None:
        """Run Git."""
        subprocess.run(["git", *arguments], cwd=self.root, check=True, env=self.environment(), capture_output=True)

    def change(self, path: str, value: Any) -> None:
        """Set a value of params.yaml."""
        file = self.root / "params.yaml"
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        *parents, last = path.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def journal(self, model: str) -> JournalRecord:
        """Of the model as it lies in the working folder."""
        return read_journal(self.root / "reports" / "runs" / model / "journal.jsonl")

    def journals(self) -> list[JournalRecord]:
        """Of all models in the working folder."""
        return [self.journal(model) for model in MODELS]


def new_project(root: Path, cut: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> TinyProject:
    """The checkout's pipeline as it is now, committed or not, with params for seconds instead of minutes.

    Args:
        root: its folder.
        cut: makes the params from the committed ones; by default tiny_values.
    """
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PARTS], cwd=CHECKOUT, text=True
    )
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).exists():  # a file that was deleted is listed until that is committed
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name)
    file = root / "params.yaml"
    values = (cut or tiny_values)(yaml.safe_load(file.read_text(encoding="utf-8")))
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    project = TinyProject(root)
    project.git("init", "--quiet", "--initial-branch=main")
    commit(project)
    return project


def tiny_values(values: dict[str, Any]) -> dict[str, Any]:
    """The committed params.yaml cut down to two networks of one convolution, each trained twice."""
    values["data"]["train_per_class"] = 5
    values["augment"]["views"] = 2
    values["train"]["repeats"] = 2
    values["backbones"] = {}
    values["baselines"] = {
        name: _network(values["baselines"]["cnn"], filters) for name, filters in zip(MODELS, (8, 4), strict=True)
    }
    values["inspect"] |= {"images": 1, "occlusion_stride": 16, "repeats": 5}
    values["curve"] |= {"backbones": [], "baselines": []}
    values["compare"]["resamples"] = 100
    return values


def every_kind_of_stage(values: dict[str, Any]) -> dict[str, Any]:
    """The committed params.yaml cut down to a network and a base that is pretrained, searched over and fine-tuned."""
    values = tiny_values(values)
    values["pretrain"] |= {"images_per_class": 4, "validation": 0.25}
    values["backbones"] = {"vgg16": yaml.safe_load(VGG16)}
    values["baselines"].pop("cnn")
    values["augment"]["views"] = 3
    values["transferability"] |= {"folds": 2, "max_points": 100}
    return values


def _network(row: dict[str, Any], filters: int) -> dict[str, Any]:
    layers: list[dict[str, Any]] = [
        {"Rescaling": {"scale": 1 / 255}},
        {"Conv2D": {"filters": filters, "kernel_size": 3, "strides": 2, "activation": "relu"}},
        {"Flatten": {}},
    ]
    return row | {"input_size": 16, "channels": 1, "layers": layers, "train": row["train"] | {"epochs": 3}}


def commit(project: TinyProject) -> None:
    """Everything that Git does not ignore."""
    project.git("add", "--all")
    project.git("commit", "--quiet", "--allow-empty", "--message", "a state")


def finished_project(base: Path, root: Path) -> tuple[TinyProject, str]:
    """A project that ran to its end while no tracking server answered, and what `dvc repro` wrote.

    Args:
        base: of the test session; the project runs there once and is copied, which MLflow's absolute paths would forbid
            had it been told of the runs.
        root: of the copy.
    """
    source, output = base / "finished" / "project", base / "finished" / "output.txt"
    if not output.exists():
        project = new_project(source)
        output.write_text(project.told(CLOSED).dvc("repro"), encoding="utf-8")
        commit(project)
    shutil.copytree(source, root, symlinks=True)
    return TinyProject(root), output.read_text(encoding="utf-8")
