from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from robusteval.stats.aggregate import Match, bradley_terry, matches_of, mean_ranks, rank_agreement, win_rates

TABLE = {"one": {"a": 0.9, "b": 0.8, "c": 0.1}, "two": {"a": 0.7, "b": 0.7, "c": 0.2}}


def test_matches_are_all_pairs_and_ties_are_equal_values_or_equal_groups() -> None:
    assert matches_of("t", {"b": 2.0, "a": 1.0}) == [Match("a", "b", "second", "t")]
    assert matches_of("t", {"b": 2.0, "a": 2.0})[0].winner == "tie"
    assert matches_of("t", {"b": 2.0, "a": 1.0}, {"a": 1, "b": 1})[0].winner == "tie"


def test_a_win_rate_is_the_mean_over_tasks_of_opponents_beaten() -> None:
    matches = [match for task, values in TABLE.items() for match in matches_of(task, values)]
    assert win_rates(matches) == {"a": (1.0 + 0.75) / 2, "b": (0.5 + 0.75) / 2, "c": 0.0}


def test_two_models_have_the_strength_of_their_odds() -> None:
    matches = [Match("a", "b", "first", f"t{index}") for index in range(6)] + [Match("a", "b", "second", "t9")] * 2
    found = bradley_terry(matches)
    # Virtual ties of weight 1/2 add a quarter to both sides: odds 6.25 to 2.25.
    gap = 400 * math.log10(6.25 / 2.25)
    assert found["a"].value == pytest.approx(gap / 2, abs=0.1)
    assert found["b"].value == pytest.approx(-gap / 2, abs=0.1)
    assert found["a"].low <= found["a"].value <= found["a"].high


def test_strengths_maximise_the_likelihood() -> None:
    matches = [match for task, values in TABLE.items() for match in matches_of(task, values)]
    weighted = [(m.first, m.second, {"first": 1.0, "tie": 0.5, "second": 0.0}[m.winner], 1.0) for m in matches]
    weighted += [(first, second, 0.5, 0.5) for first, second in (("a", "b"), ("a", "c"), ("b", "c"))]

    def loss(strengths: list[float]) -> float:
        at = dict(zip("abc", strengths, strict=True))
        total = 0.0
        for first, second, score, weight in weighted:
            p = 1.0 / (1.0 + 10 ** ((at[second] - at[first]) / 400))
            total -= weight * (score * math.log(p) + (1 - score) * math.log(1 - p))
        return total + 1e-9 * sum(strengths) ** 2

    best = minimize(loss, [0.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-12}).x
    found = bradley_terry(matches)
    assert [found[name].value for name in "abc"] == pytest.approx(best - best.mean(), abs=1.0)


def test_a_model_that_never_loses_has_a_finite_strength_and_one_task_no_interval() -> None:
    found = bradley_terry(matches_of("t", {"a": 0.9, "b": 0.5}))
    assert math.isfinite(found["a"].value)
    assert found["a"].low == found["a"].value == found["a"].high
    assert bradley_terry([]) == {}


@given(st.permutations(["a", "b", "c", "d"]))
def test_a_clear_order_comes_out_of_every_rule(order: list[str]) -> None:
    values = {name: float(-place) for place, name in enumerate(order)}
    matches = [match for task in ("s", "t") for match in matches_of(task, values)]
    rates, strengths = win_rates(matches), bradley_terry(matches, resamples=9)
    assert sorted(rates, key=lambda name: -rates[name]) == order
    assert sorted(strengths, key=lambda name: -strengths[name].value) == order


def test_mean_ranks_share_ties_and_leave_incomplete_models_out() -> None:
    columns = {"x": {"a": 0.9, "b": 0.5, "c": 0.5, "d": 1.0}, "y": {"a": 0.1, "b": 0.3, "c": 0.2}}
    assert mean_ranks(columns) == {"a": 2.0, "b": 1.75, "c": 2.25}
    assert mean_ranks({}) == {}


def test_agreement_is_kendalls_tau_b() -> None:
    rules = {
        "x": {"a": 3.0, "b": 2.0, "c": 1.0},
        "y": {"a": 3.0, "b": 1.0, "c": 2.0},
        "z": {"a": 1.0, "b": 1.0, "c": 1.0},
    }
    assert rank_agreement(rules) == {("x", "y"): pytest.approx(1 / 3)}
