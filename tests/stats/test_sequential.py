from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.stats.sequential import decided, limits, looks


@given(st.integers(1, 100_000), st.integers(1, 64), st.floats(1.01, 3.0))
def test_looks_grow_and_end_with_everything(population, first, growth) -> None:
    found = looks(population, first, growth)
    assert found[-1] == population
    assert all(later > earlier for earlier, later in itertools.pairwise(found))


def run(order, threshold, confidence):
    """Decision and number of members seen, for one order of the population."""
    planned = looks(len(order))
    for seen in planned:
        marked = int(order[:seen].sum())
        found = decided(marked, seen, len(order), threshold, confidence=confidence, at_most=len(planned))
        if found is not None:
            return found, seen
    raise AssertionError("the last look decides")


@pytest.mark.parametrize(("share", "threshold", "right"), [(0.45, 0.5, "missed"), (0.55, 0.5, "reached")])
def test_five_points_are_decided_with_a_quarter_of_the_examples_in_most_runs(share, threshold, right) -> None:
    generator = np.random.default_rng(0)
    population = np.arange(5000) < share * 5000
    runs = [run(generator.permutation(population), threshold, 0.95) for _ in range(40)]
    assert sum(decision != right for decision, _ in runs) <= 3
    assert np.median([seen for _, seen in runs]) < 1250


def test_a_truth_next_to_the_threshold_is_decided_wrongly_no_more_often_than_stated() -> None:
    generator = np.random.default_rng(1)
    population = np.arange(400) < 199
    wrong = sum(run(generator.permutation(population), 0.5, 0.9)[0] == "reached" for _ in range(300))
    assert wrong <= 0.1 * 300


def test_everything_seen_is_certain_at_the_very_threshold() -> None:
    assert decided(30, 100, 100, 0.3, confidence=0.99, at_most=9) == "reached"
    assert decided(29, 100, 100, 0.3, confidence=0.99, at_most=9) == "missed"


@given(st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.integers(0, 80))
def test_the_limits_hold_the_count_among_those_seen(counts, unseen) -> None:
    seen, marked = counts
    least, most = limits(marked, seen, seen + unseen, 0.9)
    assert marked <= least + unseen
    assert least <= marked + unseen
    assert marked <= most <= marked + unseen


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="no looks"):
        looks(0)
