from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

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
    assert "24 images" in told
    assert "9 models" in told


def test_sizes_and_batches_follow_the_images(image_folder: Path, repository: Path) -> None:
    """Tiny grey images: nothing is blown up to 224 px, and a character is not mirrored."""
    for path in image_folder.glob("*/*.png"):
        Image.open(path).convert("L").resize((28, 28)).save(path)
    told = write_params(image_folder, repository / "params.yaml")
    params = load_params(repository / "params.yaml")
    assert params.data.image_size == 32
    assert params.data.resize == "stretch"
    assert params.data.split == "stratified"
    assert not params.augment.horizontal_flip
    assert {name: row.base.input_size for name, row in params.backbones.items()} == {
        "vgg16": 96, "resnet50": 96, "inceptionv3": 151, "mobilenet": 96,
    }  # fmt: skip
    assert {row.finetune.batch_size for row in params.backbones.values()} == {16}
    assert "28x28 px in the median" in told


def test_large_photos_get_the_size_that_the_bases_know(image_folder: Path, repository: Path) -> None:
    for path in image_folder.glob("*/*.png"):
        Image.open(path).resize((500, 375)).save(path)
    write_params(image_folder, repository / "params.yaml")
    params = load_params(repository / "params.yaml")
    assert (params.data.image_size, params.data.resize) == (224, "crop")
    assert {row.base.input_size for row in params.backbones.values()} == {224, 299}
    assert params.augment.horizontal_flip


def test_a_rare_class_is_weighted_and_the_folds_fit_it(image_folder: Path, repository: Path) -> None:
    for path in sorted((image_folder / "bees").iterdir())[4:]:
        path.unlink()
    told = write_params(image_folder, repository / "params.yaml")
    params = load_params(repository / "params.yaml")
    assert params.train.class_weights == "balanced"
    assert {row.svm.folds for row in params.backbones.values()} == {2}
    assert "largest class has 2.0 times the images of the smallest: class_weights balanced" in told


def test_a_source_with_splits_keeps_them(image_folder: Path, repository: Path) -> None:
    for name in ("train", "val"):
        shutil.copytree(image_folder, image_folder.parent / "split" / name)
    told = write_params(image_folder.parent / "split", repository / "params.yaml")
    assert load_params(repository / "params.yaml").data.split == "predefined"
    assert "its own splits: train 24, validation 24" in told


@pytest.mark.parametrize(("groups", "split"), [(3, "group"), (2, "stratified")])
def test_groups_are_drawn_only_where_there_are_enough(
    image_folder: Path, repository: Path, groups: int, split: str
) -> None:
    files = sorted(path.relative_to(image_folder).as_posix() for path in image_folder.glob("*/*.png"))
    rows = ["path,label,patient", *(f"{f},{f.split('/')[0]},{f[0]}{n % groups}" for n, f in enumerate(files))]
    (image_folder / "labels.csv").write_text("\n".join(rows))
    told = write_params(image_folder / "labels.csv", repository / "params.yaml")
    assert load_params(repository / "params.yaml").data.split == split
    assert f"groups that it names: {3 * groups}" in told
    assert ("too few" in told) == (split == "stratified")


@pytest.mark.parametrize(("weights", "width"), [("imagenet", 1), ("random", 0.25), ("source", 0.25)])
def test_weights_are_chosen_for_every_base(image_folder: Path, repository: Path, weights: str, width: float) -> None:
    write_params(image_folder, repository / "params.yaml", weights=weights)
    rows = load_params(repository / "params.yaml").backbones.values()
    assert {(row.base.weights, row.base.width) for row in rows} == {(weights, width)}
    with pytest.raises(GraftError, match="WEIGHTS must be imagenet, source or random, received 'cifar'"):
        write_params(image_folder, repository / "params.yaml", weights="cifar", force=True)


def test_odd_names_of_classes_and_folders_make_valid_yaml(image_folder: Path, repository: Path) -> None:
    odd = image_folder.rename(image_folder.parent / 'my "photos": {é} #1')
    (odd / "ants").rename(odd / "ants: [red] # é")
    write_params(odd, repository / "params.yaml")
    assert load_params(repository / "params.yaml").data.path == odd.resolve()


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
