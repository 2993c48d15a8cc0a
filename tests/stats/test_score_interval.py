from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import norm

from robusteval.stats.score_interval import paired_score_interval


def _distance(gains, losses, n, delta):
    """The score statistic with the constrained likelihood maximised by search."""
    lowest = max(0.0, -delta)

    def minus_likelihood(loss):
        gain = loss + delta
        return -(xlogy(gains, gain) + xlogy(losses, loss) + xlogy(n - gains - losses, 1 - gain - loss))

    bounds = (lowest, (1 - delta) / 2)
    loss = minimize_scalar(minus_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (gains - losses - n * delta) / np.sqrt(n * (2 * loss + delta - delta**2))


@pytest.mark.parametrize(("gains", "losses", "n"), [(3, 9, 50), (12, 4, 44), (1, 30, 400)])
def test_the_ends_are_where_the_score_test_just_rejects(gains, losses, n):
    low, high = paired_score_interval((gains - losses) / n, (gains + losses) / n, n)
    z = norm.ppf(0.975)
    assert _distance(gains, losses, n, low) == pytest.approx(z, abs=1e-3)
    assert _distance(gains, losses, n, high) == pytest.approx(-z, abs=1e-3)


@pytest.mark.parametrize("n", [1, 20, 500])
def test_without_any_change_it_is_as_wide_as_the_number_of_examples_allows(n):
    z = norm.ppf(0.95)
    low, high = paired_score_interval(0.0, 0.0, n, confidence=0.9)
    assert -low == pytest.approx(z**2 / (n + z**2), rel=1e-4)
    assert high == pytest.approx(-low)


@given(st.integers(1, 300), st.data())
def test_it_contains_the_value_stays_in_range_and_turns_with_the_sign(n, data):
    gains = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - gains))
    value, churn = (gains - losses) / n, (gains + losses) / n
    low, high = paired_score_interval(value, churn, n)
    assert -1.0 <= low <= value <= high <= 1.0
    assert paired_score_interval(-value, churn, n) == pytest.approx((-high, -low), abs=1e-6)


def test_impossible_results_are_refused():
    with pytest.raises(ValueError, match="not a paired result"):
        paired_score_interval(1.5, 0.0, 10)
