from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from robusteval.stats.paired import (
    discordant,
    holm,
    mcnemar_exact,
    minimal_detectable_drop,
    paired_difference,
    sign_flip_test,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_discordant_counts_losses_and_gains(pairs):
    base, candidate = [a for a, _ in pairs], [b for _, b in pairs]
    losses, gains = discordant(base, candidate)
    assert gains - losses == sum(candidate) - sum(base)
    assert discordant(candidate, base) == (gains, losses)


def test_outcomes_of_different_examples_are_refused():
    with pytest.raises(ValueError, match="same examples"):
        discordant([True], [True, False])
    with pytest.raises(ValueError, match="same examples"):
        paired_difference([1.0], [1.0, 0.0])


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_mcnemar_is_that_of_statsmodels_and_scipy(losses, gains):
    expected = mcnemar([[5, losses], [gains, 7]], exact=True).pvalue
    assert mcnemar_exact(losses, gains) == pytest.approx(expected, rel=1e-9)
    if losses + gains:
        one_sided = stats.binomtest(losses, losses + gains, 0.5, alternative="greater").pvalue
        assert mcnemar_exact(losses, gains, "worse") == pytest.approx(one_sided, rel=1e-9)
    assert mcnemar_exact(losses, gains, "better") == mcnemar_exact(gains, losses, "worse")


def test_no_disagreement_is_no_evidence():
    assert mcnemar_exact(0, 0) == mcnemar_exact(0, 0, "worse") == sign_flip_test([0, 0]) == 1.0


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        mcnemar_exact(-1, 3)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 5), st.sampled_from(["two-sided", "worse", "better"]))
def test_sign_flips_of_single_examples_are_mcnemar(losses, gains, weight, alternative):
    nets = [-weight] * losses + [weight] * gains + [0] * 3
    assert sign_flip_test(nets, alternative) == pytest.approx(mcnemar_exact(losses, gains, alternative), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flip_test_is_the_enumeration_of_all_signs(nets):
    sums = np.array([np.dot(signs, nets) for signs in itertools.product((-1, 1), repeat=len(nets))])
    observed = sum(nets)
    assert sign_flip_test(nets) == pytest.approx(np.mean(np.abs(sums) >= abs(observed)), abs=1e-12)
    assert sign_flip_test(nets, "worse") == pytest.approx(np.mean(sums <= observed), abs=1e-12)
    assert sign_flip_test(nets, "better") == pytest.approx(np.mean(sums >= observed), abs=1e-12)


def test_false_alarms_stay_below_the_level_with_grouped_examples():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(1000):
        # Whole groups lean to one model, either one with equal chance; an ungrouped test would call this a difference.
        lean = rng.choice([-1, 0, 1], size=80, p=[0.2, 0.6, 0.2])
        nets = lean * rng.integers(1, 7, size=80)
        alarms += sign_flip_test([int(net) for net in nets]) < 0.05
    assert 0.03 <= alarms / 1000 <= 0.06


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []


def test_paired_difference_points_from_base_to_candidate():
    found = paired_difference([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    assert found.value == pytest.approx(0.25)
    assert found.low <= 0.25 <= found.high


@pytest.mark.parametrize(
    ("n", "share", "points"), [(1000, 0.04, 1.57), (10_000, 0.04, 0.50), (1000, 0.15, 3.04), (10_000, 0.15, 0.96)]
)
def test_detectable_drop_is_the_textbook_one(n, share, points):
    # (z_0.95 + z_0.80) sqrt(share / n) = 2.4865 sqrt(share / n)
    assert round(100 * minimal_detectable_drop(n, share), 2) == pytest.approx(points, abs=0.011)


def test_detectable_drop_without_disagreement_is_not_zero():
    assert minimal_detectable_drop(100, 0.0) == pytest.approx(0.0249, abs=1e-4)
    with pytest.raises(ValueError, match="n = 0"):
        minimal_detectable_drop(0, 0.1)
