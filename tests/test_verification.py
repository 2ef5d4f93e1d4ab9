from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from tiny_project import TinyProject, new_project, tiny_values

from graft import verification
from graft.errors import GraftError

CONSTANT = "import pathlib; pathlib.Path('out').mkdir(); pathlib.Path('out/row.csv').write_text('a,b\\n1,2\\n')"
COUNTING = (  # each time another number
    "import pathlib, time; pathlib.Path('out').mkdir(); "
    "pathlib.Path('out/row.csv').write_text(f'a,b\\n1,{time.time_ns()}\\n')"
)


def begun(root: Path, stages: dict[str, Any]) -> TinyProject:
    """A pipeline that has not run."""
    root.mkdir(parents=True)
    project = TinyProject(root)
    project.git("init", "--quiet")
    Repo.init(str(root)).close()
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return project


def small_project(root: Path, code: str = CONSTANT, *deps: str) -> TinyProject:
    """A pipeline of one stage called compare that has run."""
    project = begun(root, {"compare": {"cmd": "python make.py", "deps": ["make.py", *deps], "outs": ["out"]}})
    (root / "make.py").write_text(code)
    project.dvc("repro", "--quiet")
    return project


@pytest.fixture(autouse=True)
def no_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small projects have no model card that names one."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(verification, "_other_machine", lambda root: ["threads 2, now 1"])


def test_a_pipeline_that_does_the_same_again_is_identical_and_leaves_nothing(tmp_path: Path) -> None:
    root = small_project(tmp_path / "a project, 'named' at will").root
    verified = verification.verify(root)
    assert verified.described() == "0 models, 1 files: identical"
    assert verified.workspace is None
    assert list((root / verification.FOLDER).iterdir()) == []


def test_the_first_difference_is_named_and_the_second_workspace_is_kept(tmp_path: Path) -> None:
    root = small_project(tmp_path / "project", COUNTING).root
    here = (root / "out/row.csv").read_text().split(",")[-1].strip()
    verified = verification.verify(root)
    assert verified.workspace is not None
    again = (verified.workspace / "out/row.csv").read_text().split(",")[-1].strip()
    assert verified.described().splitlines() == [
        f"out/row.csv: row 0, column b: '{here}' against '{again}' (here against once more)",
        "what is here was made with another threads 2, now 1",
        f"the second workspace is kept: {verified.workspace}",
    ]
    assert verified.workspace.is_relative_to(root / verification.FOLDER)


def test_the_second_run_takes_nothing_from_a_cache(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", COUNTING)
    project.dvc("config", "cache.dir", str(tmp_path / "shared cache"))
    (project.root / "out/row.csv").unlink()
    project.dvc("repro", "--quiet", "--force")  # is in the shared cache, and in the run-cache there
    assert len(verification.verify(project.root).differences) == 1


def test_the_workspace_stays_as_it_is(tmp_path: Path) -> None:
    root = small_project(tmp_path / "project", COUNTING).root

    def content() -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file() and not {".work", "tmp"} & set(path.parts[-9:]))
        return {str(path): path.read_bytes() for path in files}

    before = content()
    verification.verify(root)
    assert content() == before


def test_what_git_does_not_hold_yet_is_copied(tmp_path: Path) -> None:
    root = small_project(tmp_path / "project").root  # nothing was committed
    (root / ".gitignore").write_text("/secret\n/out\n/.work\n")
    (root / "secret").write_text("x")
    folder = tmp_path / "into"
    folder.mkdir()
    workspace = verification.copy_workspace(root, folder, {"compare": ["out"]})
    assert (workspace / "make.py").exists()
    assert not (workspace / "secret").exists()
    assert not (workspace / "out").exists()
    assert not (workspace / "dvc.lock").exists()


@pytest.mark.parametrize("place", ["absolute", "../photos"])
def test_images_outside_of_the_project_are_found(tmp_path: Path, place: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.txt").write_text("a picture")
    path = str(photos) if place == "absolute" else place
    code = f"import pathlib, shutil; shutil.copytree({path!r}, 'out')"
    root = small_project(tmp_path / "project", code, path).root
    verified = verification.verify(root, tmp_path / "elsewhere")
    assert verified.described() == "0 models, 1 files: identical"
    assert (photos / "a.txt").read_text() == "a picture"
    assert not (tmp_path / "elsewhere").exists()


def test_images_that_dvc_holds_are_found(tmp_path: Path) -> None:
    code = "import shutil; shutil.copytree('photos', 'out')"
    stage = {"cmd": "python make.py", "deps": ["make.py", "photos"], "outs": ["out"]}
    project = begun(tmp_path / "project", {"compare": stage})
    (project.root / "photos").mkdir()
    (project.root / "photos/a.txt").write_text("a picture")
    (project.root / "make.py").write_text(code)
    project.dvc("add", "photos", "--quiet")  # which Git ignores then
    project.dvc("repro", "--quiet")
    assert verification.verify(project.root).described() == "0 models, 1 files: identical"
    assert (project.root / "photos/a.txt").read_text() == "a picture"


def test_a_folder_of_results_is_never_linked_to(tmp_path: Path) -> None:
    stages = {
        "one": {"cmd": "true", "outs": ["out/deep"]},
        "compare": {"cmd": "true", "deps": ["out"], "outs": ["copy"]},
    }
    root = begun(tmp_path / "project", stages).root
    (root / "out/deep").mkdir(parents=True)
    workspace = verification.copy_workspace(root, tmp_path / "into", {"one": ["out/deep"], "compare": ["copy"]})
    assert not [path for path in workspace.rglob("*") if path.is_symlink()]


def test_an_unfinished_workspace_is_refused(tmp_path: Path) -> None:
    root = small_project(tmp_path / "project").root
    shutil.rmtree(root / "out")
    with pytest.raises(GraftError, match="must be finished, but out is not there; `dvc checkout` brings it"):
        verification.verify(root)
    (root / "make.py").write_text(CONSTANT + "  # edited")
    with pytest.raises(GraftError, match="must be finished, but `dvc repro` would run compare"):
        verification.verify(root)


def test_unknown_stages_and_folders_that_are_in_use_are_refused(tmp_path: Path) -> None:
    root = small_project(tmp_path / "project").root
    with pytest.raises(GraftError, match="stages must be among compare, received svm@none"):
        verification.verify(root, stages=["svm@none"])
    with pytest.raises(GraftError, match="must be an empty folder or absent"):
        verification.verify(root, root)


def test_a_second_run_that_fails_is_no_difference(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    code = f"{CONSTANT}; assert not pathlib.Path({str(absent)!r}).exists()"
    root = small_project(tmp_path / "project", code).root
    absent.touch()
    with pytest.raises(GraftError, match="the second run ended with 255, see above; its workspace is kept"):
        verification.verify(root)


def own_values(values: dict[str, Any]) -> dict[str, Any]:
    values = tiny_values(values)
    values["baselines"].pop("cnn")
    values["train"]["repeats"] = 1
    return values


@pytest.mark.slow
def test_the_whole_pipeline_run_once_more_is_identical(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project", own_values)
    project.dvc("repro", "--quiet")
    database = project.root / "mlflow.db"
    before = database.read_bytes()
    written = project.graft("verify")
    assert "verify: 1 models, " in written
    assert ": identical" in written
    assert database.read_bytes() == before
    predictions = project.root / "reports/runs/small/predictions.parquet"
    os.utime(predictions)  # is no change
    assert "identical" in project.graft("verify", "--stage", "baseline@small")
