from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from robusteval.stats import ties
from robusteval.stats.intervals import wilson
from robusteval.stats.paired import discordant, holm, mcnemar_exact, sign_flip_test
from robusteval.stats.ties import (
    detectable_difference,
    holm_pairs,
    pairwise_intervals,
    pairwise_outcomes,
    rank_with_ties,
)

BITS = arrays(np.int64, st.tuples(st.integers(0, 6), st.integers(1, 25)), elements=st.integers(0, 1))
COUNTS = arrays(np.int64, st.tuples(st.integers(2, 4), st.integers(1, 12)), elements=st.integers(0, 3))


@given(BITS)
def test_single_outcomes_are_compared_by_mcnemars_exact_test(bits: np.ndarray) -> None:
    m = len(bits)
    expected = [
        mcnemar_exact(*discordant(bits[i].astype(bool).tolist(), bits[j].astype(bool).tolist()))
        for i in range(m)
        for j in range(i + 1, m)
    ]
    assert pairwise_outcomes(bits) == pytest.approx(expected, abs=1e-12)


@given(COUNTS)
def test_groups_are_compared_by_flipping_signs(counts: np.ndarray) -> None:
    m = len(counts)
    expected = [sign_flip_test((counts[j] - counts[i]).tolist()) for i in range(m) for j in range(i + 1, m)]
    assert pairwise_outcomes(counts) == pytest.approx(expected, abs=1e-9)


def test_the_normal_limit_takes_over_when_there_are_many_models(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(3, np.array([[0.5], [0.52], [0.6]]), size=(3, 4000))
    exact = pairwise_outcomes(counts)
    monkeypatch.setattr(ties, "EXACT_LIMIT", 2)
    assert pairwise_outcomes(counts) == pytest.approx(exact, abs=0.01)


def test_independent_values_are_compared_by_the_ends_that_face_each_other() -> None:
    (p,) = pairwise_intervals([0.5, 0.6], [0.4, 0.55], [0.57, 0.8])
    assert p == pytest.approx(2 * norm.sf(0.1 * norm.ppf(0.975) / np.hypot(0.07, 0.05)))
    # A difference is significant at 5 % exactly if the interval of the difference by square and add excludes zero.
    (edge,) = pairwise_intervals([0.5, 0.5 + np.hypot(0.07, 0.05)], [0.4, 0.45 + np.hypot(0.07, 0.05)], [0.57, 1.0])
    assert edge == pytest.approx(0.05)
    assert pairwise_intervals([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]).tolist() == [1.0]
    assert pairwise_intervals([0.5, 0.6], [0.5, 0.6], [0.5, 0.6]).tolist() == [0.0]
    with pytest.raises(ValueError, match="outside its interval"):
        pairwise_intervals([0.5], [0.6], [0.7])


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_at_once_is_holm_one_by_one(p_values: list[float]) -> None:
    assert holm_pairs(p_values).tolist() == holm(p_values)


def test_a_group_ends_where_its_leader_is_significantly_better() -> None:
    # Pairs (0,1) (0,2) (0,3) (1,2) (1,3) (2,3): the leader 0 beats 2 and 3; 2 does not differ from 3, nor 1 from 2.
    ranks = rank_with_ties([0.9, 0.85, 0.8, 0.7], [0.5, 0.01, 0.001, 0.3, 0.01, 0.2])
    assert ranks.order == (0, 1, 2, 3)
    assert ranks.group == (1, 1, 2, 2)
    assert ranks.rank == (1, 1, 3, 3)
    assert ranks.low == (1, 1, 2, 3)
    assert ranks.high == (2, 3, 4, 4)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8).flatmap(
        lambda values: st.tuples(
            st.just(values),
            st.lists(st.floats(0, 1), min_size=len(values) * (len(values) - 1) // 2, max_size=40).map(
                lambda p: p[: len(values) * (len(values) - 1) // 2]
            ),
        )
    )
)
def test_every_ranking_is_consistent(case: tuple[list[float], list[float]]) -> None:
    values, p = case
    ranks = rank_with_ties(values, p)
    assert sorted(ranks.order) == list(range(len(values)))
    groups = [ranks.group[index] for index in ranks.order]
    assert groups == sorted(groups)
    assert groups[0] == 1
    for place, index in enumerate(ranks.order, start=1):
        assert ranks.low[index] <= place <= ranks.high[index]


def test_a_wrong_number_of_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="need 3"):
        rank_with_ties([0.1, 0.2, 0.3], [0.5])
    with pytest.raises(ValueError, match="models by groups"):
        pairwise_outcomes([1, 0])


def test_models_twice_the_detectable_difference_apart_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    m, n, draws = 6, 1000, 60
    easy = rng.random(n)
    gap = 2 * detectable_difference(n, 0.2, m * (m - 1) // 2)
    told = 0
    for _ in range(draws):
        levels = 0.9 - gap * np.arange(m)
        # Models agree on what is easy and differ on a part of the rest, as trained models do.
        bits = (0.85 * easy + 0.15 * rng.random((m, n))) < levels[:, None]
        ranks = rank_with_ties(bits.mean(axis=1).tolist(), holm_pairs(pairwise_outcomes(bits.astype(int))))
        told += len(set(ranks.group)) == m
    assert told >= 0.95 * draws


def test_equal_models_are_separated_in_at_most_alpha_of_draws() -> None:
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(200):
        bits = rng.random((5, 300)) < 0.7
        adjusted = holm_pairs(pairwise_outcomes(bits.astype(int)))
        false += bool(adjusted.min() < 0.05)
    assert false <= 16  # 5 % of 200 and two standard deviations


def test_intervals_of_a_simulated_board_cover_as_they_promise() -> None:
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.3, 0.95, size=2000)
    counts = rng.binomial(500, truth)
    ends = np.array([wilson(int(count), 500) for count in counts])
    covered = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert 0.93 <= covered <= 0.97


def test_on_large_boards_only_negligible_p_values_are_bounded_from_above(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    sums = (rng.random((12, 400)) < np.linspace(0.2, 0.9, 12)[:, None]).astype(np.int8)
    exact = pairwise_outcomes(sums)
    monkeypatch.setattr(ties, "EXACT_LIMIT", 5)
    bounded = pairwise_outcomes(sums)
    small = bounded < ties.NEGLIGIBLE
    assert 0 < small.sum() < small.size
    assert np.array_equal(bounded[~small], exact[~small])
    assert np.all(bounded[small] >= exact[small])
