from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from robusteval.stats.finite import upper_count
from robusteval.stats.intervals import clopper_pearson

COUNTS = st.integers(1, 60).flatmap(
    lambda population: st.integers(0, population).flatmap(
        lambda drawn: st.tuples(st.just(population), st.just(drawn), st.integers(0, drawn))
    )
)


@given(COUNTS, st.sampled_from([0.5, 0.95, 0.99]))
def test_the_limit_is_the_last_count_that_is_not_refuted(counts, confidence) -> None:
    population, drawn, found = counts
    limit = upper_count(found, drawn, population, confidence)
    plausible = [
        marked
        for marked in range(found, population - drawn + found + 1)
        if hypergeom.cdf(found, population, marked, drawn) > 1 - confidence + 1e-9
    ]
    barely = hypergeom.cdf(found, population, limit, drawn) - (1 - confidence)
    assert limit == max(plausible) or abs(barely) < 1e-9


def test_the_whole_population_leaves_no_doubt() -> None:
    assert upper_count(3, 20, 20) == 3


def test_no_sample_says_nothing() -> None:
    assert upper_count(0, 0, 20) == 20


def test_a_small_sample_without_a_find_comes_near_the_rule_of_three() -> None:
    assert upper_count(0, 570, 57_000) / 57_000 == pytest.approx(3 / 570, rel=0.02)


@given(COUNTS)
def test_it_is_never_looser_than_the_binomial_limit(counts) -> None:
    population, drawn, found = counts
    if drawn:
        assert upper_count(found, drawn, population) <= population * clopper_pearson(found, drawn, 0.9)[1] + 1e-9


@pytest.mark.parametrize("counts", [(2, 1, 5), (0, 6, 5), (-1, 2, 5)])
def test_impossible_counts_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="impossible"):
        upper_count(*counts)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_confidence_is_a_probability(confidence) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        upper_count(0, 1, 2, confidence)
