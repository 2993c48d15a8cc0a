from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from robusteval.stats.intervals import clopper_pearson, difference, t_interval, wilson, wilson_clustered

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(COUNTS, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_that_of_statsmodels_and_contains_the_estimate(count, confidence):
    successes, n = count
    low, high = wilson(successes, n, confidence)
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert 0.0 <= low <= successes / n <= high <= 1.0


@settings(deadline=None)
@given(COUNTS)
def test_clopper_pearson_is_that_of_scipy_and_contains_the_estimate(count):
    successes, n = count
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    found = clopper_pearson(successes, n)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0.0 <= found[0] <= successes / n <= found[1] <= 1.0


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.77, 0.95])
def test_wilson_covers_about_95_percent_exactly_summed(p):
    n = 400
    covered = [low <= p <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    coverage = float(np.sum(stats.binom.pmf(np.arange(n + 1), n, p)[covered]))
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("call", [wilson, clopper_pearson])
@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5), (0, math.inf), (math.nan, 5)])
def test_a_proportion_outside_0_and_1_is_refused(call, successes, n):
    with pytest.raises(ValueError, match="not a proportion"):
        call(successes, n)


def test_confidence_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match="confidence 95"):
        wilson(1, 2, 95)


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=10))
def test_t_interval_is_that_of_scipy(values):
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95) if np.ptp(values) > 1e-6 else None
    found = t_interval(values)
    assert found is not None
    if expected is not None:
        assert found == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


def test_one_value_has_no_t_interval():
    assert t_interval([0.5]) is None
    assert t_interval([]) is None


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_clustered_interval_of_single_examples_is_wilson_itself(right):
    found = wilson_clustered([float(flag) for flag in right], [str(i) for i in range(len(right))])
    assert found.n_effective == pytest.approx(len(right))
    assert (found.low, found.high) == pytest.approx(wilson(sum(right), len(right)), abs=1e-9)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from("abcdefgh"), st.sampled_from("xyz")),
        min_size=1,
        max_size=60,
    )
)
def test_clustered_interval_stays_in_range_around_its_value(rows):
    values, groups, strata = zip(*rows, strict=True)
    found = wilson_clustered(values, groups, strata=strata)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert 1.0 <= found.n_effective <= len(rows)
    assert sum(found.influence.values()) == pytest.approx(0.0, abs=1e-9)


def test_copies_of_an_example_do_not_shorten_the_interval():
    single = [1.0] * 60 + [0.0] * 40
    groups = [str(i) for i in range(100)]
    once = wilson_clustered(single, groups)
    copied = wilson_clustered(single * 7, groups * 7)
    assert copied.n == 700
    # The small-sample factor counts 100 groups of 700 examples as 99 x 700 / 699 of them.
    assert copied.n_effective == pytest.approx(100.0, rel=0.011)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-3)


def test_equal_outcomes_count_each_group_once():
    found = wilson_clustered([1.0] * 30, [str(i % 10) for i in range(30)])
    assert found.n_effective == 10.0
    assert (found.low, found.high) == pytest.approx(wilson(10, 10))


def test_one_group_is_one_example():
    found = wilson_clustered([1.0, 0.0, 1.0, 1.0], ["a"] * 4)
    assert found.n_effective == 1.0


def test_value_is_the_mean_of_stratum_means_and_differences_between_strata_are_no_error():
    values = [1.0] * 90 + [0.0] * 10 + [1.0] * 5 + [0.0] * 5
    strata = ["easy"] * 100 + ["hard"] * 10
    groups = [str(i) for i in range(110)]
    found = wilson_clustered(values, groups, strata=strata)
    assert found.value == pytest.approx((0.9 + 0.5) / 2)
    variance = 0.25 * (0.9 * 0.1 / 100 + 0.5 * 0.5 / 10)
    assert found.n_effective == pytest.approx(0.7 * 0.3 / variance)


@pytest.mark.parametrize(
    ("values", "groups", "strata"),
    [
        ([], [], None),
        ([0.5], ["a", "b"], None),
        ([0.5], ["a"], ["x", "y"]),
        ([1.5], ["a"], None),
        ([math.nan], ["a"], None),
    ],
)
def test_values_that_do_not_fit_are_refused(values, groups, strata):
    with pytest.raises(ValueError):
        wilson_clustered(values, groups, strata=strata)


def _grouped(rng: np.random.Generator, groups: int, size: int, p: float) -> np.ndarray:
    """Outcomes whose chance varies from group to group (beta-binomial), mean `p`."""
    chance = rng.beta(2.0 * p, 2.0 * (1 - p), size=groups)
    return (rng.random((groups, size)) < chance[:, None]).astype(float)


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_clustered_interval_covers_about_95_percent_where_wilson_does_not(p):
    rng = np.random.default_rng(2)
    groups, size, repeats = 150, 5, 1500
    names = [str(i) for i in range(groups) for _ in range(size)]
    clustered = naive = 0
    for _ in range(repeats):
        sample = _grouped(rng, groups, size, p).ravel()
        found = wilson_clustered(sample, names)
        clustered += found.low <= p <= found.high
        low, high = wilson(sample.sum(), sample.size)
        naive += low <= p <= high
    assert 0.93 <= clustered / repeats <= 0.97
    assert naive / repeats < 0.90


def test_paired_difference_covers_about_95_percent():
    rng = np.random.default_rng(3)
    n, repeats, truth = 300, 1500, 0.06
    names = [str(i) for i in range(n)]
    covered = 0
    for _ in range(repeats):
        draw = rng.random(n)
        base = (draw < 0.80).astype(float)
        candidate = ((draw < 0.76) | (draw > 0.90)).astype(float)
        found = difference(wilson_clustered(candidate, names), wilson_clustered(base, names))
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / repeats <= 0.97


def test_difference_of_independent_accuracies_is_newcombes_hybrid_score_interval():
    # Newcombe, Statistics in Medicine 17 (1998) 873-890: 56/70 against 48/80, method 10.
    first = wilson_clustered([1.0] * 56 + [0.0] * 14, [f"a{i}" for i in range(70)])
    second = wilson_clustered([1.0] * 48 + [0.0] * 32, [f"b{i}" for i in range(80)])
    found = difference(first, second)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=80))
def test_paired_interval_uses_the_phi_coefficient(pairs):
    names = [str(i) for i in range(len(pairs))]
    first = wilson_clustered([float(a) for a, _ in pairs], names)
    second = wilson_clustered([float(b) for _, b in pairs], names)
    found = difference(first, second)
    assert found.low <= found.value <= found.high
    a, b = np.array(pairs, dtype=float).T
    if a.std() > 0 and b.std() > 0:
        phi = float(np.corrcoef(a, b)[0, 1])
        below = (first.value - first.low) ** 2 + (second.high - second.value) ** 2
        below -= 2 * phi * (first.value - first.low) * (second.high - second.value)
        assert found.value - found.low == pytest.approx(math.sqrt(max(0.0, below)), abs=1e-6)


def test_difference_turns_around_with_its_sides():
    names = [str(i) for i in range(50)]
    first = wilson_clustered([1.0] * 40 + [0.0] * 10, names)
    second = wilson_clustered([1.0] * 20 + [0.0] * 30, names)
    forth, back = difference(first, second), difference(second, first)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
