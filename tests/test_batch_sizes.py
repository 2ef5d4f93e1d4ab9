"""`auto` is settled by counts and estimates alone; a bound in the params lowers it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from networks_on_trial import tiny_params

from graft.batch_sizes import BatchSizeError, settle, settled, wanted
from graft.pretraining_memory import pretraining_memory, settled_pretraining, source_counts
from graft.training_memory import PROCESS_BYTES, SAFETY, TrainingMemory

LARGE = TrainingMemory(fixed=0, per_row=10**8)


def gigabytes(rows: int) -> float:
    """Just enough for a batch of so many LARGE rows."""
    return (SAFETY * (PROCESS_BYTES + rows * 10**8) + 1) / 10**9


@pytest.mark.parametrize(("images", "size"), [(20, 16), (199, 16), (200, 32), (19_999, 32), (20_000, 64)])
def test_more_images_come_in_larger_batches(images: int, size: int) -> None:
    assert wanted(images) == size
    assert settle("key", images, [TrainingMemory(0, 0)], 8) == size


@pytest.mark.parametrize(("rows", "size"), [(64, 64), (63, 32), (31, 16), (3, 2), (1, 1)])
def test_the_size_is_halved_until_it_fits(rows: int, size: int) -> None:
    assert settle("key", 20_000, [TrainingMemory(0, 1), LARGE], gigabytes(rows)) == size


def test_where_not_even_one_row_fits_it_says_so() -> None:
    with pytest.raises(
        BatchSizeError, match=r"baselines\.cnn\.train\.batch_size: auto .* train\.memory_gb, received 0\.5"
    ):
        settle("baselines.cnn.train.batch_size", 100, [LARGE], 0.5)


def test_a_number_is_left_alone_and_nothing_is_built_for_it() -> None:
    params = tiny_params()

    def never() -> Sequence[TrainingMemory]:
        pytest.fail("built")

    assert settled(params, "train", "cnn", images=5, estimates=never) is params
    assert settled(params, "finetune", "vgg16", images=5, estimates=never) is params


@pytest.mark.parametrize(
    ("section", "row", "kind"), [("train", "cnn", "baselines"), ("finetune", "vgg16", "backbones")]
)
def test_auto_becomes_a_number_in_its_row_alone(
    section: str, row: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tiny_params(**{f"{kind}__{row}__{section}__batch_size": "auto", "train__memory_gb": gigabytes(5)})
    found = settled(params, section, row, images=5000, estimates=lambda: [LARGE])  # type: ignore[arg-type]
    number = getattr(getattr(found, kind)[row], section)
    assert (number.batch_size, number.rows_per_step) == (4, 4)
    assert found == tiny_params(**{f"{kind}__{row}__{section}__batch_size": 4, "train__memory_gb": gigabytes(5)})
    assert f"{kind}.{row}.{section}.batch_size: auto is 4, for 5,000 images" in capsys.readouterr().out


def test_a_training_that_was_never_settled_is_a_bug() -> None:
    with pytest.raises(ValueError, match="must be settled before training"):
        _ = tiny_params(baselines__cnn__train__batch_size="auto").baselines["cnn"].train.rows_per_step


def test_the_source_task_is_counted_without_rendering_it(image_folder: Path) -> None:
    params = tiny_params()
    images, classes = source_counts(params.pretrain)
    assert images == 4 * classes
    folder = tiny_params(pretrain__source="folder", pretrain__path=str(image_folder), pretrain__images_per_class=6)
    assert source_counts(folder.pretrain) == (18, 3)
    more = tiny_params(pretrain__source="folder", pretrain__path=str(image_folder), pretrain__images_per_class=60)
    assert source_counts(more.pretrain) == (24, 3)


def test_a_base_s_own_training_is_settled_by_its_images() -> None:
    params = settled_pretraining(tiny_params(backbones__mobilenet__pretrain__batch_size="auto"), "mobilenet")
    assert params.backbones["mobilenet"].pretrain.batch_size == 16  # 3 images of each of the classes
    given = tiny_params(backbones__mobilenet__pretrain__batch_size="auto", backbones__mobilenet__base__weights="random")
    assert settled_pretraining(given, "mobilenet") is given  # nothing is trained


def test_larger_images_take_more_memory() -> None:
    from graft.backbones import build_base

    def estimate(size: int) -> TrainingMemory:
        params = tiny_params(backbones__mobilenet__base__input_size=size)
        row = params.backbones["mobilenet"]
        return pretraining_memory(build_base(row.base), row, params.pretrain)

    assert estimate(64).per_row > 3 * estimate(32).per_row
