"""`graft report`: what a branch changed, from real revisions of a small Git and DVC repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from graft.reporting.changes import ChangesError, describe_changes
from graft.storage import write_json

BOARD = "reports/leaderboard.json"
IDENTITY = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
PARAMS: dict[str, Any] = {"seed": 1, "train": {"class_weights": "none"}, "svm": {"c": [0.1, 1]}}
STAGES = {
    "compare": {
        "cmd": "true",
        "params": ["seed"],
        "metrics": [{f"reports/metrics/{split}": {"cache": False}} for split in ("validation", "test")],
    }
}


def git(root: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=root, text=True, env=os.environ | IDENTITY).strip()


def commit(root: Path) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "another")
    return git(root, "rev-parse", "HEAD")


def write_models(root: Path, *, test: bool = True, n: int = 200, **accuracies: float) -> None:
    """Metrics and leaderboard of models, the first being the champion; test accuracy is half a point lower."""
    for split in ("validation", "test"):
        for path in (root / "reports" / "metrics" / split).glob("*.json"):
            path.unlink()
    board = []
    for name, accuracy in accuracies.items():
        row: dict[str, Any] = {"model": name, "champion": not board, "n_validation": n, "n_test": n if test else 0}
        for split, prefix, value in (("validation", "val", accuracy), ("test", "test", accuracy - 0.005)):
            shown = test or prefix == "val"
            values = {f"{prefix}_accuracy": value, f"{prefix}_macro_f1": value, f"{prefix}_log_loss": 1 - value}
            write_json(root / f"reports/metrics/{split}/{name}.json", values if shown else {})
            ends = {f"{prefix}_accuracy_low": value - 0.02, f"{prefix}_accuracy_high": value + 0.02}
            row |= {key: number if shown else None for key, number in (values | ends).items()}
        board.append(row)
    write_json(root / BOARD, board)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On branch main, one revision with two models, cnn leading with 90 % on validation."""
    root = tmp_path_factory.mktemp("changes")
    git(root, "init", "-q", "-b", "main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    write_models(root, cnn=0.9, vgg16=0.85)
    commit(root)
    return root


@pytest.fixture
def project(repository: Path) -> Path:
    """The working tree as it was committed."""
    git(repository, "checkout", "-q", "main", "--", ".")
    git(repository, "clean", "-qfd")
    return repository


def test_nothing_changed(project: Path) -> None:
    head = git(project, "rev-parse", "--short=7", "main")
    assert describe_changes("main", project, BOARD).splitlines() == [
        f"## Changes against main ({head})",
        "",
        "Champion: **cnn**, as before. Validation accuracy 90.0 %; test accuracy 89.5 %.",
        "",
        "Nothing changed: metrics and parameters are as they were.",
    ]


def test_a_new_champion_its_metrics_and_the_params_behind_it(project: Path) -> None:
    write_models(project, vgg16=0.95, cnn=0.9)
    params = PARAMS | {"svm": {"c": [0.1, 10]}, "train": {}, "new": "a|b"}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    lines = describe_changes("main", project, BOARD).splitlines()
    assert lines[2] == (
        "Champion: **vgg16**, in place of cnn. "
        "Validation accuracy 90.0 % → 95.0 %, +5.0 points (beyond the intervals); "
        "test accuracy 89.5 % → 94.5 %, +5.0 points (beyond the intervals)."
    )
    assert lines[6:14] == [
        "| model | metric              | change is            |    old |    new |       change |",
        "| ----- | ------------------- | -------------------- | -----: | -----: | -----------: |",
        "| vgg16 | validation accuracy | beyond the intervals | 85.0 % | 95.0 % | +10.0 points |",
        "| vgg16 | validation macro-F1 |                      |  0.850 |  0.950 |       +0.100 |",
        "| vgg16 | validation log loss |                      |  0.150 |  0.050 |       −0.100 |",
        "| vgg16 | test accuracy       | beyond the intervals | 84.5 % | 94.5 % | +10.0 points |",
        "| vgg16 | test macro-F1       |                      |  0.845 |  0.945 |       +0.100 |",
        "| vgg16 | test log loss       |                      |  0.155 |  0.055 |       −0.100 |",
    ]
    assert lines[15:] == [
        "### Parameters",
        "",
        "| parameter           | old      | new       |",
        "| ------------------- | -------- | --------- |",
        r"| new                 | –        | a\|b      |",
        "| svm.c               | [0.1, 1] | [0.1, 10] |",
        "| train.class_weights | none     | –         |",
    ]


def test_a_small_change_lies_within_the_intervals(project: Path) -> None:
    write_models(project, cnn=0.915, vgg16=0.85)
    report = describe_changes("main", project, BOARD)
    assert "Validation accuracy 90.0 % → 91.5 %, +1.5 points (within the intervals)" in report
    assert "| cnn   | test accuracy       | within the intervals |" in report
    assert "| vgg16" not in report
    assert report.endswith("### Parameters\n\nNo parameter changed.\n")


def test_figures_of_other_images_are_not_compared_with_intervals(project: Path) -> None:
    write_models(project, n=300, cnn=0.915, vgg16=0.85)
    assert "+1.5 points (measured on other images)" in describe_changes("main", project, BOARD)


def test_models_that_came_and_went_are_named_with_their_accuracies(project: Path) -> None:
    write_models(project, cnn=0.9, resnet50=0.8)
    lines = describe_changes("main", project, BOARD).splitlines()
    assert lines[4:9] == [
        "### Metrics",
        "",
        "New: resnet50 (validation 80.0 %, test 79.5 %).",
        "",
        "Removed: vgg16 (validation 85.0 %, test 84.5 %).",
    ]


def test_a_leaderboard_without_a_test_split(project: Path) -> None:
    write_models(project, test=False, cnn=0.9)
    git(project, "checkout", "-q", "-b", "untested")
    commit(project)
    write_models(project, test=False, cnn=0.95)
    report = describe_changes("untested", project, BOARD)
    git(project, "checkout", "-qf", "main")
    assert "Champion: **cnn**, as before. Validation accuracy 90.0 % → 95.0 %" in report
    assert "test accuracy" not in report


def test_a_revision_from_before_there_was_a_leaderboard(project: Path) -> None:
    git(project, "checkout", "-q", "-b", "bare")
    git(project, "rm", "-q", "-r", "reports")
    commit(project)
    write_models(project, cnn=0.9)
    report = describe_changes("bare", project, BOARD)
    git(project, "checkout", "-qf", "main")
    assert (
        "Champion: **cnn**, with 90.0 % validation accuracy and 89.5 % test accuracy. There was none before." in report
    )
    assert "New: cnn (validation 90.0 %, test 89.5 %)." in report


def test_a_base_that_is_no_revision_is_refused(project: Path) -> None:
    for base in ("trunk", "--all", ""):
        with pytest.raises(ChangesError, match=f"Git has no revision '{base}' here; name a branch, tag or commit"):
            describe_changes(base, project, BOARD)


def test_outside_of_git_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(ChangesError, match="is in no Git repository, so there is no revision to compare with"):
        describe_changes("main", tmp_path, BOARD)


def test_a_project_without_metrics_or_with_a_broken_pipeline_is_told_so(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(ChangesError, match="neither main nor the working tree has metrics: `dvc repro` makes them"):
        describe_changes("main", tmp_path, BOARD)
    (tmp_path / "dvc.yaml").write_text("stages: [")
    with pytest.raises(ChangesError, match=r"`dvc metrics diff --all --json \w+` in .* failed: .*failed to load"):
        describe_changes("main", tmp_path, BOARD)


def test_half_a_run_is_not_told_as_removed_models(project: Path) -> None:
    shutil.rmtree(project / "reports" / "metrics" / "test")  # as while compare runs
    with pytest.raises(ChangesError, match=r"failed to load some metrics for following revisions: 'workspace'"):
        describe_changes("main", project, BOARD)
    git(project, "checkout", "-q", "main", "--", ".")
    (project / "reports" / "metrics" / "test" / "cnn.json").write_text("{}")
    report = describe_changes("main", project, BOARD)
    assert "| cnn   | test accuracy |" in report
    assert "Removed" not in report


def test_a_leaderboard_with_conflict_markers_is_named(project: Path) -> None:
    (project / BOARD).write_text("<<<<<<< HEAD\n[]\n=======\n[]\n>>>>>>> other\n")
    with pytest.raises(ChangesError, match=r"leaderboard.json must be a list of models, as `dvc repro` writes it"):
        describe_changes("main", project, BOARD)


def test_a_metric_of_one_side_alone_is_not_judged(project: Path) -> None:
    write_json(project / "reports/metrics/test/cnn.json", {})
    lines = describe_changes("main", project, BOARD).splitlines()
    assert "| cnn   | test accuracy |           | 89.5 % |   – |      – |" in lines


def test_the_command_prints_the_report_or_one_message(project: Path) -> None:
    def graft(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "graft.cli", "report", *arguments]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    done = graft()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## Changes against main (")
    done = graft("--base", "trunk")
    assert done.returncode == 1
    assert done.stderr.startswith("graft: Git has no revision 'trunk' here")


def test_what_a_file_is_called_cannot_break_the_table() -> None:
    from graft.reporting.markdown import escaped, table

    assert escaped("a|b *c* _d_ conv_pw_11 <br>\n[x](y) [1, 2]") == (
        r"a\|b \*c\* \_d\_ conv_pw_11 \<br> [x\](y) [1, 2]"
    )
    assert table(["name", "n"], [["a|b", "7"]]).splitlines() == ["| name |   n |", "| ---- | --: |", r"| a\|b |   7 |"]
    assert json.dumps(table(["a"], [])) == json.dumps("| a   |\n| --- |")
