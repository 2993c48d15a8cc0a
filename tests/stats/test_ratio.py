from __future__ import annotations

import math

import numpy as np
import pytest

from robusteval.stats.intervals import ClusteredEstimate, wilson, wilson_clustered
from robusteval.stats.ratio import ratio


def estimate(value: float, low: float, high: float) -> ClusteredEstimate:
    return ClusteredEstimate(value, low, high, 100, 100.0)


def test_a_denominator_without_error_scales_the_limits_of_the_numerator() -> None:
    assert ratio(estimate(0.6, 0.5, 0.7), estimate(0.5, 0.5, 0.5)) == pytest.approx((1.2, 1.0, 1.4))


def test_a_numerator_without_error_divides_by_the_limits_of_the_denominator() -> None:
    assert ratio(estimate(0.6, 0.6, 0.6), estimate(0.5, 0.4, 0.6)) == pytest.approx((1.2, 1.0, 1.5))


def test_nothing_is_a_share_of_zero_and_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    assert ratio(estimate(0.5, 0.4, 0.6), estimate(0.0, 0.0, 0.1)) is None
    found = ratio(estimate(0.5, 0.4, 0.6), estimate(0.1, 0.0, 0.3))
    assert found is not None
    assert found[2] == math.inf


def test_samples_of_the_same_examples_leave_less_doubt_than_others() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(80) < 0.7).astype(float)
    sample, other = (wilson_clustered(right, [f"{name}{index}" for index in range(80)]) for name in "ab")
    same, apart = ratio(sample, sample), ratio(sample, other)
    assert same is not None and apart is not None
    assert same[0] == apart[0] == 1.0
    assert same[2] - same[1] < 0.3 * (apart[2] - apart[1])


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.9, 0.6, 100, 200), (0.5, 0.05, 300, 80), (0.97, 0.95, 60, 60)])
def test_the_interval_covers_the_true_ratio(p: float, q: float, n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    covered, draws = 0, 2000
    for x, y in zip(rng.binomial(n, q, draws), rng.binomial(m, p, draws), strict=True):
        first, second = estimate(x / n, *wilson(x, n)), estimate(y / m, *wilson(y, m))
        found = ratio(first, second)
        assert found is not None
        covered += found[1] <= q / p <= found[2]
    assert 0.93 < covered / draws < 0.985
