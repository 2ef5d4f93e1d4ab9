from __future__ import annotations

from pathlib import Path

import pytest
from networks_on_trial import backbone

from graft.forecasts import (
    Checked,
    Rate,
    Work,
    read_actual,
    read_rate,
    record_actual,
    record_estimate,
    record_rate,
)

PLAN = {"stored": ["top"], "rows": 30}
FORETOLD = Work(computed=30, reused=0, multiply_adds=3000, bytes=1200, seconds=1.5)
DONE = Work(computed=28, reused=2, multiply_adds=2800, bytes=1200, seconds=2.0)
RATE = Rate(2700, 1.0, 27, "run")


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def test_a_forecast_stands_beside_what_happened_and_is_used_once() -> None:
    row = backbone()
    assert read_actual("mobilenet") is None
    record_estimate("mobilenet", PLAN, FORETOLD)
    assert read_actual("mobilenet") is None
    assert record_actual("mobilenet", row, PLAN, DONE, RATE) == Checked(FORETOLD, DONE) == read_actual("mobilenet")
    record_estimate("mobilenet", PLAN, FORETOLD)
    assert read_actual("mobilenet") == Checked(FORETOLD, DONE)  # the next one changes nothing of the last
    record_actual("mobilenet", row, PLAN, DONE, RATE)
    assert record_actual("mobilenet", row, PLAN, DONE, RATE) == Checked(None, DONE)


def test_a_forecast_of_another_plan_is_not_compared() -> None:
    record_estimate("mobilenet", PLAN, FORETOLD)
    assert record_actual("mobilenet", backbone(), PLAN | {"rows": 31}, DONE, RATE).estimated is None


def test_a_rate_holds_for_its_base_and_batches() -> None:
    row, rate = backbone(), Rate(10**9, 2.0, 100, "calibration")
    assert read_rate("mobilenet", row) is None
    record_rate("mobilenet", row, rate)
    assert read_rate("mobilenet", row) == rate
    assert rate.per_second == 5e8
    assert read_rate("mobilenet", backbone(finetune__epochs=9)) == rate
    assert read_rate("mobilenet", backbone(base__width=0.5)) is None
    assert read_rate("mobilenet", backbone(features__batch_size=8)) is None


def test_a_run_gives_its_rate_unless_it_was_too_short() -> None:
    row = backbone()
    record_actual("mobilenet", row, PLAN, DONE, RATE)
    assert read_rate("mobilenet", row) == RATE
    record_actual("mobilenet", row, PLAN, Work(1, 29, 100, 1200, 0.1), Rate(100, 0.1, 1, "run"))
    assert read_rate("mobilenet", row) == RATE
