"""Refusals, word by word where a user has nothing else to go by."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from networks_on_trial import tiny_params

from graft import resources
from graft.machine_memory import Memory
from graft.resources import Need, OutOfMemoryError, ResourceError, check_disk, check_memory

GIGA = 10**9


def test_a_full_disk_is_refused_with_what_is_written_where(tmp_path: Path) -> None:
    needs = [
        Need("images", 10**15, "data.image_size (now 224)", tmp_path / "data/prepared"),
        Need("activations of vgg16", 3 * 10**15, "features.max_gb (now 20)", tmp_path / "data/features/vgg16"),
        Need("nothing", 0, "anything", tmp_path),
    ]
    with pytest.raises(ResourceError) as refused:
        check_disk(needs)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"the disk of {tmp_path} must have 4000000 GB free for what is still to be written, ")
    assert "`graft gc`" in lines[0]
    assert lines[1].startswith("  3000000 GB activations of vgg16 in")
    assert lines[1].endswith("less with features.max_gb (now 20)")
    assert lines[2].startswith("  1000000 GB images in")
    check_disk([Need("images", 1000, "", tmp_path)])
    check_disk([])


def test_work_that_does_not_fit_into_memory_is_refused_by_name() -> None:
    needs = [Need("finetune vgg16", 5 * GIGA, "batch_size (now 64)"), Need("svm vgg16", GIGA, "max_rows")]
    check_memory(needs, Memory(8 * GIGA, 5 * GIGA, "the machine's memory"))
    with pytest.raises(ResourceError) as refused:
        check_memory(needs, Memory(8 * GIGA, 4 * GIGA, "the machine's memory"))
    assert str(refused.value) == (
        "finetune vgg16 needs about 5.0 GB of memory, received 4.0 GB free of 8.0 GB (the machine's memory); "
        "less with batch_size (now 64)"
    )


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_running_out_of_memory_says_batch_size_image_size_and_what_to_reduce(error: Exception) -> None:
    params = tiny_params()
    with pytest.raises(OutOfMemoryError) as raised, resources.named_memory_errors(params, "finetune", "vgg16"):
        raise error
    told = str(raised.value)
    assert told.startswith("finetune vgg16 ran out of memory (")
    assert "backbones.vgg16.finetune.batch_size (now 32)" in told
    assert "data.image_size (now 32)" in told
    assert "backbones.vgg16.features.frozen_until (now block4_pool)" in told
    assert "features.storage (now float32)" in told


@pytest.mark.parametrize(
    ("verb", "row", "key"),
    [
        ("pretrain", "vgg16", "backbones.vgg16.pretrain.batch_size (now 64)"),
        ("features", "vgg16", "backbones.vgg16.features.batch_size (now 64)"),
        ("svm", "vgg16", "backbones.vgg16.features.pooling (now flatten), augment.views (now "),
        ("baseline", "cnn", "baselines.cnn.train.batch_size (now 32)"),
        ("curve_baseline", "cnn", "baselines.cnn.input_size (now 32)"),
    ],
)
def test_each_stage_names_its_own_keys(verb: str, row: str, key: str) -> None:
    assert key in resources.reductions(tiny_params(), verb, row)


def test_tensorflow_s_errors_are_known_by_their_kind() -> None:
    import tensorflow as tf

    def raised(error: Exception) -> bool:
        return resources.is_out_of_memory(error)

    assert raised(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[64,224,224,64]"))
    assert raised(tf.errors.InternalError(None, None, "Failed to allocate 2.1GiB"))
    assert not raised(tf.errors.InvalidArgumentError(None, None, "shapes must match"))
    assert not raised(OSError(errno.ENOSPC, "No space left on device"))
    assert not raised(ValueError("out of memory"))


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), resources.named_memory_errors(tiny_params(), "finetune", "vgg16"):
        raise KeyError("x")


def test_the_size_of_a_folder_counts_a_file_of_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 100)
    (tmp_path / "a/b/two").hardlink_to(tmp_path / "a/one")
    (tmp_path / "a/b/three").symlink_to(tmp_path / "a/one")
    (tmp_path / "a/b/four").write_bytes(b"x" * 7)
    assert resources.folder_bytes(tmp_path / "a") == 107
    assert resources.folder_bytes(tmp_path / "a/one") == 100
    assert resources.folder_bytes(tmp_path / "gone") == 0
