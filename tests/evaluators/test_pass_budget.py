from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusteval.evaluators.adversarial import AdversarialEvaluator, AdversarialParams
from robusteval.evaluators.adversarial_stages import plan_stages
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.pass_budget import within
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Component, Epsilon, ThreatModel

THREAT = ThreatModel(epsilon=Epsilon("0.03"))
STANDARD = plan_stages([Component(name="autoattack")], THREAT, 10)


def passes(stage):
    return sum(stage.attack.passes(stage.attack.params, 10))


def test_the_dear_attack_is_shortened_and_what_follows_is_left_out() -> None:
    paid = within(1000, STANDARD, 10)
    assert [stage.label for stage in paid.stages] == ["autoattack/apgd-ce", "autoattack/apgd-t"]
    assert paid.stages[0].attack.params == STANDARD[0].attack.params
    assert paid.stages[1].attack.params.targets == 3
    assert paid.shortened == "autoattack/apgd-t to 3 targets"
    assert paid.left_out == ["autoattack/fab-t", "autoattack/square"]
    (flag,) = paid.flags(1000)
    assert "1000 passes" in flag.evidence
    assert "left out autoattack/fab-t, autoattack/square" in flag.evidence


def test_within_the_first_run_the_steps_are_shortened() -> None:
    paid = within(60, STANDARD, 10)
    assert [stage.label for stage in paid.stages] == ["autoattack/apgd-ce"]
    assert 20 < paid.stages[0].attack.params.steps < 30
    few = within(sum(passes(stage) for stage in STANDARD[:1]) + 50, STANDARD, 10)
    assert few.shortened == f"autoattack/apgd-t to {few.stages[1].attack.params.steps} steps of 1 target"


def test_a_budget_that_pays_for_everything_changes_nothing() -> None:
    paid = within(10**6, STANDARD, 10)
    assert paid.stages == STANDARD
    assert paid.flags(10**6) == ()


@given(st.integers(10, 12_000))
def test_what_is_kept_is_paid_for_and_one_more_run_is_not(budget) -> None:
    paid = within(budget, STANDARD, 10)
    spent = sum(passes(stage) for stage in paid.stages)
    assert spent <= budget
    assert len(paid.stages) + len(paid.left_out) == len(STANDARD)
    if paid.left_out or paid.shortened:
        last = paid.stages[-1]
        whole = next(stage for stage in STANDARD if stage.label == last.label)
        if paid.shortened:
            assert passes(whole) > passes(last)
        targets = getattr(last.attack.params, "targets", 1)
        assert budget - spent < max(passes(last) / targets + 10, 30)


@given(st.integers(10, 12_000), st.integers(0, 3000))
def test_a_larger_budget_never_buys_less(budget, more) -> None:
    small, large = within(budget, STANDARD, 10), within(budget + more, STANDARD, 10)
    assert len(large.stages) >= len(small.stages)
    for less, rather in zip(small.stages, large.stages, strict=False):
        assert passes(rather) >= passes(less)


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(UsageError, match=r"budget of 4 passes .* autoattack/apgd-ce; a whole one costs 20\d"):
        within(4, STANDARD, 10)


def test_an_attack_that_cannot_be_shortened_is_left_out() -> None:
    stages = plan_stages([Component(name="fgsm"), Component(name="torchattacks/PGD")], THREAT, 10)
    paid = within(8, stages, 10)
    assert [stage.label for stage in paid.stages] == ["fgsm"]
    assert paid.shortened is None


def evaluate(task, budget, **context):
    attack = {
        "name": "autoattack",
        "params": {
            "version": "custom",
            "attacks": ["apgd-ce", "fab-t", "square"],
            "steps": 5,
            "queries": 40,
            "restarts": 1,
        },
    }
    params = AdversarialParams.model_validate({"attacks": [attack], "budget": budget, "checks": False})
    return AdversarialEvaluator(params).evaluate(task.model, task.data, EvaluationContext(threat=THREAT, **context))


def test_an_evaluation_on_a_budget_says_so_and_begins_like_one_without(task) -> None:
    cut, whole = evaluate(task, 60), evaluate(task, 10**5)
    settings = "apgd-ce,fab-t,square;steps=5;queries=40;restarts=1;targets=5;budget=60"
    assert cut.spec == f"aa-custom({settings})@linf-0.03@n90@seed0@engine1"
    assert list(cut.outcomes) == ["clean", "autoattack/apgd-ce", "autoattack/fab-t", "robust"]
    assert cut.outcomes["autoattack/apgd-ce"] == whole.outcomes["autoattack/apgd-ce"]
    assert (np.array(whole.outcomes["robust"].unpack()) <= np.array(cut.outcomes["robust"].unpack())).all()
    assert [flag.code for flag in cut.flags] == ["budget"]
    assert not whole.flags
    assert evaluate(task, 60, batch_size=7) == cut
    survivors = sum(cut.outcomes["clean"].unpack())
    assert cut.budget.forward + cut.budget.backward < 60 * survivors + 10 * 90


def test_the_plan_counts_no_more_than_the_budget() -> None:
    params = AdversarialParams.model_validate({"attacks": ["autoattack"], "budget": 500})
    assert sum(AdversarialEvaluator.passes(params, 10)) == 500
