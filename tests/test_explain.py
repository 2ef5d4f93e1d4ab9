"""`graft plan` on a tiny folder, before anything was made and after each stage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from networks_on_trial import tiny_params
from typer.testing import CliRunner

from graft.cli import app
from graft.features import Extraction
from graft.forecasts import read_rate
from graft.params import Params, ParamsError

PREPARED, AUGMENTED = Path("data/prepared"), Path("data/augmented")
CHECKED_IMPORTS = """
import sys
from graft import cli
sys.argv = ["graft", "plan"]
try:
    cli.main()
finally:
    assert "keras" not in sys.modules, "imported too early"
"""


def write_params(**changes: object) -> Params:
    """One narrow MobileNet with random weights, in the working directory."""
    row = tiny_params().model_dump(mode="json")["backbones"]["mobilenet"]
    row["base"]["weights"] = "random"
    params = tiny_params(**{"backbones": {"mobilenet": row}, "data__train_per_class": None} | changes)
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    return params


@pytest.fixture
def photos(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """8 photos of each of 3 classes, of which each gives 4 to train, 2 to validate and 2 to test on."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/embedded.md").touch()
    return {"data__source": "folder", "data__path": str(image_folder)}


def plan() -> list[str]:
    """The lines that it prints, without the space that aligns them."""
    result = CliRunner().invoke(app, ["plan"])
    assert result.exit_code == 0, result.exception
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def make_views(params: Params) -> None:
    from graft.stages import augment, prepare

    prepare.run(params.data, params.seed, PREPARED, Path("reports/data"))
    augment.run(params.augment, params.seed, PREPARED, AUGMENTED, Path("preview.png"))


def extract(params: Params, **further: Path) -> Extraction:
    from graft.stages import features, pretrain

    source, out = Path("models/source/mobilenet"), Path("data/features/mobilenet")
    if not source.exists():
        pretrain.run(params, "mobilenet", source)
    folders = {"prepared": PREPARED, "augmented": AUGMENTED, "source": source, "out": out, **further}
    return features.run(params, "mobilenet", **folders, store=Path(".store/features"))[1]


def test_a_plan_before_and_after_a_run(photos: dict[str, object]) -> None:
    params = write_params(**photos)
    before = plan()
    assert "12 training images x 3 views + 6 validation + 6 test = 48 rows," in before
    assert "Nothing is known to be in the store: it is empty." in before
    assert "reuses from the store 0" in before
    assert any(line.startswith("features computes 48 ") for line in before)
    # conv_pw_11_relu: 2x2x128 and top: 256 numbers of 4 bytes
    assert "keeps conv_pw_11_relu 48 98.3 kB" in before
    assert "keeps top 48 49.2 kB" in before
    assert any(line.startswith("Disk: ") and "still to be written" in line for line in before)
    assert any(line.startswith("Memory: at most ") for line in before)
    make_views(params)
    extract(params)
    after = plan()
    assert "counted in data/prepared." in after
    assert "features computes 0 0" in after
    assert "reuses from the store 48" in after


def test_new_views_alone_are_to_be_computed(photos: dict[str, object]) -> None:
    params = write_params(**photos)
    make_views(params)
    extract(params)
    more = write_params(**photos, augment__views=5)
    unknown = " ".join(plan())
    assert "data/augmented does not hold augment.views views of each image" in unknown
    assert "reuses from the store 0" in unknown
    make_views(more)
    foretold = plan()
    assert "reuses from the store 48" in foretold
    assert any(line.startswith("features computes 24 ") for line in foretold)
    done = extract(more)
    assert (done.computed, done.reused) == (24, 48)


def test_the_vectors_of_a_machine_are_foretold_and_found_again(photos: dict[str, object]) -> None:
    params = write_params(**photos, backbones__mobilenet__features__svm_layers=["conv_pw_6", "top"])
    assert {"keeps the SVM's vectors 48 73.7 kB", "svm fits, from its vectors 48 0"} <= set(plan())
    make_views(params)
    done = extract(params, vectors=Path("data/vectors/mobilenet"))
    assert (done.computed, done.reused) == (48, 0)
    again = plan()
    assert "reuses from the store 48" in again
    assert any(line.startswith("features computes 0 ") for line in again)


def test_the_rate_of_this_machine_is_timed_once(photos: dict[str, object]) -> None:
    row = write_params(**photos).backbones["mobilenet"]
    assert read_rate("mobilenet", row) is None
    plan()
    timed = read_rate("mobilenet", row)
    assert timed is not None
    assert timed.origin == "calibration"
    plan()
    assert read_rate("mobilenet", row) == timed


def test_a_fault_is_named_by_its_key(photos: dict[str, object]) -> None:
    write_params(**photos, backbones__mobilenet__features__frozen_until="conv_pw_99")
    error = CliRunner().invoke(app, ["plan"]).exception
    assert isinstance(error, ParamsError)
    assert str(error).startswith("backbones.mobilenet: frozen_until must be a layer of mobilenet")


@pytest.mark.parametrize("change", [{"seed": -1}, {"data": {"source": "folder", "path": "gone"}}])
def test_faults_of_params_and_data_need_no_tensorflow(tmp_path: Path, change: dict[str, object]) -> None:
    values = tiny_params().model_dump(mode="json")
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", CHECKED_IMPORTS]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("graft: ")
