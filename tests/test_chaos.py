from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from chaos import all_arrivals, described
from disturbed_project import AtPoint
from journeys import Arrival, point_journeys, random_journeys, undisturbed

pytestmark = pytest.mark.slow

UNIT = 3  # epochs of the tiny project's longest phase, which may be trained again after a kill
MOMENTS, SEED = 5, 9  # at random; before the end, however fast the machine is


def test_nothing_is_lost_or_doubled_wherever_the_pipeline_is_killed(tmp_path: Path) -> None:
    twin = undisturbed(tmp_path / "twin")
    planned = point_journeys(twin, "once")
    at_moments = [replace(one, kills=one.kills[:MOMENTS]) for one in islice(random_journeys(SEED, twin), 1)]
    arrivals = list(all_arrivals([*at_moments, *planned], twin, tmp_path, os.cpu_count() or 1))
    for arrival in arrivals:
        print(described(arrival))
    assert [difference for arrival in arrivals for difference in arrival.differences] == []
    assert sum(len(arrival.fell()) for arrival in arrivals if not arrival.journey.at_points) == MOMENTS
    fell = {kill for arrival in arrivals for kill in arrival.fell()}
    assert [kill for journey in planned for kill in journey.kills if kill not in fell] == []
    at_points = [arrival for arrival in arrivals if arrival.journey.at_points]
    assert [one.journey.name for one in at_points if one.epochs > _lost_at_most(one)] == []


def _lost_at_most(arrival: Arrival) -> int:
    """Epochs that are trained again where every training resumes."""
    return UNIT * sum(isinstance(kill, AtPoint) for kill in arrival.fell())
