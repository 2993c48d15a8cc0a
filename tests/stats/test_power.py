from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from robusteval.stats.paired import mcnemar_exact
from robusteval.stats.power import critical_losses, detectable_drop, examples_needed, mcnemar_power


@given(st.integers(0, 4000), st.sampled_from([0.2, 0.05, 0.0125, 0.0001]))
def test_the_critical_count_is_the_first_that_the_exact_test_rejects(changed, alpha):
    found = int(critical_losses(np.array([changed]), alpha)[0])
    if found <= changed:
        assert mcnemar_exact(found, changed - found, "worse") < alpha
    assert found == 0 or mcnemar_exact(found - 1, changed - found + 1, "worse") >= alpha


@pytest.mark.parametrize(("n", "drop", "churn"), [(40, 0.2, 0.1), (17, 0.3, 0.0), (25, 0.5, 0.9)])
def test_power_is_the_sum_over_all_outcomes(n, drop, churn):
    gain = min(churn, 1 - drop) / 2
    total = 0.0
    for changed in range(n + 1):
        for losses in range(changed + 1):
            if mcnemar_exact(losses, changed - losses, "worse") < 0.05:
                share = 2 * gain + drop
                total += binom.pmf(changed, n, share) * binom.pmf(losses, changed, (gain + drop) / share)
    assert mcnemar_power(n, drop, churn) == pytest.approx(total, abs=1e-9)


def test_power_grows_with_examples_and_with_the_drop_and_falls_with_churn():
    assert mcnemar_power(400, 0.03, 0.02) > mcnemar_power(100, 0.03, 0.02)
    assert mcnemar_power(400, 0.05, 0.02) > mcnemar_power(400, 0.03, 0.02)
    assert mcnemar_power(400, 0.03, 0.10) < mcnemar_power(400, 0.03, 0.02)
    assert mcnemar_power(0, 0.5, 0.0) == 0.0
    assert mcnemar_power(4, 1.0, 0.0) == 0.0  # 1/16 is not below 5 %
    assert mcnemar_power(5, 1.0, 0.0) == 1.0


@pytest.mark.parametrize(("drop", "churn", "alpha"), [(0.02, 0.0, 0.05), (0.02, 0.04, 0.0125), (0.05, 0.1, 0.05)])
def test_the_needed_number_has_the_power_and_a_tenth_less_has_not(drop, churn, alpha):
    needed = examples_needed(drop, churn, alpha)
    assert needed is not None
    assert mcnemar_power(needed, drop, churn, alpha) >= 0.8
    assert mcnemar_power(int(0.9 * needed), drop, churn, alpha) < 0.8


def test_what_no_number_in_reach_can_show_has_none():
    assert examples_needed(0.001, 0.5, limit=1000) is None


def test_the_detectable_drop_is_the_smallest_with_the_power():
    drop = detectable_drop(500, 0.04)
    assert mcnemar_power(500, drop, 0.04) >= 0.8 > mcnemar_power(500, drop - 0.0002, 0.04)
    assert detectable_drop(3, 0.0) == 1.0


@pytest.mark.parametrize(("drop", "churn", "alpha"), [(0.0, 0.1, 0.05), (0.1, 1.5, 0.05), (0.1, 0.1, 0.0)])
def test_impossible_alternatives_are_refused(drop, churn, alpha):
    with pytest.raises(ValueError, match="need 0 < drop"):
        mcnemar_power(10, drop, churn, alpha)
