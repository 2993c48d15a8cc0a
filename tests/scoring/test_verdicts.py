from __future__ import annotations

import numpy as np
import pytest

from robusteval.schema.errors import UsageError
from robusteval.scoring.evidence import gather
from robusteval.scoring.outcomes import Outcomes
from robusteval.scoring.verdicts import Measurement, ModelComparison, Pair, Rule, judge
from robusteval.stats.paired import holm
from robusteval.stats.power import mcnemar_power


def _outcomes(right, groups=None, seeds=None, digest="d"):
    array = np.atleast_2d(np.asarray(right, dtype=bool))
    n = array.shape[1]
    names = tuple(groups or map(str, range(n)))
    return Outcomes(seeds or tuple(range(len(array))), array, ("one",) * n, names, len(set(names)) < n, digest)


def _pair(base, candidate, flags=(), title="R_id", **options):
    return Pair(
        "",
        "r_id@0",
        title,
        Measurement(_outcomes(base, **options)),
        Measurement(_outcomes(candidate, **options), frozenset(flags)),
    )


def _judge(base, candidate, rule=None, flags=(), **options) -> ModelComparison:
    return judge("base", "candidate", [_pair(base, candidate, flags, **options)], rule or Rule())


def _changed(rng, n, losses, gains):
    """A base that gets 60 % right, and a candidate that loses and gains these shares of all examples."""
    base = rng.random(n) < 0.6
    draw = rng.random(n)
    return base, np.where(base, draw >= losses / 0.6, draw < gains / 0.4)


def test_false_alarms_over_four_cells_stay_below_alpha():
    rng = np.random.default_rng(6)
    alarms = 0
    for run in range(1000):
        pairs = [_pair(*_changed(rng, 128, 0.03, 0.03)) for _ in range(4)]
        found = [gather("R_id", pair.base.outcomes, pair.candidate.outcomes, "examples").p for pair in pairs]
        alarm = min(holm(found)) < 0.05
        alarms += alarm
        if alarm or run % 50 == 0:  # the rest of a verdict takes longer and does not decide this
            assert (judge("base", "candidate", pairs, Rule()).verdict == "regressed") is alarm
    assert alarms / 1000 <= 0.05 + 2 * (0.05 * 0.95 / 1000) ** 0.5


@pytest.mark.parametrize("churn", [0.0, 0.01])
def test_a_planted_drop_is_found_as_often_as_the_power_says(churn):
    power = mcnemar_power(256, 0.05, churn)
    assert power > 0.95
    rng = np.random.default_rng(7)
    found = [_judge(*_changed(rng, 256, 0.05 + churn / 2, churn / 2)).verdict == "regressed" for _ in range(200)]
    assert np.mean(found) >= max(0.95, power - 3 * (power * (1 - power) / 200) ** 0.5)
    assert all(sum(found[start : start + 20]) >= 17 for start in range(0, 200, 20))


def test_an_underpowered_check_is_never_green():
    rng = np.random.default_rng(8)
    rule = Rule(sensitivity=0.02)
    for n in (1, 20, 100, 200):
        assert mcnemar_power(n, 0.02, 0.0) < 0.8
        for _ in range(25):
            comparison = _judge(*_changed(rng, n, 0.02, 0.02), rule=rule)
            assert comparison.verdict in ("inconclusive", "regressed")
            cell = comparison.cells[0]
            assert cell.verdict == "regressed" or (cell.needed is not None and cell.needed > n)
            assert cell.verdict == "regressed" or f"{cell.needed} examples would decide" in cell.reason


def test_equal_models_pass_once_there_are_enough_examples_and_the_said_number_is_enough():
    few = _judge([True] * 300, [True] * 300)
    assert few.verdict == "inconclusive"
    needed = few.cells[0].needed
    assert needed == 335
    many = _judge([True] * needed, [True] * needed)
    assert many.verdict == "pass"
    assert many.cells[0].detectable <= 0.02


def test_more_cells_need_more_examples():
    right = [True] * 340
    assert judge("b", "c", [_pair(right, right)], Rule()).verdict == "pass"
    assert judge("b", "c", [_pair(right, right)] * 4, Rule()).verdict == "inconclusive"


