from __future__ import annotations

import numpy as np
import pytest

from robusteval.stats.bootstrap import bootstrap_mean


def test_interval_is_that_of_the_normal_theory_for_a_large_sample():
    values = np.random.default_rng(0).normal(0.3, 1.0, size=2000)
    found = bootstrap_mean(values, resamples=3999, seed=1)
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.005)


def test_the_p_value_is_never_zero():
    found = bootstrap_mean([1.0, 1.1, 0.9, 1.0, 1.05], resamples=199)
    assert found.p_value == 1 / 200


def test_no_mean_is_no_evidence():
    assert bootstrap_mean([0.0, 0.0, 0.0], resamples=99).p_value == 1.0


def test_equal_seeds_give_equal_results_and_others_do_not():
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_groups_are_drawn_whole():
    values = np.repeat(np.random.default_rng(2).normal(size=40), 5)
    groups = [str(i // 5) for i in range(200)]
    whole, single = bootstrap_mean(values, groups), bootstrap_mean(values)
    ratio = (whole.high - whole.low) / (single.high - single.low)
    assert ratio == pytest.approx(np.sqrt(5), rel=0.1)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one group each"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="one group each"):
        bootstrap_mean([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="too few"):
        bootstrap_mean([1.0, 2.0], resamples=10)
