"""Costs are worked out by hand in comments; one row costs 70 multiply-adds up to the cut and 30 from there on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from networks_on_trial import tiny_params

from graft.planning import Option, PlanError, Segments, Workload, amount, choose, describe, make_plan

ONE_CUT = Segments(("image", "cut", "top"), (70, 30), (50, 10))
TWO_CUTS = Segments(("image", "a", "b", "top"), (50, 30, 20), (40, 20, 5))
WORK = Workload(train=10, validation=5, test=5, views=2, epochs=4, unfrozen_epochs=3)  # 30 rows
PLENTY = 1.0


def option(stored: tuple[str, ...], segments: Segments = ONE_CUT, work: Workload = WORK) -> Option:
    options = choose(segments, work, max_gb=PLENTY, itemsize=4).options
    return next(candidate for candidate in options if candidate.stored == stored)


def test_each_option_by_hand() -> None:
    # disk: of each of 30 rows 3 copies of 4 bytes a number, and at each point 2 checksums of 4 bytes and a key of 20
    # phase 2 from the cut: 3 epochs x (10 x 3 x 30 + 5 x 30); from the image: 3 x (10 x (70 + 3 x 30) + 5 x 100)
    assert option(("cut", "top")) == Option(("cut", "top"), 30 * 100, 0, 3150, 0, 30 * (3 * 4 * 60 + 2 * 28), True)
    # phase 1 from the cut: 4 epochs x 15 images x 30; svm: 30 rows x 30
    assert option(("cut",)) == Option(("cut",), 30 * 70, 1800, 3150, 900, 30 * (3 * 4 * 50 + 28), True)
    assert option(("top",)) == Option(("top",), 30 * 100, 0, 6300, 0, 30 * (3 * 4 * 10 + 28), True)
    assert option(()) == Option((), 0, 4 * 15 * 100, 6300, 30 * 100, 0, True)
    assert option(("cut",)).multiply_adds == 2100 + 1800 + 3150 + 900


@pytest.mark.parametrize(
    ("bytes_allowed", "stored"),
    [
        (23280, ("cut", "top")),
        (23279, ("cut",)),  # 7,950 multiply-adds against 9,300 with top
        (18839, ("top",)),
        (4439, ()),
        (0, ()),
    ],
)
def test_the_cheapest_that_fits_is_chosen(bytes_allowed: int, stored: tuple[str, ...]) -> None:
    plan = choose(ONE_CUT, WORK, max_gb=bytes_allowed / 10**9, itemsize=4)
    assert plan.stored == stored
    assert [candidate.fits for candidate in plan.options] == [c.bytes <= bytes_allowed for c in plan.options]


def test_half_the_bytes_fit_into_half_the_disk() -> None:
    assert choose(ONE_CUT, WORK, max_gb=12480 / 10**9, itemsize=2).stored == ("cut", "top")


def test_many_more_views_than_epochs_are_not_kept_unless_the_svm_reads_them_all() -> None:
    many = replace(WORK, views=1000)
    assert choose(ONE_CUT, many, max_gb=PLENTY, itemsize=4).stored == ("cut", "top")
    assert choose(ONE_CUT, replace(many, svm=False), max_gb=PLENTY, itemsize=4).stored == ()


def test_without_a_second_phase_the_cut_is_not_kept() -> None:
    plan = choose(ONE_CUT, replace(WORK, unfrozen_epochs=0), max_gb=PLENTY, itemsize=4)
    assert plan.stored == ("top",)  # with the cut it costs the same and takes more of the disk
    assert plan.chosen.multiply_adds == 3000


@pytest.mark.parametrize(
    ("bytes_allowed", "stored", "multiply_adds"),
    [
        # a: 3 x (10 x 3 x 50 + 5 x 50) = 5,250; b: 3 x (10 x 3 x 20 + 5 x 20) = 2,100
        (25920, ("a", "b", "top"), 3000 + 5250 + 2100),
        (17880, ("a", "top"), 3000 + 5250 + 3 * (10 * (30 + 60) + 5 * 50)),  # b from a
        (10680, ("b", "top"), 3000 + 3 * (10 * (50 + 150) + 5 * 100) + 2100),  # a from the image
    ],
)
def test_of_two_cuts_the_one_that_saves_more_is_kept(
    bytes_allowed: int, stored: tuple[str, ...], multiply_adds: int
) -> None:
    plan = choose(TWO_CUTS, WORK, max_gb=bytes_allowed / 10**9, itemsize=4)
    assert (plan.stored, plan.chosen.multiply_adds) == (stored, multiply_adds)
    assert len(plan.options) == 8


def test_a_base_trained_whole_keeps_the_top_for_its_head_and_the_svm() -> None:
    whole = Segments(("image", "top"), (100,), (10,))
    plan = choose(whole, WORK, max_gb=PLENTY, itemsize=4)
    assert plan.stored == ("top",)
    assert {candidate.phase_2 for candidate in plan.options} == {3 * (3 * 10 + 5) * 100}


def test_every_tail_of_a_grid_counts() -> None:
    params = tiny_params(
        backbones__vgg16__finetune__tails={
            "unfrozen_learning_rate": [1e-3, 1e-4, 1e-5],
            "batch_size": [8, 16],
            "halving": 1,
        }
    )
    counts = {"train": 10, "validation": 5, "test": 5, "views": 2}
    plan = make_plan(params.features, params.backbones["vgg16"], ONE_CUT, **counts)
    assert plan.workload == Workload(**counts, epochs=2, unfrozen_epochs=12)
    assert plan.chosen.phase_2 == 6 * 2 * (10 * 90 + 5 * 30)


def test_the_stage_s_plan_changes_with_its_outputs_alone() -> None:
    plan = choose(ONE_CUT, WORK, max_gb=PLENTY, itemsize=4)
    assert plan.to_json() == {
        "stored": ["cut", "top"],
        "rows": 30,
        "points": {
            "cut": {"elements": 50, "multiply_adds": 70, "bytes": 6000},
            "top": {"elements": 10, "multiply_adds": 100, "bytes": 1200},
        },
    }
    assert choose(ONE_CUT, replace(WORK, epochs=40), max_gb=2.0, itemsize=4).to_json() == plan.to_json()


def test_too_many_cuts_are_refused() -> None:
    cuts = tuple(f"layer{number}" for number in range(13))
    with pytest.raises(PlanError, match="frozen_until may list at most 12 layers, received 13"):
        choose(Segments(("image", *cuts, "top"), (1,) * 14, (1,) * 14), WORK, max_gb=PLENTY, itemsize=4)


def test_a_plan_is_described_in_a_line() -> None:
    assert describe(choose(ONE_CUT, WORK, max_gb=4440 / 10**9, itemsize=4)) == (
        "keeps top of 30 rows: 1.20 kB (4.44 kB with every copy); 3.00 kMAC now, 6.30 kMAC in training at most; "
        "the cheapest of 4 options within 4.44e-06 GB, which 2 exceed"
    )
    assert describe(choose(ONE_CUT, WORK, max_gb=0, itemsize=4)).startswith("keeps nothing of 30 rows: 0 B")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (99_960, "100 kB"), (999_900, "1.00 MB")]
)
def test_amounts_have_three_digits(number: int, text: str) -> None:
    assert amount(number, "B") == text
