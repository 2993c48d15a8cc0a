from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusteval.stats.pareto import dominates, hypervolume, pareto_front, staircase

# A coarse grid, so that ties and duplicates are common.
POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=15)
DIRECTIONS = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(deadline=None)
@given(POINTS, DIRECTIONS)
def test_front_is_what_no_other_point_dominates(points, maximise):
    expected = [i for i, p in enumerate(points) if not any(dominates(q, p, maximise) for q in points)]
    assert pareto_front(points, maximise) == expected


def test_equal_points_stay_on_the_front_together():
    assert pareto_front([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0)], (True, True)) == [0, 1]


def test_equal_points_do_not_dominate_each_other():
    assert not dominates((1.0, 2.0), (1.0, 2.0), (True, True))
    assert dominates((1.0, 1.0), (1.0, 2.0), (True, False))


@pytest.mark.parametrize("points", [[(1.0, math.nan)], [(1.0,)], [(math.inf, 1.0)]])
def test_points_that_are_not_numbers_or_not_points_are_refused(points):
    with pytest.raises(ValueError, match="point"):
        pareto_front(points, (True, True))


def test_hypervolume_is_the_area_worked_out_by_hand():
    points = [(0.9, 0.2), (0.5, 0.6), (0.4, 0.4)]
    assert hypervolume(points, (0.1, 0.1), (True, True)) == pytest.approx(0.8 * 0.1 + 0.4 * 0.4)
    assert hypervolume([(0.05, 0.9)], (0.1, 0.1), (True, True)) == 0.0
    assert hypervolume([], (0.1, 0.1), (True, True)) == 0.0
    assert hypervolume([(3.0, 0.9)], (5.0, 0.0), (False, True)) == pytest.approx(1.8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9).map(float), st.integers(1, 9).map(float)), min_size=1, max_size=12))
def test_area_under_the_staircase_is_the_hypervolume(points):
    line = staircase(points, (0.0, 0.0))
    area = sum((x1 - x0) * y0 for (x0, y0), (x1, _) in pairwise(line))
    assert area == pytest.approx(hypervolume(points, (0.0, 0.0), (True, True)))
    assert line[0][0] == 0.0
    assert line[-1][1] == 0.0


def test_no_points_have_no_staircase():
    assert staircase([], (0.0, 0.0)) == []
