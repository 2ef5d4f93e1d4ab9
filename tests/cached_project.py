"""A project of fake_tracked whose files are in the cache of a real DVC project, as after `dvc repro`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import fake_tracked as fake
import yaml
from dvc.repo import Repo

from graft.params import Params

TRACK = (
    "PYTHONPATH=src python -m graft.stages.track --runs reports/runs --models models "
    "--leaderboard reports/leaderboard.json --figures reports/figures --report reports/index.html "
    "--prepared data/prepared --data-report reports/data --lock dvc.lock"
)
COMPARED = ("reports/figures", "reports/index.html")
GONE = ".gone"
PREPARED = ("data/prepared", "reports/data")


def finish(root: Path, params: Params, champion: str) -> None:
    """A new project with all models trained, compared and in the cache."""
    Repo.init(str(root), no_scm=True).close()
    fake.finished_project(root, params, champion)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"track": {"cmd": TRACK}}}))
    keep(root, params)


def keep(root: Path, params: Params) -> None:
    """Put what lies in the working directory into the cache and its hashes into dvc.lock; write params.yaml."""
    (root / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    for name in params.models():
        journal = (root / "reports" / "runs" / name / "journal.jsonl").read_text()
        (root / "models" / name / "weights").write_text(journal.splitlines()[0])  # no two trainings give the same
    models = [*(f"models/{name}" for name in params.models()), *(f"models/source/{name}" for name in params.backbones)]
    outputs = [*PREPARED, *COMPARED, *models, *(f"reports/runs/{name}" for name in params.models())]
    with Repo(str(root)) as repo, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what DVC calls
        repo.add([str(root / path) for path in outputs])
    md5s = {path: yaml.safe_load((root / f"{path}.dvc").read_text())["outs"][0]["md5"] for path in outputs}
    for path in outputs:
        (root / f"{path}.dvc").unlink()
    lock = json.loads((root / "dvc.lock").read_text())
    for name, kind in params.models().items():
        row = name.removesuffix("-svm")
        inputs = ["data/prepared", *([f"models/source/{row}"] if kind == "svm" else [])]
        lock["stages"][f"{kind}@{row}"] |= {
            "deps": _entries(md5s, inputs),
            "outs": _entries(md5s, [f"models/{name}", f"reports/runs/{name}"]),
        }
    for stage, paths in (("prepare", PREPARED), ("compare", COMPARED)):
        lock["stages"][stage] = {"cmd": f"python -m graft.stages.{stage}", "outs": _entries(md5s, paths)}
    (root / "dvc.lock").write_text(json.dumps(lock))


def _entries(md5s: dict[str, str], paths: tuple[str, ...] | list[str]) -> list[dict[str, str]]:
    return [{"path": path, "md5": md5s[path]} for path in paths]


def forget(root: Path, path: str) -> None:
    """Take an output of dvc.lock out of the cache, as `dvc gc` does."""
    stages = json.loads((root / "dvc.lock").read_text())["stages"].values()
    md5 = next(out["md5"] for stage in stages for out in stage.get("outs", []) if out["path"] == path)
    cached = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.rename(cached.with_name(f"{cached.name}{GONE}"))


def remember(root: Path) -> None:
    """Put back what was taken out of the cache, as `dvc pull` does."""
    for path in (root / ".dvc" / "cache").rglob(f"*{GONE}"):
        path.rename(path.with_name(path.name.removesuffix(GONE)))
