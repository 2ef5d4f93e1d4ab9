from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from networks_on_trial import backbone, tiny_params

from graft.counting import Counts
from graft.explain import Forecast
from graft.forecasts import Checked, Rate, Work
from graft.plan_tables import duration, footer, header, page
from graft.planning import Segments, Workload, choose
from graft.vector_plans import VectorPlan

WORK = Workload(train=10, validation=5, test=5, views=2, epochs=4, unfrozen_epochs=3)
GIGA = 10**9
ONE_CUT = Segments(("image", "cut", "top"), (70 * GIGA, 30 * GIGA), (50, 10))


def forecast(
    segments: Segments = ONE_CUT, *, max_gb: float = 1.0, last: Checked | None = None, **work: int
) -> Forecast:
    plan = choose(segments, Workload(**{**vars(WORK), **work}), max_gb=max_gb, itemsize=4)
    done = Work(20, 10, 2000 * GIGA, plan.output_bytes, 20.0)
    return Forecast("mobilenet", backbone(), plan, done, Rate(100 * GIGA, 1.0, 1, "run"), last)


def lines(text: str) -> list[str]:
    """Without the space that aligns them."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_each_stage_and_option_is_a_line() -> None:
    found = lines(page(forecast()))
    assert "features computes 20 2,000 20 s" in found
    assert "reuses from the store 10" in found
    assert "keeps cut 30 6.00 kB" in found
    assert "keeps top 30 1.20 kB" in found
    assert "phase 1 trains heads, from top 4 x (10 + 5) 0" in found
    assert "phase 2 trains after cut 3 x (10 + 5) 3,150 32 s" in found
    assert "svm fits, from top 30 0" in found
    assert "> cut, top 3,000 0 3,150 0 6,150 62 s 23.3 kB" in found
    assert "nothing 0 6,000 6,300 3,000 15,300 2.5 min 0 B" in found
    assert "2.5 times fewer multiply-adds than with nothing kept; 100 GMAC/s here" in page(forecast())


def test_the_vectors_of_a_machine_are_kept_or_computed_when_it_is_fitted() -> None:
    vectors = VectorPlan("cut", 20 * GIGA, elements=5, rows=30, itemsize=4, kept=True, map_elements=50)
    plain = forecast()
    found = lines(page(replace(plain, plan=replace(plain.plan, vectors=vectors))))
    assert "keeps the SVM's vectors 30 600 B" in found
    assert "svm fits, from its vectors 30 0" in found
    computed = replace(plain.plan, vectors=replace(vectors, kept=False))
    assert "svm fits, from cut 30 600 6.0 s" in lines(page(replace(plain, plan=computed)))


def test_what_does_not_fit_is_marked() -> None:
    text = page(forecast(max_gb=5e-6))
    assert "cut, top 3,000 0 3,150 0 6,150 62 s 23.3 kB !" in lines(text)
    assert "> top 3,000 0 6,300 0 9,300 93 s 4.44 kB" in lines(text)
    assert "!: more than features.max_gb (5e-06 GB) allows" in text
    assert "phase 2 trains after cut, from image 3 x (10 + 5) 6,300 63 s" in lines(text)
    assert "Nothing is kept: of what helps, nothing fits" in page(forecast(max_gb=0))


def test_many_long_names_stay_within_a_terminal() -> None:
    cuts = tuple(f"conv4_block{number}_preactivation" for number in range(6))
    segments = Segments(("image", *cuts, "top"), (GIGA,) * 7, (50,) * 7)
    text = page(forecast(segments))
    assert max(map(len, text.splitlines())) <= 120
    assert "> a, b, c, d, e, f, top" in text
    assert f"a: {cuts[0]}, b: {cuts[1]}" in text.replace("\n", " ").replace("   ", " ")
    assert "and 119 more" in text


def test_a_base_trained_whole_and_a_grid_of_tails_say_so() -> None:
    text = page(forecast(Segments(("image", "top"), (100 * GIGA,), (10,)), unfrozen_epochs=18))
    assert "trained whole in phase 2" in text
    assert "phase 2 trains the whole base 18 x (10 + 5) 63,000 10 min" in lines(text)
    assert "phase 2" not in "".join(page(forecast(unfrozen_epochs=0)).split("to keep")[0])


def test_the_last_run_stands_beside_its_forecast() -> None:
    done, foretold = Work(28, 2, 0, 7200, 1.5), Work(30, 0, 0, 7200, 1.2)
    text = page(forecast(last=Checked(foretold, done)))
    assert "Last features stage: computed 28, reused 2, 7.20 kB, 1.5 s;" in text
    assert "foretold: computed 30, reused 0, 7.20 kB, 1.2 s." in text
    assert "nothing was foretold" in page(forecast(last=Checked(None, done)))


def test_sums_and_counts() -> None:
    counts = Counts(10, 5, 6, False, "counted from the source")
    text = header(tiny_params(), counts, "it is empty")
    assert "10 training images x 3 views + 5 validation + 6 test = 41 rows" in text
    assert "counted from the source." in text
    assert "Nothing is known to be in the store: it is empty." in text
    text = footer(tiny_params(features__store_gb=3), [forecast(), forecast()], 5 * 10**8, Path("store"))
    assert "All backbones: 10.3 TMAC, 1.7 min at most, 14.4 kB kept." in text  # twice 2,000 + 3,150 GMAC
    assert "Store: 500 MB of at most 3 GB in store." in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.31, "0.3 s"), (12.2, "12 s"), (204, "3.4 min"), (3000, "50 min"), (7600, "2.1 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
