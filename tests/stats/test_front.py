from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.stats.front import Panel, contributions, front_by_intervals, front_by_outcomes
from robusteval.stats.pareto import hypervolume

POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8)


def panel(*rows: list[int], groups: list[str] | None = None, strata: list[str] | None = None) -> Panel:
    right = np.array(rows, dtype=np.float64)
    return Panel(right, groups or [str(index) for index in range(right.shape[1])], strata or [])


def test_a_model_that_is_right_wherever_the_other_is_stays_on_the_front() -> None:
    clean = panel([1, 1, 1, 0], [1, 1, 0, 0])
    robust = panel([1, 1, 0, 0], [1, 0, 0, 0])
    found = front_by_outcomes([clean, robust], (0.0, 0.0))
    assert found.probability[0] == 1.0
    # The second is on the front only in draws where both columns tie: no example of the difference is drawn.
    both = (1 - 2 / 4) ** 4
    assert found.probability[1] == pytest.approx(both, abs=0.03)
    assert found.volume == pytest.approx(0.75 * 0.5)
    assert found.low <= found.volume <= found.high


def test_columns_that_share_examples_are_drawn_together() -> None:
    first = panel([1, 0] * 20, [0, 1] * 20)
    # Model 1 is right exactly where model 0 is wrong, in both columns: one is ahead in both, or they tie.
    shared = front_by_outcomes([first, first], (0.0, 0.0))
    alone = front_by_outcomes(
        [first, panel(*first.right.astype(int).tolist(), groups=[f"o{i}" for i in range(40)])], (0, 0)
    )
    assert sum(shared.probability) == pytest.approx(1.0, abs=0.15)
    assert sum(alone.probability) > 1.3


def test_domains_weigh_the_same() -> None:
    found = front_by_outcomes([panel([1, 1, 1, 0], strata=["a", "a", "a", "b"])], (0.0,))
    assert found.volume == pytest.approx(0.5)


def test_equal_seeds_give_equal_numbers() -> None:
    table = panel([1, 0, 1, 1, 0], [1, 1, 0, 0, 0])
    assert front_by_outcomes([table], (0.0,), seed=3) == front_by_outcomes([table], (0.0,), seed=3)


def test_panels_of_different_models_are_refused() -> None:
    with pytest.raises(ValueError, match="same models"):
        front_by_outcomes([panel([1, 0]), panel([1, 0], [0, 1])], (0.0, 0.0))


def test_from_intervals_two_equal_models_share_the_front_and_a_distant_one_is_not_on_it() -> None:
    found = front_by_intervals([[0.9, 0.5], [0.9, 0.5], [0.2, 0.1]], np.full((3, 2), 0.02), (0.1, 0.0))
    assert found.probability[2] == 0.0
    assert found.probability[0] == pytest.approx(0.75, abs=0.06)
    sure = front_by_intervals([[0.9, 0.5], [0.9, 0.5]], np.zeros((2, 2)), (0.1, 0.0))
    assert sure.probability == (1.0, 1.0)
    assert sure.low == sure.high == pytest.approx(0.8 * 0.5)


def test_contributions_of_a_staircase_are_its_steps() -> None:
    points = [(0.9, 0.2), (0.5, 0.6), (0.4, 0.1)]
    assert contributions(points, (0.0, 0.0)) == pytest.approx((0.4 * 0.2, 0.5 * 0.4, 0.0))
    assert contributions([(0.5, 0.5), (0.5, 0.5)], (0.0, 0.0)) == (0.0, 0.0)
    assert contributions([], (0.0, 0.0)) == ()


@given(POINTS)
def test_a_contribution_is_the_volume_that_is_lost_without_the_model(points: list[tuple[float, float]]) -> None:
    whole = hypervolume(points, (0.0, 0.0), (True, True))
    for index, added in enumerate(contributions(points, (0.0, 0.0))):
        rest = points[:index] + points[index + 1 :]
        assert added == pytest.approx(whole - hypervolume(rest, (0.0, 0.0), (True, True)), abs=1e-12)
