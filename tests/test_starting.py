from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from graft.errors import GraftError
from graft.params import load_params
from graft.starting import write_params


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with a committed params.yaml."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "params.yaml").write_text("old: 1\n")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_params_for_photos_are_valid_and_name_the_folder_absolutely(image_folder: Path, repository: Path) -> None:
    told = write_params(image_folder, repository / "params.yaml")
    params = load_params(repository / "params.yaml")
    assert params.data.path == image_folder.resolve()
    assert params.data.path.is_absolute()
    assert {row.base.weights for row in params.backbones.values()} == {"imagenet"}
    assert {row.base.width for row in params.backbones.values()} == {1}
    assert params.data.image_size == 224
    assert "24 images" in told
    assert "9 models" in told


def test_uncommitted_changes_are_never_overwritten_unasked(image_folder: Path, repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text("mine: 1\n")
    with pytest.raises(GraftError, match="has changes that Git does not hold"):
        write_params(image_folder, path)
    assert path.read_text() == "mine: 1\n"
    write_params(image_folder, path, force=True)
    assert load_params(path).seed == 1


def test_a_folder_that_cannot_be_used_leaves_params_alone(repository: Path) -> None:
    with pytest.raises(GraftError, match="does not exist"):
        write_params(repository / "none", repository / "params.yaml")
    assert (repository / "params.yaml").read_text() == "old: 1\n"
