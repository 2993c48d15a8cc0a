from __future__ import annotations

import numpy as np
import pytest

from robusteval.stats.hierarchical import repeated_difference


def _side(rng, easiness, seeds, spread, drop=0.0):
    shift = rng.normal(0.0, spread, size=(seeds, 1)) - drop
    return rng.random((seeds, len(easiness))) < np.clip(easiness + shift, 0, 1)


def _rejections(seeds, spread, drop, runs=200, n=150):
    rng = np.random.default_rng(seeds)
    names = [str(index) for index in range(n)]
    found = 0
    for run in range(runs):
        easiness = rng.beta(0.4, 0.15, size=n)
        base, candidate = _side(rng, easiness, seeds, spread), _side(rng, easiness, seeds, spread, drop)
        result = repeated_difference(base, candidate, names, draw_repetitions=True, resamples=199, seed=run)
        found += result.p_worse() < 0.05
    return found / runs


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.1), (5, 0.1), (5, 0.02)])
def test_methods_that_do_not_differ_are_rarely_called_worse(seeds, spread):
    assert _rejections(seeds, spread, 0.0) <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_a_method_that_is_ten_points_worse_over_five_seeds_is_found():
    assert _rejections(5, 0.02, 0.1, runs=50) >= 0.9


def test_without_drawing_repetitions_it_is_the_error_of_the_paired_mean():
    rng = np.random.default_rng(0)
    base, candidate = rng.random((1, 400)) < 0.7, rng.random((1, 400)) < 0.6
    names = [str(index) for index in range(400)]
    found = repeated_difference(base, candidate, names, draw_repetitions=False)
    change = candidate[0].astype(float) - base[0]
    assert found.value == pytest.approx(change.mean())
    assert found.se == pytest.approx(change.std(ddof=1) / 20, rel=0.08)
    low, high = found.interval(0.95)
    assert low < found.value < high


def test_whole_groups_are_drawn():
    right = np.array([[1, 1, 1, 1, 0, 0, 0, 0]] * 1)
    alone = repeated_difference(right * 0, right, list("abcdefgh"), draw_repetitions=False)
    grouped = repeated_difference(right * 0, right, list("aaaabbbb"), draw_repetitions=False)
    assert grouped.se == pytest.approx(2 * alone.se, rel=0.1)


def test_equal_sides_differ_by_nothing():
    right = np.ones((3, 10))
    found = repeated_difference(right, right, [str(i) for i in range(10)], draw_repetitions=True)
    assert (found.value, found.se, found.p_worse(), found.interval(0.95)) == (0.0, 0.0, 1.0, (0.0, 0.0))


def test_one_run_shows_no_spread():
    with pytest.raises(ValueError, match="two a side"):
        repeated_difference([[1, 0]], [[1, 0], [1, 1]], ["a", "b"], draw_repetitions=True)
