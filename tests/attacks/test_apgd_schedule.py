from __future__ import annotations

import pytest

from robusteval.attacks.apgd_schedule import schedule
from robusteval.schema.types import Norm


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_a_hundred_iterations_are_checked_where_the_authors_check(norm) -> None:
    plan = schedule(norm, 100, shrinking=False)
    checks = [evaluation for evaluation, period in enumerate(plan.periods) if period]
    assert checks == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [plan.periods[check] for check in checks] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert (plan.evaluations, set(plan.radii), plan.ends.index(True)) == (101, {1}, 100)


def test_l1_is_checked_every_four_iterations_and_more_often_in_phases() -> None:
    plain = schedule(Norm.L1, 100, shrinking=False)
    assert [evaluation for evaluation, period in enumerate(plain.periods) if period] == list(range(4, 100, 4))
    phased = schedule(Norm.L1, 100, shrinking=True)
    assert phased.evaluations == 103
    assert phased.radii == (3,) * 31 + (2,) * 31 + (1,) * 41
    assert [evaluation for evaluation, end in enumerate(phased.ends) if end] == [30, 61, 102]
    assert phased.periods[:31] == (0, *[1] * 29, 0)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 17])
def test_short_runs_have_a_consistent_plan(norm, steps) -> None:
    for shrinking in (False, True):
        plan = schedule(norm, steps, shrinking=shrinking)
        assert len(plan.periods) == len(plan.radii) == len(plan.iterations) == plan.evaluations
        assert plan.ends[-1]
        assert plan.radii[-1] == 1
        assert sum(plan.ends) == (3 if shrinking else 1)
        assert all(0 <= period <= iteration for period, iteration in zip(plan.periods, plan.iterations, strict=True))