def test_grouped_examples_count_as_their_groups():
    right = [True] * 400
    assert _judge(right, right).verdict == "pass"
    assert _judge(right, right, groups=[f"g{index // 8}" for index in range(400)]).verdict == "inconclusive"


def test_a_margin_is_kept_broken_or_crossed():
    base = np.array([True] * 700 + [False] * 300)

    def with_losses(count):
        candidate = base.copy()
        candidate[:count] = False
        return candidate

    rule = Rule(margin=0.03)
    assert _judge(base, with_losses(5), rule).verdict == "pass"
    assert _judge(base, with_losses(60), rule).verdict == "regressed"
    across = _judge(base, with_losses(28), rule)
    assert across.verdict == "inconclusive"
    assert across.cells[0].needed > 1000
    assert across.cells[0].confidence == pytest.approx(0.9)


def test_false_passes_at_the_margin_stay_below_alpha():
    rng = np.random.default_rng(9)
    rule = Rule(margin=0.05)
    passed = sum(_judge(*_changed(rng, 300, 0.06, 0.01), rule=rule).verdict == "pass" for _ in range(200))
    assert passed / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_new_reason_for_doubt_makes_a_rise_suspect_but_an_old_one_does_not():
    base, better = [False] * 200 + [True] * 200, [True] * 400
    suspect = _judge(base, better, flags=("zero-gradient",))
    assert suspect.verdict == "suspect"
    assert suspect.failed()
    assert suspect.cells[0].new_flags == ("zero-gradient",)
    assert "rose by 50 points together with zero-gradient" in suspect.cells[0].reason
    flagged = frozenset({"zero-gradient"})
    both = Pair("", "a", "A", Measurement(_outcomes(base), flagged), Measurement(_outcomes(better), flagged))
    assert judge("b", "c", [both], Rule()).verdict == "pass"


def test_a_regression_outranks_a_doubt_and_the_worst_cell_speaks_for_all():
    right, wrong = [True] * 400, [False] * 400
    comparison = judge("b", "c", [_pair(right, wrong, ("nan-logits",)), _pair(right, right)], Rule())
    assert [cell.verdict for cell in comparison.cells] == ["regressed", "pass"]
    assert comparison.verdict == "regressed"


def test_inconclusive_fails_only_when_strict():
    comparison = _judge([True] * 10, [True] * 10)
    assert comparison.verdict == "inconclusive"
    assert not comparison.failed()
    assert comparison.failed(strict=True)


def test_attack_seeds_are_averaged_before_examples_are_compared():
    rng = np.random.default_rng(3)
    base = rng.random((3, 600)) < 0.97
    worse = base & (rng.random(600) < 0.9)
    rule = Rule(unit="attack_seeds", sensitivity=0.05)
    assert _judge(base, worse, rule).verdict == "regressed"
    same = _judge(base, base, rule)
    assert same.verdict == "pass"
    assert same.cells[0].seeds == (3, 3)
    assert same.cells[0].difference.interval == "bootstrap-t"


def test_fewer_than_three_training_seeds_decide_nothing():
    right, wrong = [[True] * 400] * 2, [[False] * 400] * 2
    found = _judge(right, wrong, Rule(unit="train_seeds"))
    assert found.verdict == "inconclusive"
    assert "at least 3 a side" in found.cells[0].reason


def test_training_seeds_of_the_two_sides_need_not_be_the_same():
    rng = np.random.default_rng(4)
    base, worse = rng.random((3, 500)) < 0.9, rng.random((4, 500)) < 0.5
    pair = Pair("", "a_id", "A_id", Measurement(_outcomes(base)), Measurement(_outcomes(worse, seeds=(5, 6, 7, 8))))
    found = judge("b", "c", [pair], Rule(unit="train_seeds"))
    assert found.verdict == "regressed"
    assert found.cells[0].seeds == (3, 4)


def test_different_examples_and_different_seeds_are_refused():
    first = Measurement(_outcomes([True]))
    with pytest.raises(UsageError, match="A_id: base and candidate were measured on different examples"):
        judge("b", "c", [Pair("", "a", "A_id", first, Measurement(_outcomes([True], digest="e")))], Rule())
    with pytest.raises(UsageError, match=r"base has seeds \[0\], candidate \[7\]"):
        judge("b", "c", [Pair("", "a", "A_id", first, Measurement(_outcomes([True], seeds=(7,))))], Rule())
