from __future__ import annotations

import numpy as np
import pytest

from graft.design_effects import design_effect, intraclass_correlation


def test_the_correlation_is_that_of_the_analysis_of_variance() -> None:
    """Groups (1, 1, 0), (0, 0) and (1): MSB 1/3 by 2, MSW (2/3) by 3; n0 = (6 - 14/6) / 2."""
    values, groups = np.array([1, 1, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1, 2])
    between = (3 * (2 / 3 - 1 / 2) ** 2 + 2 * (1 / 2) ** 2 + (1 / 2) ** 2) / 2
    within, size = 2 / 3 / 3, (6 - 14 / 6) / 2
    expected = (between - within) / (between + (size - 1) * within)
    assert intraclass_correlation(values, groups) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "groups", "expected"),
    [
        ([1, 1, 0, 0], [0, 0, 1, 1], 1),
        ([1, 0, 1, 0], [0, 0, 1, 1], 0),  # less alike than by chance
        ([1, 1, 1, 1], [0, 0, 1, 1], 0),
        ([1, 0, 0, 1], [0, 1, 2, 3], 0),  # each its own group
        ([1, 0, 0, 1], [0, 0, 0, 0], 0),  # one group
    ],
)
def test_extremes(values: list[int], groups: list[int], expected: float) -> None:
    assert intraclass_correlation(np.array(values, bool), np.array(groups)) == expected


def test_the_design_effect_grows_with_the_groups_size() -> None:
    assert design_effect(np.array([0, 1, 2]), 0.5) == 1
    assert design_effect(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.5) == pytest.approx(2.5)  # 1 + (m - 1) rho
    assert design_effect(np.array([0, 0, 0, 1]), 1) == pytest.approx(10 / 4)
    assert design_effect(np.array([0, 0, 0]), 0) == 1
