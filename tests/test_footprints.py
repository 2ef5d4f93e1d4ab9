"""What a run writes, worked out by hand, and its refusal where that does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from networks_on_trial import tiny_params

from graft import footprints, resource_checks, resources
from graft.counting import Counts
from graft.footprints import ROW_BYTES, Folders, RowFootprint
from graft.machine_memory import Memory
from graft.params import Params
from graft.resources import ResourceError

COUNTS = Counts(train=10, validation=4, test=6, prepared=False, origin="the source")
ROWS = {
    "cnn": RowFootprint(1000, 0, 0, "sgd", {"baseline": 7 * 10**8}),
    "vgg16": RowFootprint(2000, 10**6, 50_000, "adamw", {"finetune": 9 * 10**8, "svm": 10**8}),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/embedded.md").touch()
    return tmp_path


def folders(root: Path, cache: bool = True) -> Folders:
    return Folders(root / "data", root / "models", root / "store", root / "work", root / "cache" if cache else None)


def needs(root: Path, *, cache: bool = True) -> dict[str, int]:
    params = tiny_params(augment__views=3)
    return {need.what: need.bytes for need in footprints.disk_needs(params, COUNTS, ROWS, folders(root, cache))}


def test_each_output_by_hand(tmp_path: Path) -> None:
    found = needs(tmp_path)
    pixels = 32 * 32 * 3 + ROW_BYTES
    assert found["images"] == 20 * pixels
    assert found["views"] == 10 * 3 * pixels
    assert found["activations of vgg16"] == found["activations of vgg16 in the store"] == 10**6
    assert found["weights of cnn"] == 4000
    assert found["weights of vgg16"] == found["weights of vgg16's base"] == 8000
    assert found["support vectors of vgg16"] == 50_000
    # weights, the best ones, two slots of AdamW; a new checkpoint stands beside the old one until it is whole
    assert found["checkpoints of a training"] == 2 * 4 * 2000 * (2 + 2)
    outputs = 50 * pixels + 10**6 + 4000 + 2 * 8000 + 50_000
    assert found["of these outputs a second time, in DVC's cache"] == outputs
    assert needs(tmp_path, cache=False) == {what: size for what, size in found.items() if "DVC" not in what}


def test_what_is_written_already_is_not_asked_for_again(tmp_path: Path) -> None:
    before = needs(tmp_path)
    folder = tmp_path / "data/features/vgg16"
    folder.mkdir(parents=True)
    (folder / "top-00000.npy").write_bytes(bytes(10**6))
    after = needs(tmp_path)
    assert set(before) - set(after) == {"activations of vgg16", "activations of vgg16 in the store"}
    cache = "of these outputs a second time, in DVC's cache"
    assert before[cache] - after[cache] == 10**6


def test_vectors_of_a_machine_are_written_beside_the_activations(root: Path) -> None:
    rows = {"vgg16": RowFootprint(2000, 10**6, 50_000, "adamw", {}, vectors=10**5)}
    found = {need.what: need for need in footprints.disk_needs(tiny_params(), COUNTS, rows, folders(root))}
    for name in ("activations of vgg16 for its SVM", "activations of vgg16 for its SVM in the store"):
        assert found[name].bytes == 10**5
    assert found["activations of vgg16 for its SVM"].path == root / "data/vectors/vgg16"

    top, several = (
        resource_checks.estimate(tiny(root, backbones__mobilenet__features__svm_layers=layers), COUNTS)["mobilenet"]
        for layers in (["top"], ["conv_pw_11_relu", "top"])
    )
    rows_of_images = 10 * 3 + 4 + 6
    assert (top.vectors, several.vectors) == (0, rows_of_images * (128 + 256) * 4)
    assert several.machine == top.machine * (128 + 256) / 256
    assert several.memory["svm"] > top.memory["svm"]
    assert several.features == top.features


def test_memory_is_asked_for_the_stage_that_runs() -> None:
    params = tiny_params()
    assert [need.what for need in footprints.memory_needs(params, ROWS, None)] == [
        "finetune vgg16",
        "baseline cnn",
        "svm vgg16",
    ]
    assert [need.bytes for need in footprints.memory_needs(params, ROWS, "baseline@cnn")] == [7 * 10**8]
    assert footprints.memory_needs(params, ROWS, "compare") == []


def tiny(root: Path, **changes: object) -> Params:
    """One narrow MobileNet and one small network, written to params.yaml."""
    values = tiny_params().model_dump(mode="json")
    params = tiny_params(backbones={"mobilenet": values["backbones"]["mobilenet"]}, **changes)
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    return params


def test_estimates_are_made_once_for_equal_values(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny(root)
    found = resource_checks.estimate(params, COUNTS)
    assert found["mobilenet"].features > 0
    assert set(found["mobilenet"].memory) == {"features", "finetune", "pretrain", "svm"}
    assert set(found["cnn"].memory) == {"baseline"}
    assert all(size > resource for row in found.values() for size in row.memory.values() for resource in [10**8])
    monkeypatch.setattr(footprints, "baseline_footprint", lambda *arguments: pytest.fail("built again"))
    assert resource_checks.estimate(params, COUNTS) == found
    with pytest.raises(pytest.fail.Exception, match="built again"):
        resource_checks.estimate(tiny(root, baselines__cnn__input_size=16), COUNTS)


def test_a_run_that_does_not_fit_is_refused_before_it_starts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny(root)
    resource_checks.check_resources(params)
    monkeypatch.setattr(resources, "memory", lambda: Memory(8 * 10**9, 5 * 10**8, "the machine's memory"))
    with pytest.raises(ResourceError, match=r"pretrain mobilenet needs about .* GB of memory, received 0\.50 GB free"):
        resource_checks.check_resources(params)
    monkeypatch.setenv("DVC_STAGE", "compare")
    resource_checks.check_resources(params)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(ResourceError, match=r"(?s)the disk of .* must have .* received 0\.00 GB free.*less with"):
        resource_checks.check_disk(params)


def test_of_an_archive_nothing_is_judged_before_it_is_unpacked(root: Path) -> None:
    params = tiny(root, data__source="archive", data__path="photos.zip")
    assert resource_checks.known_counts(params) is None
    resource_checks.check_resources(params)


def test_auto_is_judged_by_what_it_becomes(root: Path) -> None:
    given = resource_checks.estimate(tiny(root, baselines__cnn__train__batch_size=16), COUNTS)
    auto = resource_checks.estimate(tiny(root, baselines__cnn__train__batch_size="auto"), COUNTS)
    assert auto["cnn"] == given["cnn"]  # ten images


def test_a_plan_s_bytes_are_those_of_every_copy_on_the_disk(root: Path) -> None:
    from graft.stages import augment, features, prepare, pretrain

    values = tiny(root).model_dump(mode="json")
    values["backbones"]["mobilenet"]["base"]["weights"] = "random"
    params = Params.model_validate(values)
    prepared, augmented, source, out = Path("data/prepared"), Path("data/augmented"), Path("source"), Path("out")
    prepare.run(params.data, params.seed, prepared, Path("report"))
    augment.run(params.augment, params.seed, prepared, augmented, Path("preview.png"))
    pretrain.run(params, "mobilenet", source)
    places = {"prepared": prepared, "augmented": augmented, "source": source, "out": out}
    plan, _ = features.run(params, "mobilenet", **places, store=Path(".store/features"))
    index = resources.folder_bytes(out / "index.parquet")
    written = 2 * (resources.folder_bytes(out) - index) + resources.folder_bytes(Path(".store/features"))
    headers = 40 * 2**10  # of files: NumPy's, JSON, the description of a space
    assert plan.chosen.bytes > 10 * headers
    assert plan.chosen.bytes < written < plan.chosen.bytes + headers


@pytest.mark.parametrize(
    ("rows", "approximation", "expected"),
    [
        (100, "nystroem", 8 * 100 * (5 * 30 + 100)),  # exact: five copies in double precision, and the kernel
        (1000, "nystroem", 4 * 1000 * (30 * (1 + 2 * 2) + 20 * 2)),  # two folds at once, each mapped to 20 components
        (1000, "linear", 4 * 1000 * 30 * (1 + 2 * 2)),
    ],
)
def test_a_machine_s_memory_by_hand(
    monkeypatch: pytest.MonkeyPatch, rows: int, approximation: str, expected: int
) -> None:
    monkeypatch.setattr("graft.footprints.os.cpu_count", lambda: 2)
    settings = next(iter(tiny_params().backbones.values())).svm.model_copy(
        update={"max_rows": 500, "components": 20, "folds": 5, "approximation": approximation}
    )
    assert footprints.svm_bytes(rows, 30, settings) == expected
