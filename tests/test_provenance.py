"""What a comparison tells of its own making."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import fake_tracked as fake
import pytest
import yaml
from fake_runs import fake_params

from graft.provenance import read_provenance
from graft.storage import ArtifactError

LOCK = {
    "stages": {
        "prepare": {
            "deps": [
                {"path": "photos", "md5": "1" * 32 + ".dir"},
                {"path": "src/graft/images.py", "md5": "2" * 32},
                {"path": "src/graft/reporting/page.css", "md5": "3" * 32},
            ],
            "outs": [
                {"path": "data/prepared", "md5": "4" * 32 + ".dir"},
                {"path": "reports/data", "md5": "5" * 32 + ".dir"},
            ],
        }
    }
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(LOCK))
    return tmp_path


def test_it_names_commit_data_versions_and_machine(project: Path) -> None:
    commit = fake.commit(project)
    made = read_provenance(fake_params(1), project, project / "dvc.lock")
    assert (made.commit, made.dirty) == (commit, False)
    assert made.data == {"photos": "1" * 32 + ".dir", "data/prepared": "4" * 32 + ".dir"}
    assert made.versions["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert made.versions["scikit-learn"] == version("scikit-learn")
    assert {"tensorflow", "tensorflow-cpu"} & set(made.versions)
    assert set(made.machine) == {"system", "processor", "threads"}
    assert all(made.machine.values())
    assert int(made.machine["threads"]) >= 1


def test_data_below_the_project_is_named_from_there_on(project: Path) -> None:
    lock = {
        "stages": {"prepare": {"deps": [{"path": str(project / "photos"), "md5": "a"}, {"path": "/x", "md5": "b"}]}}
    }
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert read_provenance(fake_params(1), project, project / "dvc.lock").data == {"photos": "a", "/x": "b"}


def test_outside_git_and_without_a_lock_it_says_nothing_of_them(project: Path) -> None:
    (project / "dvc.lock").unlink()
    made = read_provenance(fake_params(1), project, project / "dvc.lock")
    assert (made.commit, made.dirty, made.data) == (None, False, {})


def test_a_lock_without_stages_is_refused(project: Path) -> None:
    (project / "dvc.lock").write_text("[]")
    with pytest.raises(ArtifactError, match=r"dvc.lock must list stages, as `dvc repro` writes them"):
        read_provenance(fake_params(1), project, project / "dvc.lock")


def test_source_weights_are_told_by_what_they_were_trained_on(project: Path) -> None:
    params = fake_params(1)
    (row,) = read_provenance(params, project, project / "dvc.lock").weights.to_dict("records")
    assert (row["backbone"], row["application"], row["weights"]) == ("vgg16", "VGG16", "source")
    assert row["from"].startswith("trained here, on glyphs rendered from the DejaVu, STIX and Computer Modern fonts")
    assert row["licence"] == "your own; the fonts are free to use"
    photos = fake.change(params, pretrain__source="folder", pretrain__path=Path("shapes"))
    (row,) = read_provenance(photos, project, project / "dvc.lock").weights.to_dict("records")
    assert row["from"] == "trained here, on the images of shapes"


@pytest.mark.parametrize(
    ("application", "licence"),
    [
        ("VGG19", "CC BY 4.0, as published by the Visual Geometry Group of Oxford"),
        ("ResNet101", "MIT, as published by Kaiming He and others"),
        ("ResNet101V2", "BSD, as published by Facebook (fb.resnet.torch)"),
        ("InceptionResNetV2", "Apache-2.0, as published by Google"),
        ("MobileNetV3Small", "Apache-2.0, as published by Google"),
        ("Xception", "MIT, as published by the author of Keras"),
        ("FutureNet", "not known here: ask who published them"),
    ],
)
def test_imagenet_weights_have_their_publishers_licence_and_a_warning(
    project: Path, application: str, licence: str
) -> None:
    row = {"backbones__vgg16__base__weights": "imagenet", "backbones__vgg16__base__application": application}
    weights = read_provenance(fake.change(fake_params(1), **row), project, project / "dvc.lock").weights
    assert weights["licence"].tolist() == [
        f"{licence}; the images of ImageNet are for non-commercial research, so check before commercial use"
    ]
    assert weights["from"].tolist() == ["trained on ImageNet, as distributed with Keras"]


def test_every_family_that_keras_offers_has_a_licence() -> None:
    import keras

    from graft.provenance import UNKNOWN, _published

    names = [name for name in dir(keras.applications) if name[0].isupper()]
    assert len(names) > 30
    assert [name for name in names if _published(name) == UNKNOWN] == []


def test_weights_of_a_file_and_random_ones(project: Path) -> None:
    file = Path("mine.weights.h5")
    params = fake.change(
        fake_params(2),
        backbones__vgg16__base__weights=str(file),
        backbones__vgg16__base__depends_on=file,
        backbones__resnet50__base__weights="random",
    )
    weights = read_provenance(params, project, project / "dvc.lock").weights
    assert weights["from"].tolist() == ["the file mine.weights.h5", "drawn at random"]
    assert weights["licence"].tolist()[0] == "not known here: ask who published them"


def test_a_project_of_baselines_has_no_weights_of_others(project: Path) -> None:
    weights = read_provenance(fake_params(0), project, project / "dvc.lock").weights
    assert weights.empty
    assert list(weights.columns) == ["backbone", "application", "weights", "from", "licence"]


def test_it_imports_no_tensorflow_and_no_mlflow() -> None:
    code = (
        "import sys, graft.provenance; sys.exit(any(name in sys.modules for name in ('mlflow', 'tensorflow', 'dvc')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
